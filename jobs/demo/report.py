"""A run as one HTML file that needs nothing else: numbers, curves, point maps, retrieval examples.

`Report` is plain data, so that the demo, a benchmark and a test fill it alike; `write_report` renders
it for light and dark screens. Curves are SVG and pictures PNG, both inside the file.
"""

from __future__ import annotations

import base64
import io
import math
from dataclasses import dataclass, field
from html import escape
from pathlib import Path

import numpy as np
from PIL import Image

from jobs.display.html import Curve, bullets, curves, folded, head, page, section
from jobs.display.ledger import ledger_section
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
    score: float
    right: bool
    image: np.ndarray


@dataclass(frozen=True)
class Example:
    """A query and its best scenes, best first; `rank` of the right scene counts from 1."""

    query: str
    rank: int
    found: list[Found]


@dataclass
class Report:
    """All that a report shows; empty parts are left out."""

    title: str
    status: str
    """One line: what came out."""
    good: bool
    """Whether that is what was hoped for; the status is green or amber."""
    summary: str = ""
    facts: dict[str, str] = field(default_factory=dict)
    """Short labels and values for the head of the page."""
    tables: list[Table] = field(default_factory=list)
    curves: list[Curve] = field(default_factory=list)
    pictures: list[Picture] = field(default_factory=list)
    examples: list[Example] = field(default_factory=list)
    ledger: LedgerSummary = field(default_factory=LedgerSummary)
    """Where the time of the training went."""
    notes: list[str] = field(default_factory=list)
    """What a reader must know to judge the numbers."""
    config: str = ""
    """The resolved job, as YAML."""


def write_report(report: Report, path: Path) -> Path:
    """Render to `path`, whole or not at all."""
    tone = "good" if report.good else "fair"
    parts = [head(report.title, report.status, tone, report.summary, report.facts)]
    parts += [_table(table) for table in report.tables]
    if report.notes:
        parts.append(section("Read this with the numbers", bullets(report.notes)))
    if report.curves:
        parts.append(section("Training", curves(report.curves)))
    parts.append(ledger_section(report.ledger))
    if report.pictures:
        shown = "".join(_figure(p.image, p.caption) for p in report.pictures)
        parts.append(section("What the model sees", f'<div class="pictures">{shown}</div>'))
    if report.examples:
        parts.append(section("Scenes found by text", "".join(_example(e) for e in report.examples)))
    if report.config:
        parts.append(folded("The resolved job", report.config))
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    partial.write_text(page(report.title, parts), encoding="utf-8")
    partial.replace(path)
    return path


def data_uri(image: np.ndarray) -> str:
    """uint8 [h, w, 3] as an inline PNG."""
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


def _table(table: Table) -> str:
    head = "".join(f"<th>{escape(c)}</th>" for c in table.columns)
    best = [_top(table, i) for i in range(len(table.columns))]
    rows = []
    for row in table.rows:
        cells = "".join(_cell(cell, top) for cell, top in zip(row.cells, best, strict=True))
        name = f'<th scope="row">{escape(row.name)}<small>{escape(row.note)}</small></th>'
        rows.append(f'<tr class="{"strong" if row.strong else ""}">{name}{cells}</tr>')
    note = f'<p class="note">{escape(table.note)}</p>' if table.note else ""
    body = f"<table><thead><tr><th></th>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table>"
    return section(table.title, f'<div class="scroll">{body}</div>{note}')


def _top(table: Table, column: int) -> float:
    """The largest number of a column, which its bars are drawn against."""
    cells = [row.cells[column] for row in table.rows]
    values = [c.high if isinstance(c, Estimate) else c for c in cells if c is not None]
    return max([v for v in values if math.isfinite(v)], default=1.0) or 1.0


def _cell(cell: Estimate | float | None, top: float) -> str:
    value, between = cell_text(cell)
    if cell is None:
        return f"<td>{value}</td>"
    share = 100 * (cell.value if isinstance(cell, Estimate) else cell) / top
    bar = f'<i class="bar"><i style="width:{share:.1f}%"></i></i>'
    return f"<td>{value}<small>{between or '&nbsp;'}</small>{bar}</td>"


def _figure(image: np.ndarray, caption: str) -> str:
    text = escape(caption)
    return f'<figure><img src="{data_uri(image)}" alt="{text}"><figcaption>{text}</figcaption></figure>'


def _example(example: Example) -> str:
    tiles = []
    for place, found in enumerate(example.found, start=1):
        mark = " ✓" if found.right else ""
        text = f"{place}. {escape(found.scene_id)}{mark}<br><small>cosine {found.score:.3f}</small>"
        image = f'<img src="{data_uri(thumbnail(found.image))}" alt="{escape(found.scene_id)}">'
        kind = "right" if found.right else ""
        tiles.append(f'<figure class="{kind}">{image}<figcaption>{text}</figcaption></figure>')
    rank = f"the right scene is number {example.rank}"
    return (
        f'<article><blockquote>{escape(example.query)}</blockquote><p class="note">{rank}</p>'
        f'<div class="found">{"".join(tiles)}</div></article>'
    )
