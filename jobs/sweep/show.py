"""`poma sweep show`: the state of a sweep as a table of its trials, from its folder alone."""

from __future__ import annotations

import sys
import time

from jobs.display.text import aligned
from jobs.sweep.state import Over, SweepState, metric_text, read_state, value_text
from plinth.observe.metrics import duration
from plinth.redaction import redact
from plinth.storage import Storage, StorageOptions
from plinth.sweep.records import Status, Trial

REFRESH_S = 5.0
PAGE_KEY = "index.html"
CLEAR = "\x1b[H\x1b[2J"
"""Terminal: cursor to the top left, clear the screen."""
NOT_VARIED = "-"
"""Cell of a key whose condition does not hold in that trial."""


def show(uri: str, options: StorageOptions, follow: bool = False) -> int:
    """Print the state of a sweep; returns the exit code.

    Args:
        follow: repeat until the sweep is over; Ctrl-C leaves and does not touch the sweep.

    Raises:
        StorageError: the folder holds no sweep, or cannot be read.
    """
    storage = Storage.from_uri(uri, options)
    storage.check()
    shown: list[str] = []
    over = Over()
    try:
        while True:
            state = read_state(storage, over)
            text = describe(state)
            if text != shown:
                _print(text, again=bool(shown))
            shown = text
            if not follow or state.is_over:
                break
            time.sleep(REFRESH_S)
    except KeyboardInterrupt:
        return 0
    if storage.exists(PAGE_KEY):
        print(f"\npage: {storage.uri}/{PAGE_KEY}")
    return 0


def describe(state: SweepState) -> list[str]:
    """The lines that `show` prints: the state of the sweep, and a table of its trials."""
    head = [
        f"{state.uri}: {state.record.status}",
        f"  judged by  {judged_by(state)}",
        f"  trials     {trials_text(state)}",
        f"  spent      {spent_text(state)}",
        f"  best       {best_text(state)}",
    ]
    return [*head, "", *table(state), *_notes(state)]


def judged_by(state: SweepState) -> str:
    """The metric, the searcher and the scheduler."""
    record = state.record
    which = "lowest" if record.mode == "min" else "highest"
    return f"{which} {record.metric}; searcher {record.searcher}, scheduler {record.scheduler}"


def trials_text(state: SweepState) -> str:
    """The number of trials of each status."""
    counts = [f"{count} {status.value}" for status, count in state.counts.items()]
    return f"{len(state.trials)} of {state.record.trials}" + (f": {', '.join(counts)}" if counts else "")


def spent_text(state: SweepState) -> str:
    """Time, cost and steps, with the limits that the job sets."""
    record, limits = state.record, state.budget
    wall, steps = duration(record.spent_s), f"{state.steps} steps"
    if "hours" in limits:
        wall += f" of {limits['hours']:g} h"
    if "steps" in limits:
        steps += f" of {limits['steps']}"
    cost = str(state.cost) + (f" of {limits['cost']:g}" if "cost" in limits else "")
    starts = f"{record.starts} start{'' if record.starts == 1 else 's'}"
    return f"{wall} wall time in {starts}; {cost}; {steps}"


def best_text(state: SweepState) -> str:
    """The best trial, its metric and its values."""
    if not state.ranked:
        return "none yet: no trial has reported a number"
    best = state.ranked[0]
    values = ", ".join(
        f"{v.name} {_value(best, v.key)}" for v in state.varied if v.key in best.history.values
    )
    text = f"trial {best.record.name}, {state.record.metric} {metric_text(state.best(best))}"
    if best.record.values:
        return f"{text}; {values}"
    return f"{text}; the job as it stands" + (f": {values}" if values else "")


def table(state: SweepState) -> list[str]:
    """A line for each trial, the best one marked."""
    best = state.ranked[0].record.index if state.ranked else None
    marks = ["*" if trial.record.index == best else "" for trial in state.trials]
    rows = [[mark, *cells(state, trial)] for mark, trial in zip(marks, state.trials, strict=True)]
    return aligned([["", *header(state)], *rows])


def header(state: SweepState) -> list[str]:
    """The columns of `cells`."""
    names = [varied.name for varied in state.varied]
    cost = [state.cost.unit, *(["cost"] if state.cost.price else [])]
    return ["trial", *names, "samples", "last", "best", "status", *cost]


def cells(state: SweepState, trial: Trial) -> list[str]:
    """One trial as texts: its values, samples, metric, status, and hours with their price if there is one."""
    cost = state.costs[trial.record.name]
    return [
        trial.record.name,
        *values_text(state, trial),
        samples_text(state, trial),
        metric_text(trial.last(state.record.metric)),
        metric_text(state.best(trial)),
        trial.record.status.value,
        *[cost.hours, *([cost.price] if state.cost.price else [])],
    ]


def values_text(state: SweepState, trial: Trial) -> list[str]:
    """The trial's values of the keys that vary, in their order."""
    return [_value(trial, varied.key) for varied in state.varied]


def samples_text(state: SweepState, trial: Trial) -> str:
    """The samples of the trial up to its last report, and its full length."""
    reports = trial.history.reports
    return f"{reports[-1].samples if reports else 0} of {state.record.samples}"


def _value(trial: Trial, key: str) -> str:
    return value_text(trial.history.values[key]) if key in trial.history.values else NOT_VARIED


def _notes(state: SweepState) -> list[str]:
    """Failures and clones, which no column shows."""
    notes = []
    for trial in state.trials:
        if trial.record.status is Status.failed:
            why = (trial.record.message.strip() or "no message").splitlines()[0]
            notes.append(f"trial {trial.record.name} failed: {redact(why)}")
        if trial.history.donors:
            notes.append(f"trial {trial.record.name} cloned {', then '.join(trial.history.donors)}")
    return ["", *notes] if notes else []


def _print(text: list[str], again: bool) -> None:
    before = ""
    if again:
        before = CLEAR if sys.stdout.isatty() else "\n"
    print(before + "\n".join(text), flush=True)
