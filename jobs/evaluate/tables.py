"""Tables of measured values with their intervals, as plain data and as text."""

from __future__ import annotations

import textwrap
from dataclasses import dataclass

from jobs.display.text import aligned
from poma3d.evaluate.bootstrap import Estimate


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
