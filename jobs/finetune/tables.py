"""What a head scores, as tables; the protocol by name below each."""

from __future__ import annotations

from jobs.evaluate.tables import Row, Table
from jobs.finetune.evaluate import BEST, LAST, Figures, Results, SplitResult
from plinth.units import counted


def tables_of(results: Results) -> list[Table]:
    """A table for each split that has answers."""
    return [_table(results, name, split) for name, split in results.splits.items() if split.figures]


def _table(results: Results, name: str, split: SplitResult) -> Table:
    figures = split.figures
    columns = [_label(label, found, results.select_on) for label, found in figures.items()]
    shown = figures[LAST]
    rows = [
        Row(measure, "", [found.overall[measure] for found in figures.values()], strong=True)
        for measure in shown.overall
    ]
    rows += [
        Row(f"  {kind} ({split.rows_by_type[kind]})", "", [found.by_type[kind] for found in figures.values()])
        for kind in shown.by_type
    ]
    protocol = ", ".join(f"{key} {value!r}" for key, value in results.protocol.items())
    note = (
        f"Share of {split.counts['rows']} questions about {split.counts['scenes']} scenes; by type EM@1. "
        f"Best of {counted(len(results.selection), 'kept checkpoint')}. "
        f"Intervals of 95 % over scenes. {protocol}."
    )
    return Table(f"{results.task}, {name}", columns, rows, note)


def _label(label: str, figures: Figures, select_on: str) -> str:
    step = "" if figures.step is None else f", step {figures.step}"
    return f"{label}{step}{f' (chosen on {select_on})' if label == BEST else ''}"
