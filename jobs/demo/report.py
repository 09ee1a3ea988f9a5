"""A run as one HTML file that needs nothing else: numbers, curves, point maps, retrieval examples.

`Report` is plain data, so that the demo, a benchmark and a test fill it alike; `write_report` renders
it for light and dark screens. All is inside the file: pictures are PNG, curves SVG over which a script draws
charts that answer.
"""

from __future__ import annotations

import base64
import io
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from jobs.display.figures import Curve
from jobs.display.html import render
from jobs.evaluate.tables import Table, cell_text
from plinth.observe.ledger import LedgerSummary
from poma3d.evaluate.bootstrap import Estimate

THUMBNAIL_PIXELS = 112


@dataclass(frozen=True)
class Picture:
    """uint8 [h, w, 3] with a line of text below."""

    image: np.ndarray
    caption: str


@dataclass(frozen=True)
class Found:
    """A scene that a query found."""

    scene_id: str
    place: int
    """1 is the best."""
    score: float
    right: bool
    image: np.ndarray


@dataclass(frozen=True)
class FoundBy:
    """What an encoder found for a query: its best scenes, then the right one if it is not among them."""

    encoder: str
    place: int
    """Of the right scene; 1 is the best."""
    found: list[Found]


@dataclass(frozen=True)
class Example:
    """A query, and what each encoder found for it."""

    query: str
    rows: list[FoundBy]


@dataclass(frozen=True)
class Examples:
    """Queries that were drawn without looking at how they went."""

    drawn: list[Example]
    note: str
    """How they were drawn, and how many of them were found."""
    a_hit: Example | None = None
    """One that was found, where there is one and none was drawn."""


@dataclass
class Report:
    """What the page shows; empty parts are left out."""

    title: str
    status: str
    """One line: what came out."""
    good: bool
    """Whether that is what was hoped for; the status is green or amber."""
    summary: str = ""
    facts: dict[str, str] = field(default_factory=dict)
    """Short labels and values for the head of the page."""
    tables: list[Table] = field(default_factory=list)
    more_tables: list[Table] = field(default_factory=list)
    """Folded."""
    curves: dict[str, list[Curve]] = field(default_factory=dict)
    """By stage, in their order."""
    pictures: list[Picture] = field(default_factory=list)
    room: str = ""
    """The page of a room with located texts (`jobs.demo.room`), shown inside the report."""
    room_still: np.ndarray | None = None
    """uint8 [h, w, 4], shown in its place until it is drawn: a browser may be slow, or have no WebGL."""
    room_file: str = ""
    """The same page as a file beside the report."""
    examples: Examples | None = None
    ledger: LedgerSummary = field(default_factory=LedgerSummary)
    """Where the time of the training went."""
    notes: list[str] = field(default_factory=list)
    """What a reader must know to judge the numbers."""
    config: str = ""
    """The resolved job, as YAML."""


def write_report(report: Report, path: Path) -> Path:
    """Render to `path`, whole or not at all."""
    text = render(
        "demo/report.html",
        title=report.title,
        report=report,
        tables=[_filled(table) for table in report.tables],
        more_tables=[_filled(table) for table in report.more_tables],
        data_uri=data_uri,
        thumbnail=thumbnail,
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    partial.write_text(text, encoding="utf-8")
    partial.replace(path)
    return path


def data_uri(image: np.ndarray) -> str:
    """uint8 [h, w, 3], or 4 with opacity, as an inline PNG."""
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(image, np.uint8)).save(buffer, "png", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def thumbnail(image: np.ndarray) -> np.ndarray:
    """uint8 [h, w, 3] at the size of a retrieval example's picture, without blur when enlarged."""
    height, width = image.shape[:2]
    factor = THUMBNAIL_PIXELS / max(height, width)
    size = (max(round(width * factor), 1), max(round(height * factor), 1))
    how = Image.Resampling.NEAREST if factor > 1 else Image.Resampling.LANCZOS
    return np.asarray(Image.fromarray(image).resize(size, how))


def _filled(table: Table) -> dict[str, Any]:
    """The table with its cells as (value, interval, percent of the column's largest: None draws no bar)."""
    tops = [_top(table, i) for i in range(len(table.columns))]
    cells = [[_cell(cell, top) for cell, top in zip(row.cells, tops, strict=True)] for row in table.rows]
    return {"table": table, "rows": list(zip(table.rows, cells, strict=True))}


def _top(table: Table, column: int) -> float:
    """The largest number of a column, which its bars are drawn against."""
    cells = [row.cells[column] for row in table.rows]
    values = [c.high if isinstance(c, Estimate) else c for c in cells if c is not None]
    return max([v for v in values if math.isfinite(v)], default=1.0) or 1.0


def _cell(cell: Estimate | float | None, top: float) -> tuple[str, str, float | None]:
    value = cell.value if isinstance(cell, Estimate) else cell
    return *cell_text(cell), None if value is None else 100 * value / top
