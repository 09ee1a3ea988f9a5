"""The metrics of a stage as curves. A long run's lines take hundreds of megabytes, its curves a few hundred
points: the parts of the metrics are read one after another, and of each what the curves need is kept."""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from jobs.display.figures import Curve, Mark
from plinth.observe.once import Once
from plinth.observe.step_lines import LINES_KEY, PARTS_FOLDER, in_order, read_part
from plinth.storage import Storage

LOSS, TOTAL = "loss", "total"
"""Title of the plot that has the loss and its terms, and the name of the loss in it."""
TERMS, LOGS, GRAD_NORM, RATE = "terms", "logs", "gradient norm", "samples per second"
MEANINGS = {
    "target_feature_std": "Standard deviation of the target encoder's features; near 0 they have collapsed.",
    "target_effective_rank": "In how many directions the target encoder's features vary; 1 when collapsed.",
    "unique_match_rate": "Share of predictions with a nearest target of their own; near 0 many share one, "
    "which is how the Chamfer distance is cheated.",
    "own_match_rate": "Share of predictions whose nearest target is the one at their own place.",
    "positional_ratio": "Squared error at the own place over the variance of the targets; 1 is as good as "
    "their mean.",
    "accuracy": "Share of the batch's questions that are answered rightly.",
    GRAD_NORM: "Of all parameters together, before clipping.",
    RATE: "Of all workers together, checkpoints included.",
}
"""What a plot means, where its name does not say it."""
CURVE_POINTS = 400
"""Longer curves are averaged over neighbours: the plot is about as many pixels wide."""
PART_POINTS = 256
"""The same of each full part of the metrics (some 7,000 steps), of which a long run has many."""
RECENT_STEPS = 20
"""The last steps, of which a page shows means."""
RECENT_KEYS = ("step", "loss", "world_size", "samples", "step_s", "checkpoint_s", "data_wait_s")
"""What it shows of them."""

Line = dict[str, Any]
Quantity = tuple[str, str]
"""A plot's kind and the name of the series in it."""
Points = np.ndarray
"""[3, N] step, value, and how many steps each stands for, by step."""


@dataclass(frozen=True)
class Part:
    """What the curves need of some lines in a row."""

    first: int
    """Step of the first line."""
    points: dict[Quantity, Points]
    recent: list[Line]
    """The last lines, of them `RECENT_KEYS`."""


@dataclass(frozen=True)
class Steps:
    """What the curves need of a stage."""

    points: dict[Quantity, Points]
    recent: list[Line]
    """The last lines; empty where there is none."""

    @property
    def count(self) -> int:
        """Steps done."""
        return int(self.recent[-1]["step"]) + 1 if self.recent else 0


def read_steps(storage: Storage, once: Once | None = None) -> Steps:
    """The metrics of a stage. One part at a time is in memory, and a full part is read once.

    Args:
        storage: the stage's folder.
        once: what was read before, of a process that asks again and again.
    """

    def read(key: str) -> Part:
        return part_of(in_order(read_part(storage, key)), PART_POINTS if key != LINES_KEY else None)

    full = (once or Once()).read("curves", storage, dict(storage.list(PARTS_FOLDER)), read, readers=1)
    last = [read(LINES_KEY)] if storage.exists(LINES_KEY) else []
    return joined([*full.values(), *last])


def part_of(lines: Sequence[Line], points: int | None = None) -> Part:
    """What the curves need of lines that are in order.

    Args:
        points: means of neighbours where there are more; None keeps each.
    """
    known: dict[Quantity, tuple[array[float], array[float]]] = {}
    for line in lines:
        for quantity, value in _quantities(line):
            steps, values = known.setdefault(quantity, (array("d"), array("d")))
            if value is not None:
                steps.append(line["step"])
                values.append(value)
    found = {
        quantity: _thinned(np.stack([np.array(steps), np.array(values), np.ones(len(steps))]), points)
        for quantity, (steps, values) in known.items()
    }
    recent = [{key: line[key] for key in RECENT_KEYS} for line in lines[-RECENT_STEPS:]]
    return Part(lines[0]["step"] if lines else 0, found, recent)


def joined(parts: Sequence[Part]) -> Steps:
    """The parts of a stage in their order; of two that have the same steps the later one counts, as after a
    kill."""
    kept: list[Part] = []
    for part in reversed([part for part in parts if part.recent]):
        kept.insert(0, _before(part, kept[0].first) if kept else part)
    names = list(dict.fromkeys(quantity for part in kept for quantity in part.points))
    empty = np.empty((3, 0))
    points = {name: np.concatenate([part.points.get(name, empty) for part in kept], axis=1) for name in names}
    return Steps(points, [line for part in kept for line in part.recent][-RECENT_STEPS:])


def _before(part: Part, step: int) -> Part:
    """The part without its steps from `step` on."""
    points = {name: of[:, of[0] < step] for name, of in part.points.items()}
    recent = [line for line in part.recent if line["step"] < step]
    return Part(min(part.first, step), points, recent)


def _quantities(line: Line) -> Iterator[tuple[Quantity, float | None]]:
    yield (LOSS, TOTAL), line["loss"]
    for kind in (TERMS, LOGS):
        yield from (((kind, name), value) for name, value in line[kind].items())
    yield (GRAD_NORM, "before clipping"), line["grad_norm"]
    yield (RATE, "all workers"), line["samples"] / max(line["step_s"] + line["checkpoint_s"], 1e-9)


def _thinned(points: Points, most: int | None) -> Points:
    """At most `most` points: means of neighbours, as each counts."""
    if most is None or points.shape[1] <= most:
        return points
    means = []
    for steps, values, counts in np.array_split(points, most, axis=1):
        total = counts.sum()
        means.append(((steps * counts).sum() / total, (values * counts).sum() / total, total))
    return np.array(means).T


def stage_curves(
    stage: str, steps: Steps, restarts: tuple[Mark, ...] = (), points: int = CURVE_POINTS
) -> list[Curve]:
    """What the metrics of a stage show over its steps.

    Args:
        restarts: steps to mark.
        points: of a longer curve.
    """
    if not steps.recent:
        return []
    of_kind: dict[str, dict[str, Points]] = {LOSS: {}, TERMS: {}, LOGS: {}, GRAD_NORM: {}, RATE: {}}
    for (kind, name), found in steps.points.items():
        of_kind[kind][name] = found
    terms = of_kind[TERMS]
    drawn: dict[str, Mapping[str, Points]] = {
        LOSS: {**of_kind[LOSS], **(terms if len(terms) > 1 else {})},
        **{name: {name: found} for name, found in of_kind[LOGS].items()},  # each has a scale of its own
        GRAD_NORM: of_kind[GRAD_NORM],
        RATE: of_kind[RATE],
    }
    return [
        Curve(
            f"{stage}: {title}",
            "step",
            {name: _x_y(_thinned(found, points)) for name, found in series.items()},
            restarts,
            note=MEANINGS.get(title, ""),
        )
        for title, series in drawn.items()
        if series
    ]


def _x_y(points: Points) -> tuple[list[float], list[float]]:
    return points[0].tolist(), points[1].tolist()
