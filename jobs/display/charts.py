"""Curves of the pages as charts that answer: uPlot, inlined, and what its script reads.

`uplot/` holds uPlot 1.6.32 (https://github.com/leeoniya/uPlot, package `uplot` of npm), two files of its
`dist/` and its licence, unchanged. No package of the Python index that is kept up carries it.

A page shows the plots of `curve_svg` until the script has drawn its charts: it can be read without scripts.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

from markupsafe import Markup

from jobs.display.figures import Curve

LIBRARY = Path(__file__).with_name("uplot")
SCRIPT = Path(__file__).with_name("charts.js")
DIGITS = 6
"""Significant ones of a value in a page."""

Table = list[list[float | None]]
"""x, then a column per series; what is not finite is None."""


@cache
def chart_library() -> Markup:
    """Style and scripts that make charts of all curves of a page, with uPlot's licence; stands after them."""
    licence = (LIBRARY / "LICENSE").read_text()
    style = (LIBRARY / "uPlot.min.css").read_text()
    library = (LIBRARY / "uPlot.iife.min.js").read_text()
    return Markup(
        f"<style>{style}</style>\n<script>/*! uPlot\n{licence}*/\n{library}</script>\n"
        f"<script>\n{SCRIPT.read_text()}</script>"
    )


def chart_data(curve: Curve) -> dict[str, Any]:
    """What the script reads of a curve; plain JSON."""
    tables: dict[tuple[float, ...], Table] = {}
    order: dict[tuple[float, ...], list[str]] = {}
    for name, (x, y) in curve.series.items():
        key = tuple(x)
        tables.setdefault(key, [_short(x)]).append(_short(y))
        order.setdefault(key, []).append(name)
    colours = curve.colours
    return {
        "title": curve.title,
        "x": curve.x_label,
        "tables": list(tables.values()),
        "series": [{"name": name, "colour": colours[name]} for names in order.values() for name in names],
        "order": list(curve.series),
        "marks": [
            {"x": mark.x, "text": mark.text, "colour": colours.get(mark.series)} for mark in curve.marks
        ],
    }


def _short(values: Sequence[float]) -> list[float | None]:
    return [_rounded(value) if math.isfinite(value) else None for value in values]


def _rounded(value: float) -> float:
    found = float(f"{value:.{DIGITS}g}")
    return int(found) if found.is_integer() and abs(found) < 10**DIGITS else found
