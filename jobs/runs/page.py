"""The page of a run: index.html in its folder, self-contained, rewritten while the run lasts."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import yaml

from jobs.common.run_layout import CONFIG_KEY, PINS_KEY, STAGES
from jobs.display.figures import Mark
from jobs.display.html import render
from jobs.runs.curves import Line, read_steps, stage_curves
from jobs.runs.evaluations import curves_beside, read_evaluations
from jobs.runs.started import read_starts
from jobs.runs.state import SILENT, RunState, read_run
from jobs.runs.text import checkpoints_text, incident_text
from plinth.every import Every
from plinth.observe.config import MetricsConfig
from plinth.observe.failures import first_cause, utc
from plinth.observe.ledger import FAILED, PRODUCTIVE, RUNNING, STOPPED, Record
from plinth.observe.metrics import duration
from plinth.observe.once import Once
from plinth.redaction import redact
from plinth.storage import Storage
from plinth.storage.json_objects import DamagedObjectError, read_json

PAGE_KEY = "index.html"
EVERY_S = MetricsConfig().page_every_s
REFRESH_S = 30
"""How often a browser loads the page of a running run again."""
SHOWN_INCIDENTS = 50
TONES = {FAILED: "bad", STOPPED: "fair", SILENT: "fair"}
MOST_SHARE = 0.05
"""Of a core's time that the page of a running run may take."""
MISSED_WRITES = 3
"""A page of a running run that was not written again for this many times is of one that has died."""


class Pace:
    """How often a page is written whose making costs more the longer the run is: its share of a core stays
    below `MOST_SHARE`.

    Args:
        every_s: at least so many seconds apart.
        clock: seconds that only grow.
    """

    def __init__(self, every_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._least_s, self._clock = every_s, clock
        self._next = clock()
        self.every_s = every_s
        """Seconds to the next time, as the last one took."""
        self.is_ending = False
        """Whether it is written for the last time, due or not."""

    def is_due(self) -> bool:
        return self.is_ending or self._clock() >= self._next

    @contextmanager
    def measured(self) -> Iterator[None]:
        """Around the writing."""
        began = self._clock()
        try:
            yield
        finally:
            took_s = self._clock() - began
            self.every_s = max(self._least_s, took_s / MOST_SHARE)
            self._next = began + self.every_s - self._least_s / 2  # the looks are `every_s` apart, about


@contextmanager
def page_kept(storage: Storage, every_s: float) -> Iterator[None]:
    """Keep the page of the run in `storage` up to date, and write it again at the end. Enter it before
    the run's lock, so that the last page is written after the lock is released."""
    pace, once = Pace(every_s), Once()

    def write() -> None:
        if pace.is_due():
            with pace.measured():
                write_page(storage, every_s=pace.every_s, once=once)

    with Every(every_s, write, "the run's page cannot be written", at_end=True):
        try:
            yield
        finally:
            pace.is_ending = True


def write_page(
    storage: Storage, now: float | None = None, every_s: float = EVERY_S, once: Once | None = None
) -> str:
    """Write the page of the run in `storage`; returns where it is.

    Args:
        now: `time.time()`; asked for when None.
        every_s: seconds to the next time while the run lasts.
        once: what was read before, of a process that writes the page again and again.

    Raises:
        StorageError: it holds no run, or cannot be written.
    """
    now = time.time() if now is None else now
    once = once or Once()
    state = read_run(storage, now, once)
    steps = {stage.name: read_steps(storage.child(stage.name), once) for stage in state.stages}
    starts, restarts = read_starts(storage), _restarts(state.records)
    name = storage.uri.rstrip("/").rsplit("/", 1)[-1]
    found = [incident_text(stage.name, incident) for stage in state.stages for incident in stage.incidents]
    text = render(
        "runs/page.html",
        title=f"{name}: {state.status}",
        refresh_s=REFRESH_S if state.status in (RUNNING, SILENT) else 0,
        written_s=now,
        dead_after_s=MISSED_WRITES * every_s + REFRESH_S if state.status in (RUNNING, SILENT) else 0,
        name=name,
        status=state.status,
        tone=TONES.get(state.status, "good"),
        detail=redact(". ".join(text for text in (state.detail, state.slow) if text)),
        facts=_facts(state, [of.recent for of in steps.values()], now),
        started=starts[-1].facts() if starts else {},
        starts=[f"{utc(one.time)}: {one.command} ({one.code})" for one in reversed(starts)],
        data=_data(storage),
        evaluations=read_evaluations(storage),
        stages=[
            {
                "name": stage,
                "curves": [
                    *stage_curves(stage, of, restarts.get(stage, ())),
                    *curves_beside(storage, stage),
                ],
                "restarts": len(restarts.get(stage, ())),
                "steps": of.count,
            }
            for stage, of in steps.items()
        ],
        ledger=state.ledger,
        failures=[
            {"cause": first_cause(of_attempt), "traceback": redact(of_attempt[0].traceback)}
            for of_attempt in reversed(state.failures)
        ],
        incidents=found[-SHOWN_INCIDENTS:],
        checkpoints=[f"{stage.name}: {checkpoints_text(stage)}" for stage in state.stages],
        job=redact(storage.read(CONFIG_KEY).decode()),
    )
    storage.write(PAGE_KEY, text.encode())
    return f"{storage.uri}/{PAGE_KEY}"


def _restarts(records: Sequence[Record]) -> dict[str, tuple[Mark, ...]]:
    """Stage -> the steps from which it went on after its workers were started again."""
    found: dict[str, list[Mark]] = {}
    seen: set[str] = set()
    for record in sorted(records, key=lambda one: one.started):
        if record.stage in seen and record.marks:
            found.setdefault(record.stage, []).append(Mark(float(record.marks[0].step), "restart"))
        seen.add(record.stage)
    return {stage: tuple(steps) for stage, steps in found.items()}


def _data(storage: Storage) -> list[str]:
    """The teacher, and the data sets that it reads, with their versions."""
    found = []
    try:
        pins = read_json(storage, PINS_KEY, "") if storage.exists(PINS_KEY) else {}
    except DamagedObjectError as error:
        pins, found = {}, [f"versions: {error.problem}"]
    with contextlib.suppress(yaml.YAMLError, AttributeError, TypeError, KeyError):
        job = yaml.safe_load(storage.read(CONFIG_KEY))
        for stage in (name for name in STAGES if job.get(name)):
            for source in (job[stage].get("data") or {}).get("sources") or []:
                version = pins.get(stage, {}).get(source["uri"])
                found.append(
                    f"{stage}: {source['uri']}" + (f", version {version}" if version is not None else "")
                )
        if teacher := (job.get("teacher") or {}).get("source"):
            found.append(f"teacher: {teacher}")
    return [redact(line) for line in found]


def _facts(state: RunState, recents: Sequence[Sequence[Line]], now: float) -> dict[str, str]:
    """What is in a few words at the top, from the last lines of each stage among others."""
    facts = {"Where": state.where or "before the first step"}
    recent = next((found for found in reversed(recents) if found), [])
    if recent:
        last = recent[-1]
        spent_s = max(sum(line["step_s"] + line["checkpoint_s"] for line in recent), 1e-9)
        facts |= {
            "Loss": "not finite" if last["loss"] is None else f"{last['loss']:.4f}",
            "Workers": str(last["world_size"]),
            "Samples per second": f"{sum(line['samples'] for line in recent) / spent_s:.1f}",
            "Waiting for data": f"{sum(line['data_wait_s'] for line in recent) / spent_s:.0%}",
        }
    if state.ledger.wall_s:
        facts |= {
            "Wall time": duration(state.ledger.wall_s),
            "Productive": f"{state.ledger.share(PRODUCTIVE):.0%}",
            "Restarts": str(state.ledger.restarts),
        }
    return facts | {"As of": utc(now)}
