"""The pictures of a sweep: parallel coordinates, and the metric of every trial against its samples.

Trials have the colour of their place: blue for the best, through grey, to orange for the worst.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from html import escape
from typing import Any

from matplotlib.colors import LinearSegmentedColormap, to_hex
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, MaxNLocator, MultipleLocator

from jobs.display.figures import INK_STAND_IN, figure_svg, plain_axes
from jobs.sweep.state import SweepState, Varied, is_number, metric_text, value_text
from plinth.sweep.records import Status, Trial

PARALLEL_INCHES = (10.2, 3.9)
METRIC_INCHES = (10.2, 3.6)
# Of middle lightness, to be seen on white and on near-black.
PLACES = LinearSegmentedColormap.from_list("places", ["#2f7bf5", "#94a3b8", "#f97316"])
FAILED = "#e5484d"
BEST_WIDTH, WIDTH = 2.8, 1.3
WIDE_RANGE = 30.0
"""Positive metrics that differ by more than this factor are drawn by their logarithm."""
ABSENT_AT = -0.16
"""Height at which trials pass an axis whose key was not varied in them; 0..1 is the axis."""
SPREAD = 0.35
"""Part of a category's slot over which its trials are fanned out."""
NAMED, NAMES_APART = 3, 0.055
"""How many of the best trials are named at the last axis, and how far apart the names are."""
TICKS = 5
UNITS = (("hours", 3600.0), ("minutes", 60.0), ("seconds", 1.0))
UNITS_SHOWN = 2
"""Times are shown in the longest unit of which there are so many."""
NAME_CHARS, LINE_HEIGHT = 130, 0.065
"""How many characters fit side by side above the axes, and the height of a line of them."""
MARKERS = {
    Status.finished: "o",
    Status.stopped: "x",
    Status.failed: "X",
    Status.running: ">",
    Status.paused: "d",
}
MARKED = {
    Status.finished: "finished",
    Status.stopped: "stopped early",
    Status.failed: "failed",
    Status.running: "running",
    Status.paused: "paused",
}


@dataclass
class Axis:
    """One vertical scale of the parallel coordinates; heights are 0..1."""

    name: str
    ticks: list[tuple[float, str]]
    at: dict[int, float] = field(default_factory=dict)
    """Trial -> height; trials without a value are left out."""


def parallel_svg(state: SweepState) -> str:
    """An axis for each parameter and the metric, and a line for each trial that has reported it."""
    trials = state.ranked
    axes = [parameter_axis(varied, trials) for varied in state.varied] + [metric_axis(state)]
    colours = _colours(state)

    def draw(figure: Figure) -> None:
        plot = figure.add_subplot()
        absent = [any(trial.record.index not in axis.at for trial in trials) for axis in axes]
        names = [in_lines(axis.name, round(NAME_CHARS / len(axes))) for axis in axes]
        for x, axis in enumerate(axes):
            _draw_axis(plot, x, axis, names[x], absent[x])
        for place, trial in reversed(list(enumerate(trials))):  # the best on top
            heights = [axis.at.get(trial.record.index, ABSENT_AT) for axis in axes]
            (line,) = plot.plot(
                range(len(axes)), heights, color=colours[trial.record.index], alpha=0.9,
                linewidth=WIDTH if place else BEST_WIDTH, solid_joinstyle="round", zorder=3,
            )  # fmt: skip
            line.set_gid(_gid("parallel", trial))
        for trial, height in _named(trials, axes[-1]):
            plot.annotate(
                f"trial {trial.record.name}", (len(axes) - 1, height), (9, 0), textcoords="offset points",
                va="center", color=INK_STAND_IN, fontsize=7.5, fontweight="bold",
            )  # fmt: skip
        plot.set_xlim(-0.35, len(axes) - 0.55)
        top = 1.1 + LINE_HEIGHT * max(len(lines) for lines in names)
        plot.set_ylim((ABSENT_AT if any(absent) else 0) - 0.06, top)
        plot.set_axis_off()

    return _with_titles(figure_svg("parallel", PARALLEL_INCHES, draw), "parallel", state)


def metric_svg(state: SweepState, over_time: bool = False) -> str:
    """The metric of each trial against the samples it was trained on, or the time, to where it ended."""
    name = "time" if over_time else "samples"
    trials = state.ranked[::-1]
    curves = {trial.record.index: state.curve(trial, over_time) for trial in trials}
    longest = max(at for x, _ in curves.values() for at in x)
    unit, unit_s = next(found for found in UNITS if longest >= UNITS_SHOWN * found[1] or found is UNITS[-1])

    def draw(figure: Figure) -> None:
        plot = figure.add_subplot()
        _draw_curves(plot, name, state, curves)
        plain_axes(plot)
        if is_wide([value for _, y in curves.values() for value in y]):
            plot.set_yscale("log")
        if over_time:
            plot.xaxis.set_major_formatter(lambda value, _: f"{value / unit_s:g}")
            plot.xaxis.set_major_locator(MultipleLocator(_tick_every(longest / unit_s) * unit_s))
        else:
            plot.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
        plot.set_xlim(0, 1.02 * max(longest, 0 if over_time else state.record.samples))
        plot.set_xlabel(f"{unit} of training" if over_time else "samples trained on", color=INK_STAND_IN)
        plot.set_ylabel(state.record.metric, color=INK_STAND_IN)
        _legend(plot, {trial.record.status for trial in trials})

    return _with_titles(figure_svg(name, METRIC_INCHES, draw), name, state)


def _draw_curves(
    plot: Any, figure: str, state: SweepState, curves: dict[int, tuple[list[float], list[float]]]
) -> None:
    """The best trial last, on top; each ends in the mark of its status."""
    colours = _colours(state)
    for place, trial in reversed(list(enumerate(state.ranked))):
        colour, status = colours[trial.record.index], trial.record.status
        mark = FAILED if status is Status.failed else colour
        (line,) = plot.plot(
            *curves[trial.record.index], color=colour, linewidth=WIDTH if place else BEST_WIDTH,
            solid_capstyle="round", zorder=3, marker=MARKERS.get(status, ""), markevery=[-1],
            markersize=6.5, markeredgewidth=1.8 if status is Status.stopped else 0.8,
            markerfacecolor=mark, markeredgecolor=mark,
        )  # fmt: skip
        line.set_gid(_gid(figure, trial))


def _tick_every(longest: float) -> float:
    """A round number of which some fit into `longest`."""
    rough = longest / TICKS
    decade = 10.0 ** math.floor(math.log10(rough)) if rough > 0 else 1.0
    return next(step * decade for step in (1, 2, 5, 10) if step * decade >= rough)


def parameter_axis(varied: Varied, trials: Sequence[Trial]) -> Axis:
    """Where the trials, the best first, are on the scale of a parameter."""
    values = {t.record.index: t.history.values[varied.key] for t in trials if varied.key in t.history.values}
    if varied.is_list:
        return _categories(varied.name, values)
    is_whole = all(isinstance(value, int) for value in values.values())
    return _numbers(varied.name, values, varied.is_log, is_whole)


def metric_axis(state: SweepState) -> Axis:
    """Where they are on the scale of the metric: the best on top."""
    values = {t.record.index: best for t in state.ranked if (best := state.best(t)) is not None}
    axis = _numbers(state.record.metric, values, is_wide(list(values.values())))
    if state.record.mode == "min":
        axis.ticks = [(1 - height, text) for height, text in axis.ticks]
        axis.at = {index: 1 - height for index, height in axis.at.items()}
    return axis


def is_wide(values: Sequence[float]) -> bool:
    """Whether they are better drawn by their logarithm."""
    return bool(values) and min(values) > 0 and max(values) / min(values) > WIDE_RANGE


def _numbers(name: str, values: dict[int, Any], is_log: bool, is_whole: bool = False) -> Axis:
    if not values:
        return Axis(name, [])
    low, high = min(values.values()), max(values.values())
    if low == high:
        return Axis(name, [(0.5, value_text(low))], dict.fromkeys(values, 0.5))
    scale: Callable[[float], float] = math.log10 if is_log else float

    def height(value: float) -> float:
        return (scale(value) - scale(low)) / (scale(high) - scale(low))

    inside = [float(tick) for tick in _ticks(low, high, is_log, is_whole) if low <= tick <= high]
    ticks = [(height(tick), f"{tick:.10g}") for tick in inside]
    return Axis(name, ticks, {index: height(value) for index, value in values.items()})


def _ticks(low: float, high: float, is_log: bool, is_whole: bool) -> Sequence[float]:
    if is_log:
        decades = math.log10(high / low)
        subs = (1.0,) if decades > TICKS else (1.0, 3.0) if decades > 1.5 else (1.0, 2.0, 5.0)
        found = [float(tick) for tick in LogLocator(subs=subs).tick_values(low, high)]
        if sum(low <= tick <= high for tick in found) >= 2:
            return found
    return [float(tick) for tick in MaxNLocator(TICKS, integer=is_whole).tick_values(low, high)]


def _categories(name: str, values: dict[int, Any]) -> Axis:
    """A slot for each value, numbers by their size and others as they come; trials fan out in it."""
    known = {_key(value): value for value in values.values()}
    ordered = list(known)
    if all(is_number(value) for value in known.values()):
        ordered.sort(key=lambda key: known[key])
    slot = 1 / max(len(ordered), 1)
    axis = Axis(name, [((i + 0.5) * slot, value_text(known[key])) for i, key in enumerate(ordered)])
    for i, key in enumerate(ordered):
        members = [index for index, value in values.items() if _key(value) == key]
        for place, index in enumerate(members):  # the best one highest
            offset = 0.5 - place / (len(members) - 1) if len(members) > 1 else 0.0
            axis.at[index] = (i + 0.5 + SPREAD * offset) * slot
    return axis


def _key(value: Any) -> str:
    return json.dumps(value, sort_keys=True)


def in_lines(name: str, width: int) -> list[str]:
    """A name in lines of so many characters, broken behind dots, underscores and spaces."""
    lines = [""]
    for part in re.findall(r"[^._ ]*[._ ]|[^._ ]+", name):
        if lines[-1] and len(lines[-1]) + len(part.rstrip()) > width:
            lines.append("")
        lines[-1] += part
    return [line.rstrip() for line in lines]


def _draw_axis(plot: Any, x: int, axis: Axis, name: Sequence[str], has_absent: bool) -> None:
    plot.plot([x, x], [0, 1], color=INK_STAND_IN, alpha=0.35, linewidth=0.9, zorder=2)
    plot.annotate(
        "\n".join(name), (x, 1), (0, 9), textcoords="offset points", ha="center", va="bottom",
        color=INK_STAND_IN, fontsize=9, fontweight="bold",
    )  # fmt: skip
    for height, text in [*axis.ticks, *([(ABSENT_AT, "not varied")] if has_absent else [])]:
        plot.annotate(
            text, (x, height), (-5, 0), textcoords="offset points", ha="right", va="center",
            color=INK_STAND_IN, fontsize=7.5, zorder=5,
        )  # fmt: skip


def _named(trials: Sequence[Trial], axis: Axis) -> list[tuple[Trial, float]]:
    """The best trials with the heights of their names, which must not cover each other."""
    found: list[tuple[Trial, float]] = []
    for trial in trials[:NAMED]:  # the best first, from the top
        height = axis.at[trial.record.index]
        if found:
            height = min(height, found[-1][1] - NAMES_APART)
        found.append((trial, height))
    return found


def _legend(plot: Any, statuses: set[Status]) -> None:
    shown = [
        Line2D(
            [], [], color=FAILED if status is Status.failed else INK_STAND_IN, marker=MARKERS[status],
            linewidth=0, label=text, markersize=5.5,
        )
        for status, text in MARKED.items()
        if status in statuses
    ]  # fmt: skip
    if shown:
        plot.legend(handles=shown, frameon=False, labelcolor=INK_STAND_IN, fontsize=7.5, loc="best")


def _colours(state: SweepState) -> dict[int, str]:
    """By the place among those that have a metric."""
    last = max(len(state.ranked) - 1, 1)
    return {trial.record.index: to_hex(PLACES(i / last)) for i, trial in enumerate(state.ranked)}


def _gid(figure: str, trial: Trial) -> str:
    return f"{figure}-trial-{trial.record.name}"


def _with_titles(svg: str, figure: str, state: SweepState) -> str:
    """Name each line's trial where the mouse rests on it."""
    for trial in state.ranked:
        values = ", ".join(
            f"{v.name} {value_text(trial.history.values[v.key])}"
            for v in state.varied
            if v.key in trial.history.values
        )
        said = f"trial {trial.record.name} ({trial.record.status.value}): "
        said += f"{state.record.metric} {metric_text(state.best(trial))}; {values}"
        group = f'<g id="{_gid(figure, trial)}">'
        svg = svg.replace(group, f"{group}<title>{escape(said)}</title>")
    return svg
