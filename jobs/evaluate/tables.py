"""Tables of what was measured, with intervals, as plain data and as text.

Every retrieval table has the same rows: chance, the encoder before training, the trained one, the teacher.
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass

from jobs.display.text import aligned
from jobs.evaluate.measure import MODEL, NO_PROBE, PROBE, TEACHER, UNTRAINED, Results
from poma3d.evaluate.bootstrap import Estimate

NOTES = {
    UNTRAINED: "the teacher's image tower on point maps",
    MODEL: "point maps only",
    TEACHER: "the ceiling: it sees colour",
}
"""What each encoder is; in the order of the rows."""


@dataclass(frozen=True)
class Row:
    """A line of a table: an encoder, what it is, and a cell for each column (None: not measured)."""

    name: str
    note: str
    cells: list[Estimate | float | None]
    strong: bool = False
    """The row that the report is about."""


@dataclass(frozen=True)
class Table:
    """Numbers with intervals."""

    title: str
    columns: list[str]
    rows: list[Row]
    note: str = ""


def tables_of(results: Results) -> list[Table]:
    """A table for each kind of query, and that of the probe."""
    labels = dict.fromkeys(c.rpartition("-")[0] for c in results.chance if c != PROBE)
    return [*(_retrieval_table(results, label) for label in labels), _probe_table(results)]


def table_of(results: Results, columns: Sequence[str]) -> Table:
    """One table of chosen columns, those that were measured."""
    shown = [column for column in columns if column in results.chance]
    note = "R@M-N: the scene of a query of M captions is among the N best. Intervals of 95 % over scenes."
    return Table(
        f"{results.scenes} scenes that nothing has trained on", shown, _rows(results, shown, ""), note
    )


def summary_table(results: Results, best: int) -> Table:
    """Every kind of query in one table: the share whose scene is among the `best` best."""
    labels = dict.fromkeys(c.rpartition("-")[0] for c in results.chance if c != PROBE)
    columns = {f"{label}-{best}": _query(label) for label in labels if f"{label}-{best}" in results.chance}
    rows = _rows(results, list(columns), f"{best} of {results.scenes} scenes, by lot")
    note = (
        f"The share of queries whose scene is among the {best} best of {results.scenes}; intervals of 95 % "
        f"over scenes. A column R@M-{best} joins the captions of M views of a scene to one query."
    )
    names = [f"{label} ({query})" for label, query in columns.items()]
    return Table("Scenes found by text", names, rows, note)


def _retrieval_table(results: Results, label: str) -> Table:
    columns = [column for column in results.chance if column.rpartition("-")[0] == label]
    rows = _rows(results, columns, f"1 of {results.scenes} scenes")
    note = "The share of queries whose scene is among the N best; intervals of 95 % over scenes."
    return Table(f"Zero-shot scene retrieval by {_query(label)}", columns, rows, note)


def _probe_table(results: Results) -> Table:
    title = "Linear probe: which classes are in view"
    if results.probe_scenes is None:
        return Table(title, [], [], NO_PROBE)
    trained_on, scored_on = results.probe_scenes
    note = (
        f"A linear classifier on frozen view features, trained on {trained_on} of the held-out scenes and "
        f"scored on the other {scored_on}: mean average precision over classes."
    )
    return Table(title, ["average precision"], _rows(results, [PROBE], "share of positives"), note)


def _rows(results: Results, columns: list[str], chance: str) -> list[Row]:
    names = [*(n for n in NOTES if n in results.numbers), *(n for n in results.numbers if n not in NOTES)]
    measured = [
        Row(n, NOTES.get(n, ""), [results.numbers[n][c] for c in columns], strong=n == MODEL) for n in names
    ]
    return [Row("chance", chance, [results.chance[c] for c in columns]), *measured]


def _query(label: str) -> str:
    """What a query is made of, in words."""
    count = int(label.removeprefix("R@")) if label.startswith("R@") else 0
    return {0: "the scene's caption", 1: "one view's caption"}.get(count, f"{count} views' captions, joined")


def cell_text(cell: Estimate | float | None) -> tuple[str, str]:
    """A cell's value and its interval as text; the interval is empty where there is none."""
    if cell is None:
        return "–", ""
    if not isinstance(cell, Estimate):
        return f"{cell:.3f}", ""
    return f"{cell.value:.3f}", f"{cell.low:.3f} – {cell.high:.3f}"


def plain_table(table: Table) -> str:
    """The same table for a terminal, columns aligned."""
    lines = [["", *table.columns]]
    for row in table.rows:
        texts = [cell_text(cell) for cell in row.cells]
        lines.append([row.name, *(f"{value} [{between}]" if between else value for value, between in texts)])
    drawn = aligned(lines)
    rule = "-" * max(len(line) for line in drawn)
    return "\n".join([table.title, rule, drawn[0], rule, *drawn[1:], rule, *textwrap.wrap(table.note, 100)])
