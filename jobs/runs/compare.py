"""The page of all runs in a folder: runs.html there, self-contained, their curves laid over each other."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

import yaml

from jobs.common.run_layout import ALL_STAGES, CONFIG_KEY
from jobs.display.figures import SERIES_COLOURS, Curve
from jobs.display.html import render
from jobs.runs.curves import LOSS, MEANINGS, TOTAL, read_steps, stage_curves
from jobs.runs.page import PAGE_KEY, TONES
from jobs.runs.started import read_starts
from jobs.runs.state import read_run, runs_in
from jobs.runs.text import DAMAGED, STATE_HEADER, state_cells
from plinth.observe.failures import utc
from plinth.observe.sinks import flat, redacted
from plinth.storage import Storage
from plinth.storage.json_objects import DamagedObjectError

RUNS_PAGE_KEY = "runs.html"
TICKED = 5
"""Runs whose curves are shown at first: those that were started last."""
POINTS = 200
"""Of a curve: there may be many runs."""
SHOWN_KEYS = 60
OWN_KEYS = ("name", "output")
"""What differs in every two jobs."""
Series = dict[str, tuple[list[float], list[float]]]
"""Run -> x, y."""
HEADER = (*STATE_HEADER, "started", "code")


@dataclass
class Shown:
    """A run as the page shows it."""

    name: str
    cells: list[str]
    """In the order of `HEADER`, without the name."""
    started: float = 0.0
    tone: str = ""
    link: str = ""
    """Of its own page; empty where it has none."""
    colour: str = ""
    ticked: bool = False
    curves: dict[str, list[Curve]] = field(default_factory=dict)
    """By stage, in their order."""
    job: dict[str, Any] = field(default_factory=dict)
    """Leaves of its job by dotted keys, without secrets."""


def write_runs_page(folder: Storage, now: float) -> str:
    """Write the page of the runs in a folder; returns where it is.

    Args:
        now: `time.time()`.

    Raises:
        StorageError: it holds no run, or cannot be read or written.
    """
    runs = [_read(folder.child(name), name, now) for name in runs_in(folder)]
    by_start = sorted(runs, key=lambda run: (not run.curves, run.started))  # those with curves first
    for run in [run for run in by_start if run.curves][-TICKED:]:
        run.ticked = True
    for i, run in enumerate(by_start):  # neighbours in it have colours of their own
        run.colour = SERIES_COLOURS[i % len(SERIES_COLOURS)]
    text = render(
        "runs/compare.html",
        title=f"{len(runs)} run{'s' if len(runs) > 1 else ''}",
        folder=folder.uri,
        written=utc(now),
        header=HEADER,
        runs=runs,
        stages=overlaid(runs),
        differences=differences(runs),
    )
    folder.write(RUNS_PAGE_KEY, text.encode())
    return f"{folder.uri}/{RUNS_PAGE_KEY}"


def _read(storage: Storage, name: str, now: float) -> Shown:
    try:
        state = read_run(storage, now)
    except DamagedObjectError as error:
        return Shown(name, [DAMAGED, str(error), *["-"] * (len(HEADER) - 3)], tone="bad")
    starts = read_starts(storage)
    started = starts[-1].time if starts else 0.0
    cells = [*state_cells(state), utc(started) if starts else "-", starts[-1].code if starts else "-"]
    curves = {
        stage.name: curves
        for stage in state.stages
        if (curves := stage_curves(stage.name, read_steps(storage.child(stage.name)), points=POINTS))
    }
    link = f"{quote(name)}/{PAGE_KEY}" if storage.exists(PAGE_KEY) else ""
    return Shown(
        name, cells, started, TONES.get(state.status, "good"), link, curves=curves, job=_job(storage)
    )


def _job(storage: Storage) -> dict[str, Any]:
    with contextlib.suppress(yaml.YAMLError):
        found = yaml.safe_load(storage.read(CONFIG_KEY))
        return flat(redacted(found)) if isinstance(found, dict) else {}
    return {}


def overlaid(runs: Sequence[Shown]) -> dict[str, list[Curve]]:
    """Stage -> a plot per quantity, with a series per run; stages in their order, quantities as on a run's
    page, the loss and each of its terms in plots of their own."""
    stages: dict[str, dict[str, Series]] = {}
    for stage in ALL_STAGES:
        having = [run for run in runs if stage in run.curves]
        drawn = stages.setdefault(stage, {}) if having else {}
        for run in having:
            for curve in run.curves[stage]:
                title = curve.title.removeprefix(f"{stage}: ")
                for name, points in curve.series.items():
                    quantity = name if title == LOSS and name != TOTAL else title
                    drawn.setdefault(quantity, {})[run.name] = points
    colours = {run.name: run.colour for run in runs}
    hidden = frozenset(run.name for run in runs if not run.ticked)
    return {
        stage: [
            Curve(f"{stage}: {title}", "step", series, (), colours, hidden, MEANINGS.get(title, ""))
            for title, series in of.items()
        ]
        for stage, of in stages.items()
    }


def differences(runs: Sequence[Shown]) -> list[list[str]]:
    """The keys in which the jobs differ, each with its value in every run."""
    keys = dict.fromkeys(key for run in runs for key in run.job if key not in OWN_KEYS)
    values = {key: [_text(run.job[key]) if key in run.job else "-" for run in runs] for key in keys}
    return [[key, *found] for key, found in values.items() if len(set(found)) > 1][:SHOWN_KEYS]


def _text(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return str(value)
