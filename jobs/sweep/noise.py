"""How sure a trial's last number is, and whether two trials can be told apart by it."""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass

from jobs.sweep.state import SweepState, metric_text
from plinth.observe.step_lines import read_lines
from plinth.storage import Storage
from plinth.sweep.records import TRIALS, Report, Trial

SIGMAS_95 = statistics.NormalDist().inv_cdf(0.975)
"""Half of the width of a 95 % interval, in standard errors."""
LEADER, NOISE, BETTER, WORSE = "the best", "noise", "better", "worse"
OTHER_LENGTH, UNKNOWN = "other length", "no interval"
"""What a trial is beside the best one."""


@dataclass(frozen=True)
class Judged:
    """A trial's last number beside that of the best trial."""

    last: str
    """With its interval, where there is one; that of a loss is computed only for trials of the best one's
    length."""
    best: str
    """And at how many samples it was, where that is not the last."""
    verdict: str


def judge(state: SweepState, storage: Storage, trials: list[Trial]) -> list[Judged]:
    """The trials, the first of them the best one, each beside it.

    Args:
        storage: the sweep's folder.
    """
    metric = state.record.metric
    lasts = [_last(trial, metric) for trial in trials]
    found = [
        (last, _interval(storage, trial, last, metric, is_measured=last.samples == lasts[0].samples))
        for trial, last in zip(trials, lasts, strict=True)
    ]
    return [
        Judged(
            _with_interval(last, interval, metric),
            _best_text(state, trial),
            _verdict(state, found[0], (last, interval)) if i else LEADER,
        )
        for i, (trial, (last, interval)) in enumerate(zip(trials, found, strict=True))
    ]


Interval = tuple[float, float] | None


def _last(trial: Trial, metric: str) -> Report:
    """Its last report with a number."""
    return [r for r in trial.history.reports if math.isfinite(r.metrics.get(metric, math.nan))][-1]


def _interval(storage: Storage, trial: Trial, last: Report, metric: str, is_measured: bool) -> Interval:
    """The 95 % interval of a trial's last number.

    Args:
        is_measured: whether the steps may be read that a number without an interval is a mean of.
    """
    if metric in last.intervals:
        low, high = last.intervals[metric]
        return low, high
    if not is_measured:
        return None
    before = max(
        (r.step for r in trial.history.reports if r.stage == last.stage and r.step < last.step), default=0
    )
    lines = read_lines(storage.child(TRIALS).child(trial.record.name).child(last.stage))
    steps = [line for line in lines if before <= line["step"] < last.step]
    values = [line.get(metric, line["terms"].get(metric)) for line in steps]
    known = [value for value in values if isinstance(value, int | float) and math.isfinite(value)]
    if len(known) < 2:
        return None
    half = SIGMAS_95 * statistics.stdev(known) / math.sqrt(len(known))
    return last.metrics[metric] - half, last.metrics[metric] + half


def _with_interval(report: Report, interval: Interval, metric: str) -> str:
    value = metric_text(report.metrics[metric])
    return f"{value} [{metric_text(interval[0])}, {metric_text(interval[1])}]" if interval else value


def _best_text(state: SweepState, trial: Trial) -> str:
    best = state.best(trial)
    at = next(r.samples for r in trial.history.reports if r.metrics.get(state.record.metric) == best)
    is_last = at == trial.history.reports[-1].samples
    return metric_text(best) + ("" if is_last else f" at {at} samples")


def _verdict(state: SweepState, best: tuple[Report, Interval], other: tuple[Report, Interval]) -> str:
    metric = state.record.metric
    (report, interval), (its_report, its_interval) = best, other
    if report.samples != its_report.samples:
        return OTHER_LENGTH
    if interval is None and its_interval is None:
        return UNKNOWN
    ours, its = report.metrics[metric], its_report.metrics[metric]
    if _holds(interval, its) or _holds(its_interval, ours):
        return NOISE
    return BETTER if (its < ours) == (state.record.mode == "min") else WORSE


def _holds(interval: Interval, value: float) -> bool:
    return interval is not None and interval[0] <= value <= interval[1]
