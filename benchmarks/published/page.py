"""The page: tables of the paper and of its follow-up, ours beside them, and how an empty cell is filled."""

from __future__ import annotations

import shlex
import textwrap
from collections.abc import Iterator, Sequence

from benchmarks.published.tables import Measured, Ours, Published, Row, Table

WIDTH = 112
INDENT = "    "
HEAD = """\
# The paper's tables beside ours

<!-- Written by `python -m benchmarks.published` from tables.yaml and ours.json beside it: edit those. -->

```
 the benchmark's files ─┐
                        ├─▶ the one command of a row ─▶ what it writes ─▶ --take ROW=FILE ─▶ our cell
 your encoder, scans ───┘
```

What POMA-3D's paper and its follow-up report, in percent, with a cell of ours beside each figure. The scans
and most of the annotations are handed out by form and are not here: **{filled} of {cells} cells of ours are
filled**. An empty one says what it needs, and below each table stands the command of each row. It writes a
file with the figures, and

`python -m benchmarks.published --take ROW=FILE`

reads them from it (`runs/NAME/results.json`, `results/NAME/evaluation.json` or the file of `--json`) and
writes this page again. A test runs every command of this page on a miniature of the published files, with
what makes it small.
"""
BEFORE = """\
## Before all of them

A pretrained encoder (`runs/poma3d`, or an export), the scans as a data set embedded by its teacher, and the
encoder's features; 3RScan's likewise (`@ingest_3rscan`) for Hypo3D, which asks about both. For `COMMIT` name
the commit of the weights that you have read. `poma annotations check` says whether a file is what it should
be; [downstream](downstream.md) has the formats and the protocols by name.
"""


def page(published: Published, ours: Ours) -> str:
    """The page as Markdown."""
    rows = published.rows.values()
    cells = sum(len(row.measures) for row in rows)
    filled = sum(len(ours.rows[row.key].cells) for row in rows if row.key in ours.rows)
    parts = [HEAD.format(filled=filled, cells=cells), BEFORE, _commands([("", c) for c in published.prepare])]
    for table in published.tables:
        parts += _table(published, table, ours)
    parts += ["## Sources", _bullets([f"**{s.name}**: {s.of}." for s in published.sources.values()])]
    return "\n\n".join(part.strip("\n") for part in parts) + "\n"


def _table(published: Published, table: Table, ours: Ours) -> Iterator[str]:
    names = [published.sources[source].name for source in table.sources]
    head = ["row", "benchmark", "measure", *names, "ours"]
    lines = [_line(head), _line(["---"] * len(head))]
    for row in table.rows:
        given = [_joined(row.published[source]) for source in table.sources]
        about = [f"`{row.key}`", row.name, " / ".join(row.measures)]
        lines.append(_line([*about, *given, _ours(row, ours.rows.get(row.key))]))
    yield f"## {table.title}"
    yield "\n".join(lines)
    yield _bullets(table.comparable)
    yield _commands([(row.key, row.ours.command) for row in table.rows])


def _ours(row: Row, measured: Measured | None) -> str:
    if measured is None:
        return f"*empty*: needs {row.ours.needs}"
    return f"{' / '.join(measured.cells[name] for name in row.measures)} ({measured.of})"


def _joined(figures: Sequence[str]) -> str:
    return " / ".join(figure or "–" for figure in figures) if any(figures) else ""


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


def _bullets(texts: Sequence[str]) -> str:
    return "\n".join(
        textwrap.fill(
            f"- {text}", WIDTH + 6, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False
        )
        for text in texts
    )


def _commands(named: Sequence[tuple[str, str]]) -> str:
    """A block of shell, each command under the key of its row."""
    lines = []
    for key, command in named:
        lines += [f"# {key}"] if key else []
        lines += wrapped(command)
    return "\n".join(["```bash", *lines, "```"])


def wrapped(command: str) -> list[str]:
    """A command over lines that a shell joins again."""
    lines, now = [], ""
    for word in map(shlex.quote, shlex.split(command)):
        if now and len(now) + len(word) + 3 > WIDTH:
            lines.append(f"{now} \\")
            now = INDENT + word
        else:
            now = f"{now} {word}" if now else word
    return [*lines, now]
