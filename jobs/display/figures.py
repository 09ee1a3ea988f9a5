"""Curves as SVG for the pages. Training imports this file, so matplotlib waits for the first curve."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass, field

from markupsafe import Markup

# Drawn in this colour, then replaced by `currentColor`, so that a curve follows the page's theme.
INK_STAND_IN = "#12ab34"
# Of the same lightness on white and on near-black, and told apart by colour-blind readers.
SERIES_COLOURS = ("#3b82f6", "#f97316", "#10b981", "#a855f7", "#ec4899", "#84cc16", "#06b6d4", "#eab308")
TERM_COLOURS = {
    name: SERIES_COLOURS[i]
    for i, name in enumerate(
        ("total", "view_image", "view_text", "scene_image", "scene_text", "jepa", "dense", "val")
    )
}
"""A loss term has one colour on every page."""
CURVE_INCHES = (4.2, 2.7)
LEGEND_COLUMNS = 3


@dataclass(frozen=True)
class Mark:
    """Where on x something happened, drawn as a dotted line."""

    x: float
    text: str
    """What, in a word."""
    series: str = ""
    """The series that it happened to, whose colour it takes; empty for all."""


@dataclass(frozen=True)
class Curve:
    """A plot of named series, each (x, y)."""

    title: str
    x_label: str
    series: dict[str, tuple[list[float], list[float]]]
    marks: tuple[Mark, ...] = ()
    own_colours: Mapping[str, str] = field(default_factory=dict)
    """Series -> colour, where several plots have one colour for what is not in all of them."""
    hidden: frozenset[str] = frozenset()
    """Series that a box of the page shows when it is ticked."""
    note: str = ""
    """What it means, in a sentence."""

    @property
    def colours(self) -> dict[str, str]:
        """Series -> colour."""
        return series_colours(list(self.series)) | dict(self.own_colours)


def series_colours(names: list[str]) -> dict[str, str]:
    """A colour for each series: a loss term's own, the others in their order from those that are left."""
    taken = {TERM_COLOURS[name] for name in names if name in TERM_COLOURS}
    free = [colour for colour in SERIES_COLOURS if colour not in taken] or list(SERIES_COLOURS)
    others = [name for name in names if name not in TERM_COLOURS]
    chosen = {name: free[i % len(free)] for i, name in enumerate(others)}
    return {name: TERM_COLOURS.get(name) or chosen[name] for name in names}


def curve_svg(curve: Curve) -> Markup:
    """The plot as an SVG element whose text and axes take the colour of the page's text."""
    from matplotlib import rc_context
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    settings = {
        "svg.fonttype": "none",
        "svg.hashsalt": curve.title,  # ids that differ from those of the page's other figures
        "font.size": 9.0,
        "font.family": "sans-serif",
        "text.parse_math": False,
    }
    with rc_context(settings):
        figure = Figure(figsize=CURVE_INCHES, layout="constrained")
        FigureCanvasSVG(figure)
        axes = figure.add_subplot()
        colours = curve.colours
        shown = [name for name in curve.series if name not in curve.hidden]
        for mark in curve.marks:
            ink = colours.get(mark.series, INK_STAND_IN)
            axes.axvline(mark.x, color=ink, alpha=0.8, linewidth=1.2, linestyle=":")
        for name in shown:
            x, y = curve.series[name]
            dot = "o" if len(x) == 1 else ""  # a line of one point cannot be seen
            axes.plot(
                x, y, marker=dot, color=colours[name], linewidth=1.5, label=name, solid_capstyle="round"
            )
        axes.set_title(curve.title, loc="left", fontsize=10, fontweight="bold", color=INK_STAND_IN)
        axes.set_xlabel(curve.x_label, color=INK_STAND_IN)
        axes.tick_params(which="both", colors=INK_STAND_IN, length=0)
        axes.grid(color=INK_STAND_IN, alpha=0.15, linewidth=0.6)
        axes.spines[:].set_visible(False)
        axes.margins(x=0.01)
        if len(shown) > 1:
            figure.legend(  # below the axes: on them it would lie on the curves
                loc="outside lower left",
                ncols=min(LEGEND_COLUMNS, len(shown)),
                frameon=False,
                labelcolor=INK_STAND_IN,
                handlelength=1.2,
                fontsize=8.5,
            )
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    return Markup(text[text.index("<svg") :].replace(INK_STAND_IN, "currentColor"))
