"""Our figures out of what the commands write: results.json, evaluation.json, the JSON of `poma score`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from benchmarks.published.tables import EVALUATE, FINETUNE, Filling, Measured, Row
from jobs.evaluate.measure import MODEL
from jobs.finetune.evaluate import BEST, LAST

PERCENT = 100


def take(row: Row, path: Path) -> Measured:
    """The figures of a row from the file that its command wrote.

    Raises:
        ValueError: a file of another command, task or split, or without one of the figures.
    """
    content = json.loads(path.read_text(encoding="utf-8"))
    found = {FINETUNE: _finetuned, EVALUATE: _evaluated}.get(row.ours.kind, _scored)
    try:
        cells, of = found(row.ours, content)
    except (KeyError, TypeError) as error:
        writes = " ".join(row.ours.command.split()[:2])
        raise ValueError(f"{path}: no {error} in it; {row.key} is read from what `{writes}` writes") from None
    return Measured(dict(zip(row.measures, cells, strict=True)), of, path.name)


def _finetuned(ours: Filling, content: dict[str, Any]) -> tuple[list[str], str]:
    """Best and last side by side, with the split that chose."""
    _check(content["task"], ours.task)
    split = content["splits"][ours.split]
    best, last = split[BEST], split[LAST]
    cells = [
        f"{_with_interval(best['figures'][name])}; last {PERCENT * last['figures'][name]['value']:.1f}"
        for name in ours.figures
    ]
    counts, unknown = split["counts"], content["protocol"]["unknown_answers"]
    return cells, (
        f"step {best['step']}, chosen on {content['select_on']}; {counts['rows']} questions about "
        f"{counts['scenes']} scenes, {counts['without_scene']} without scene; unknown answers {unknown}"
    )


def _evaluated(ours: Filling, content: dict[str, Any]) -> tuple[list[str], str]:
    by_name = {each["benchmark"]: each for each in content["benchmarks"]}
    cells = []
    for place in ours.figures:
        name, _, column = place.rpartition(": ")
        cells.append(_with_interval(by_name[name]["figures"][MODEL][column]))
    protocol = ", ".join(f"{key} {value}" for key, value in by_name[name]["protocol"].items())
    counts = ", ".join(f"{count} {what}" for what, count in by_name[name]["counts"].items() if count)
    return cells, f"{content['about']['encoder']}; {protocol}; {counts}"


def _scored(ours: Filling, content: dict[str, Any]) -> tuple[list[str], str]:
    _check(content["task"], ours.task)
    cells = [f"{content['figures'][name]:.1f}" for name in ours.figures]
    return cells, f"{', '.join(ours.figures)}; {content['rows']} rows, {content['missing']} missing"


def _with_interval(figure: dict[str, float] | float) -> str:
    if not isinstance(figure, dict):
        return f"{PERCENT * figure:.1f}"
    value, low, high = (PERCENT * figure[name] for name in ("value", "low", "high"))
    return f"{value:.1f} [{low:.1f} – {high:.1f}]"


def _check(task: str, wanted: str) -> None:
    if task != wanted:
        raise ValueError(f"the file is of {task}, the row of {wanted}")
