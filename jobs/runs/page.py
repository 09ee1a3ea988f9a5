"""The page of a run: index.html in its folder, self-contained, written again while the run goes on."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from html import escape
from typing import Any

import numpy as np

from jobs.common.run_layout import CONFIG_KEY
from jobs.display.html import Curve, bullets, curves, folded, head, page, section
from jobs.display.ledger import ledger_section
from jobs.runs.state import RunState, read_run
from jobs.runs.text import checkpoints_text, incident_text
from plinth.observe.failures import first_cause, utc
from plinth.observe.ledger import FAILED, PRODUCTIVE, RUNNING, STOPPED
from plinth.observe.metrics import duration, read_lines
from plinth.redaction import redact
from plinth.storage import Storage

PAGE_KEY = "index.html"
REFRESH_S = 30
"""How often a browser loads the page of a running run again."""
CURVE_POINTS = 400
"""Where there are more, neighbours are averaged: a curve has no more pixels."""
RATE_STEPS = 20
SHOWN_INCIDENTS = 50
TONES = {FAILED: "bad", STOPPED: "fair"}

log = logging.getLogger(__name__)

Line = dict[str, Any]


@contextmanager
def page_kept(storage: Storage, every_s: float) -> Iterator[None]:
    """Keep the page of the run in `storage` up to date, and write it once more at the end. Whatever goes
    wrong with it is said once and stops nothing. Enter it before the run's lock: the last page shall find
    the lock gone."""

    def write() -> None:
        try:
            write_page(storage)
        except Exception as error:
            if not said.is_set():
                log.warning("the page of the run cannot be written: %s", error)
            said.set()

    def keep() -> None:
        while not ended.wait(every_s):
            write()

    ended, said = threading.Event(), threading.Event()
    thread = threading.Thread(target=keep, name="run-page", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        write()


def write_page(storage: Storage, now: float | None = None) -> str:
    """Write the page of the run in `storage`; returns where it is.

    Args:
        now: `time.time()`; asked for when None.

    Raises:
        StorageError: it holds no run, or cannot be written.
    """
    now = time.time() if now is None else now
    state = read_run(storage, now)
    lines = {stage.name: read_lines(storage.child(stage.name)) for stage in state.stages}
    name = storage.uri.rstrip("/").rsplit("/", 1)[-1]
    failures = _failures(state)
    *earlier, latest = [_curves(stage, found) for stage, found in lines.items()] or [""]
    parts = [
        _head(name, state, lines, now),
        failures if state.status == FAILED else "",
        latest,
        ledger_section(state.ledger),
        "" if state.status == FAILED else failures,
        _incidents(state),
        section("Checkpoints", bullets([f"{s.name}: {checkpoints_text(s)}" for s in state.stages])),
        *reversed(earlier),
        folded("The resolved job", redact(storage.read(CONFIG_KEY).decode())),
    ]
    refresh_s = REFRESH_S if state.status == RUNNING else 0
    storage.write(PAGE_KEY, page(f"{name}: {state.status}", parts, refresh_s).encode())
    return f"{storage.uri}/{PAGE_KEY}"


def stage_curves(stage: str, lines: Sequence[Line]) -> list[Curve]:
    """What the metrics of a stage show over its steps."""
    terms = {name: [line["terms"].get(name) for line in lines] for name in _names(lines, "terms")}
    logs = {name: [line["logs"].get(name) for line in lines] for name in _names(lines, "logs")}
    rates = [line["samples"] / max(line["step_s"] + line["checkpoint_s"], 1e-9) for line in lines]
    drawn = {
        "loss": {"total": [line["loss"] for line in lines], **(terms if len(terms) > 1 else {})},
        **{name: {name: values} for name, values in logs.items()},  # each has a scale of its own
        "gradient norm": {"before clipping": [line["grad_norm"] for line in lines]},
        "samples a second": {"all workers": rates},
    }
    steps = [line["step"] for line in lines]
    return [
        Curve(f"{stage}: {title}", "step", {name: _thinned(steps, y) for name, y in series.items()})
        for title, series in drawn.items()
        if series
    ]


def _names(lines: Sequence[Line], part: str) -> list[str]:
    return list(dict.fromkeys(name for line in lines for name in line[part]))


def _thinned(steps: Sequence[int], values: Sequence[float | None]) -> tuple[list[float], list[float]]:
    """The points that have a value, as means of neighbours where there are too many."""
    known = [(step, value) for step, value in zip(steps, values, strict=True) if value is not None]
    groups = np.array_split(np.array(known, float).reshape(-1, 2), min(len(known), CURVE_POINTS) or 1)
    x, y = np.array([group.mean(axis=0) for group in groups if len(group)]).reshape(-1, 2).T
    return x.tolist(), y.tolist()


def _curves(stage: str, lines: Sequence[Line]) -> str:
    return section(f"Stage {stage}", curves(stage_curves(stage, lines))) if lines else ""


def _head(name: str, state: RunState, lines: dict[str, list[Line]], now: float) -> str:
    facts = {"Where": state.where or "before the first step"}
    recent = next((found[-RATE_STEPS:] for found in reversed(lines.values()) if found), [])
    if recent:
        last = recent[-1]
        spent_s = sum(line["step_s"] + line["checkpoint_s"] for line in recent)
        facts |= {
            "Loss": "not finite" if last["loss"] is None else f"{last['loss']:.4f}",
            "Workers": str(last["world_size"]),
            "Samples a second": f"{sum(line['samples'] for line in recent) / max(spent_s, 1e-9):.1f}",
            "Waiting for data": f"{sum(ln['data_wait_s'] for ln in recent) / max(spent_s, 1e-9):.0%}",
        }
    if state.ledger.wall_s:
        facts |= {
            "Wall time": duration(state.ledger.wall_s),
            "Productive": f"{state.ledger.share(PRODUCTIVE):.0%}",
            "Restarts": str(state.ledger.restarts),
        }
    facts["As of"] = utc(now)
    detail = ". ".join(said for said in (state.detail, state.slow) if said)
    return head(name, state.status, TONES.get(state.status, "good"), redact(detail), facts)


def _failures(state: RunState) -> str:
    """The last one first, each with the traceback of its cause."""
    shown = []
    for found in reversed(state.failures):
        shown.append(f"<pre>{escape(first_cause(found))}</pre>")
        if found[0].traceback:
            shown.append(folded("Traceback", redact(found[0].traceback)))
    return section("Failures, each with its first cause", "".join(shown)) if shown else ""


def _incidents(state: RunState) -> str:
    said = [incident_text(stage.name, incident) for stage in state.stages for incident in stage.incidents]
    return section("Incidents", bullets(said[-SHOWN_INCIDENTS:])) if said else ""
