"""What the HTML pages are made of: one file that needs nothing else, for light and dark screens."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

from matplotlib import rc_context
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

# Drawn in this colour, then replaced by `currentColor`, so that a curve follows the page's theme.
INK_STAND_IN = "#12ab34"
# Of the same lightness on white and on near-black, and told apart by colour-blind readers.
SERIES_COLOURS = ("#3b82f6", "#f97316", "#10b981", "#a855f7", "#ec4899", "#84cc16", "#06b6d4", "#eab308")
TEMPLATE = Path(__file__).with_name("page_template.html")
CURVE_INCHES = (4.6, 2.5)


@dataclass(frozen=True)
class Curve:
    """A plot of named series, each (x, y)."""

    title: str
    x_label: str
    series: dict[str, tuple[list[float], list[float]]]


def page(title: str, parts: Sequence[str], refresh_s: int = 0) -> str:
    """The whole page. `parts` are HTML; `title` is text.

    Args:
        refresh_s: have the browser load it again after so many seconds; 0 never.
    """
    refresh = f'<meta http-equiv="refresh" content="{refresh_s}">' if refresh_s else ""
    return (
        TEMPLATE.read_text(encoding="utf-8")
        .replace("{{title}}", escape(title))
        .replace("{{refresh}}", refresh)
        .replace("{{body}}", "\n".join(part for part in parts if part))
    )


def head(title: str, status: str, tone: str, summary: str, facts: Mapping[str, str]) -> str:
    """Title, status in the colour of its tone (good, fair or bad), a line of summary, labelled values."""
    listed = "".join(f"<div><dt>{escape(k)}</dt><dd>{escape(v)}</dd></div>" for k, v in facts.items())
    line = f'<p class="summary">{escape(summary)}</p>' if summary else ""
    return (
        f"<header><h1>{escape(title)}</h1>"
        f'<p class="status {tone}">{escape(status)}</p>{line}<dl>{listed}</dl></header>'
    )


def section(title: str, body: str) -> str:
    """A heading and HTML below it."""
    return f"<section><h2>{escape(title)}</h2>{body}</section>"


def bullets(lines: Sequence[str]) -> str:
    """A list of texts."""
    return "<ul>" + "".join(f"<li>{escape(line)}</li>" for line in lines) + "</ul>"


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table of texts; the first column names the rows."""
    top = "".join(f"<th>{escape(cell)}</th>" for cell in header)
    body = "".join(
        f'<tr><th scope="row">{escape(row[0])}</th>'
        + "".join(f"<td>{escape(cell)}</td>" for cell in row[1:])
        + "</tr>"
        for row in rows
    )
    return f'<div class="scroll"><table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>'


def curves(drawn: Sequence[Curve]) -> str:
    """Plots side by side as far as there is room."""
    figures = "".join(f"<figure>{curve_svg(curve)}</figure>" for curve in drawn)
    return f'<div class="curves">{figures}</div>'


def folded(title: str, text: str) -> str:
    """Preformatted text behind its title."""
    return f"<details><summary>{escape(title)}</summary><pre>{escape(text)}</pre></details>"


def curve_svg(curve: Curve) -> str:
    """The plot as an SVG element whose text and axes take the colour of the page's text."""

    def draw(figure: Figure) -> None:
        axes = figure.add_subplot()
        for i, (name, (x, y)) in enumerate(curve.series.items()):
            colour = SERIES_COLOURS[i % len(SERIES_COLOURS)]
            axes.plot(x, y, color=colour, linewidth=1.5, label=name, solid_capstyle="round")
        axes.set_title(curve.title, loc="left", fontsize=9, fontweight="bold", color=INK_STAND_IN)
        axes.set_xlabel(curve.x_label, color=INK_STAND_IN)
        plain_axes(axes)
        axes.margins(x=0.01)
        if len(curve.series) > 1:
            axes.legend(frameon=False, labelcolor=INK_STAND_IN, handlelength=1.2, fontsize=7.5)

    return figure_svg(curve.title, CURVE_INCHES, draw)


def plain_axes(axes: Any) -> None:
    """No frame, a faint grid, everything in the colour of the text."""
    axes.tick_params(which="both", colors=INK_STAND_IN, length=0)
    axes.grid(color=INK_STAND_IN, alpha=0.15, linewidth=0.6)
    axes.spines[:].set_visible(False)


def figure_svg(salt: str, inches: tuple[float, float], draw: Callable[[Figure], None]) -> str:
    """What `draw` draws as an SVG element; INK_STAND_IN in it becomes the colour of the page's text.

    Args:
        salt: of the ids in it, which must not be those of another figure of the page.
    """
    style = {
        "svg.fonttype": "none",
        "svg.hashsalt": salt,
        "font.size": 8.0,
        "font.family": "sans-serif",
    }
    with rc_context(style):
        figure = Figure(figsize=inches, layout="constrained")
        FigureCanvasSVG(figure)
        draw(figure)
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    return text[text.index("<svg") :].replace(INK_STAND_IN, "currentColor")
