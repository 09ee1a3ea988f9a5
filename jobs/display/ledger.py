"""The goodput ledger for people: as lines of a terminal, and as a bar with its numbers for a page."""

from __future__ import annotations

from dataclasses import dataclass

from jobs.display.figures import SERIES_COLOURS
from jobs.display.text import aligned
from plinth.observe.ledger import CATEGORIES, LedgerSummary
from plinth.observe.metrics import duration
from plinth.units import SECONDS_PER_HOUR

SHOWN_OFF_S = 1.0
"""Less time between two drivers is not worth a word."""
IDLE_COLOUR = "#9ca3af"
CATEGORY_COLOURS = dict(
    zip(CATEGORIES, (*(SERIES_COLOURS[i] for i in (2, 1, 7, 0, 4)), IDLE_COLOUR), strict=True)
)


@dataclass(frozen=True)
class BarPart:
    """A category's part of the bar."""

    name: str
    share: float
    colour: str


@dataclass(frozen=True)
class LedgerTable:
    """A ledger as texts."""

    summary: str
    header: list[str]
    rows: list[list[str]]
    bar: list[BarPart]
    """Categories that took any time."""


def ledger_table(book: LedgerSummary) -> LedgerTable:
    """Time, share, hours and, where there is a price, cost of each category."""
    has_gpus = any(book.gpu_hours.values())
    worker_hours = {category: s / SECONDS_PER_HOUR for category, s in book.worker_seconds.items()}
    hours = book.gpu_hours if has_gpus else worker_hours
    header = ["Category", "Time", "Share", "GPU-hours" if has_gpus else "Worker-hours"]
    rows, bar = [], []
    for category in CATEGORIES:
        name, seconds, share = category.replace("_", " "), book.seconds[category], book.share(category)
        rows.append([name, duration(seconds), f"{share:.1%}", f"{hours[category]:.2f}"])
        if seconds > 0:
            bar.append(BarPart(name, share, CATEGORY_COLOURS[category]))
    if book.cost:
        header.append("Cost")
        for row, category in zip(rows, CATEGORIES, strict=True):
            row.append(f"{book.cost[category]:.2f}")
    restarts = f"{book.restarts} restart{'' if book.restarts == 1 else 's'}"
    summary = f"{duration(book.wall_s)} wall time, {restarts}, {book.steps_redone} steps redone"
    if book.off_s >= SHOWN_OFF_S:
        summary += f", {duration(book.off_s)} off"
    return LedgerTable(summary, header, rows, bar)


def ledger_lines(book: LedgerSummary) -> list[str]:
    """A line of summary and a table below it; nothing for a run without a ledger."""
    if not book.wall_s:
        return []
    shown = ledger_table(book)
    rows = [[cell.lower() for cell in shown.header], *shown.rows]
    return [f"ledger: {shown.summary}", *(f"  {line}" for line in aligned(rows))]
