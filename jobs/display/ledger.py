"""The goodput ledger for people: as lines of a terminal, and as a bar with its numbers for a page."""

from __future__ import annotations

from html import escape

from jobs.display.html import SERIES_COLOURS, section, table
from jobs.display.text import aligned
from plinth.observe.ledger import CATEGORIES, LedgerSummary
from plinth.observe.metrics import duration
from plinth.units import SECONDS_PER_HOUR

IDLE_COLOUR = "#9ca3af"
CATEGORY_COLOURS = dict(
    zip(CATEGORIES, (*(SERIES_COLOURS[i] for i in (2, 1, 7, 0, 4)), IDLE_COLOUR), strict=True)
)


def ledger_lines(book: LedgerSummary) -> list[str]:
    """A line of summary and a table below it; nothing for a run without a ledger."""
    if not book.wall_s:
        return []
    rows = [[cell.lower() for cell in _header(book)], *_rows(book)]
    return [f"ledger: {_sentence(book)}", *(f"  {line}" for line in aligned(rows))]


def ledger_section(book: LedgerSummary) -> str:
    """HTML: a bar of the categories, what its colours mean, and the numbers; nothing without a ledger."""
    if not book.wall_s:
        return ""
    shares = {category: book.share(category) for category in CATEGORIES if book.seconds[category] > 0}
    bar = "".join(
        f'<i style="flex: {s:.6f}; background: {CATEGORY_COLOURS[c]}"></i>' for c, s in shares.items()
    )
    legend = "".join(
        f'<li><i style="background: {CATEGORY_COLOURS[c]}"></i>{escape(_name(c))} {share:.1%}</li>'
        for c, share in shares.items()
    )
    return section(
        f"Where the time went: {_sentence(book)}",
        f'<div class="ledger">{bar}</div><ul class="legend">{legend}</ul>{table(_header(book), _rows(book))}',
    )


def _sentence(book: LedgerSummary) -> str:
    restarts = f"{book.restarts} restart{'' if book.restarts == 1 else 's'}"
    return f"{duration(book.wall_s)} wall time, {restarts}, {book.steps_redone} steps done again"


def _header(book: LedgerSummary) -> list[str]:
    hours = "GPU-hours" if any(book.gpu_hours.values()) else "Worker-hours"
    return ["Category", "Time", "Share", hours] + (["Cost"] if book.cost else [])


def _rows(book: LedgerSummary) -> list[list[str]]:
    worker_hours = {category: s / SECONDS_PER_HOUR for category, s in book.worker_seconds.items()}
    hours = book.gpu_hours if any(book.gpu_hours.values()) else worker_hours
    return [
        [
            _name(category), duration(book.seconds[category]), f"{book.share(category):.1%}",
            f"{hours[category]:.2f}", *([f"{book.cost[category]:.2f}"] if book.cost else []),
        ]
        for category in CATEGORIES
    ]  # fmt: skip


def _name(category: str) -> str:
    return category.replace("_", " ")
