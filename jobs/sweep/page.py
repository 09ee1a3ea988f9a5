"""The page of a sweep: index.html in its folder, self-contained, written again while the sweep runs."""

from __future__ import annotations

import time

import yaml

from jobs.display.figures import Curve
from jobs.display.html import render
from jobs.sweep.importance import importance
from jobs.sweep.noise import NOISE, Judged, judge
from jobs.sweep.show import PAGE_KEY, judged_by, samples_text, spent_text, table, values_text
from jobs.sweep.state import SweepState, metric_text, read_state
from plinth.observe.failures import utc
from plinth.observe.metrics import duration
from plinth.redaction import redact
from plinth.storage import Storage
from plinth.sweep.records import FINISHED, RUNNING, Status, Trial

REFRESH_S = 30
"""Seconds after which a browser loads the page of a running sweep again."""
MISSED_WRITES = 3
"""A page of a running sweep that was not written again for this many times is of one that has died."""
SHOWN_BEST = 8


def write_page(storage: Storage, now: float | None = None, state: SweepState | None = None) -> str:
    """Write the page of the sweep in `storage`; returns its URI.

    Args:
        now: `time.time()`; asked for when None.
        state: of that sweep; read when None.

    Raises:
        StorageError: it holds no sweep, or cannot be written.
    """
    now = time.time() if now is None else now
    state = read_state(storage) if state is None else state
    record, best = state.record, state.ranked[:SHOWN_BEST]
    judged = judge(state, storage, best)
    text = render(
        "sweep/page.html",
        title=f"{record.name}: {record.status}",
        refresh_s=0 if state.is_over else REFRESH_S,
        written_s=now,
        dead_after_s=0 if state.is_over else MISSED_WRITES * max(record.beat_every_s, REFRESH_S) + REFRESH_S,
        record=record,
        uri=state.uri,
        tone="good" if record.status in (RUNNING, FINISHED) else "fair",
        summary=redact(f"Judged by {judged_by(state)}, seed {record.seed}. Spent: {spent_text(state)}."),
        facts=_facts(state, now),
        header=_header(state),
        best=[_row(state, trial, found) for trial, found in zip(best, judged, strict=True)],
        noise=[trial.record.name for trial, each in zip(best, judged, strict=True) if each.verdict == NOISE],
        curve=Curve(record.metric, "samples", {f"trial {t.record.name}": state.curve(t) for t in best}),
        importance=importance(state),
        names={varied.key: varied.name for varied in state.varied},
        failures={
            trial.record.name: redact(trial.record.message or "no message")
            for trial in state.trials
            if trial.record.status is Status.failed
        },
        trials="\n".join(table(state)),
        job=redact(yaml.safe_dump(state.job, sort_keys=False, allow_unicode=True)),
    )
    storage.write(PAGE_KEY, text.encode())
    return f"{storage.uri}/{PAGE_KEY}"


def _header(state: SweepState) -> list[str]:
    """The columns of the best trials."""
    cost = [state.cost.unit, *(["cost"] if state.cost.price else [])]
    names = [varied.name for varied in state.varied]
    return ["trial", "last, with 95 %", "beside the best", "best", *names, "samples", "status", *cost]


def _row(state: SweepState, trial: Trial, judged: Judged) -> list[str]:
    cost = state.costs[trial.record.name]
    return [
        trial.record.name, judged.last, judged.verdict, judged.best, *values_text(state, trial),
        samples_text(state, trial), trial.record.status.value, cost.hours,
        *([cost.price] if state.cost.price else []),
    ]  # fmt: skip


def _facts(state: SweepState, now: float) -> dict[str, str]:
    record = state.record
    ranked = state.ranked
    best = metric_text(state.best(ranked[0])) if ranked else "none yet"
    last = metric_text(ranked[0].last(record.metric)) if ranked else "none yet"
    return {
        f"Best {record.metric}": best,
        "Its last": last,
        "Wall time": duration(record.spent_s),
        "Cost": str(state.cost),
        "Trials": f"{len(state.trials)} of {record.trials}",
        **{status.value.capitalize(): str(count) for status, count in state.counts.items()},
        "As of": utc(now),
    }
