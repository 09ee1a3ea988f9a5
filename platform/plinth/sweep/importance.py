"""How much of a metric each parameter of a sweep explains by itself.

Trials are ranked by the metric: a diverged one then counts as last, and no more. They are put in groups by
the parameter: one group for each of its values, or, for a number with many, bins with equally many trials.
Eta squared is the share of the ranks' variance that lies between the groups. Groups that mean nothing
explain (groups - 1) / (trials - 1) of it on average; Kelley's epsilon squared, as given in Okada, "Is omega
squared less biased?" (Behaviormetrika 40, 2013), takes that out:

    share = 1 - (1 - eta squared) (trials - 1) / (trials - groups), cut off at 0

So a parameter that does nothing has about 0, one that orders the trials alone has nearly 1 (what is left is
the order inside the bins), and what only two parameters explain together is in neither's share.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

LEAST_TRIALS = 10
"""With fewer, no share is given: two or three lucky trials would decide it."""
LEAST_PER_BIN = 3
MOST_BINS = 8
SHUFFLES = 1000
LIKELY_CHANCE = 0.05
"""Where so large a part of the shuffles explains as much, it may be chance."""


@dataclass(frozen=True)
class Importance:
    """What one parameter explains."""

    trials: int
    """Of how many trials."""
    share: float | None = None
    """0..1; None with too few trials, or where the parameter or the metric hardly varied."""
    chance: float | None = None
    """How often a random order of the metric gives as large a share; with `share`."""

    @property
    def may_be_chance(self) -> bool:
        """Whether so few trials show as much without any cause, too often."""
        return self.chance is not None and self.chance > LIKELY_CHANCE


def importance(values: Sequence[Any], metric: Sequence[float], seed: int = 0) -> Importance:
    """The share of the ranks of `metric` that the parameter explains by itself.

    Args:
        values: the parameter's value in each trial: a number, or anything that JSON can hold.
        metric: of the same trials, finite.
        seed: of the shuffles.
    """
    trials = len(values)
    if trials < LEAST_TRIALS:
        return Importance(trials)
    groups, ranks = _groups(values), _ranks(np.asarray(metric, float))
    count = int(groups.max()) + 1
    if not 1 < count < trials or np.ptp(ranks) == 0:
        return Importance(trials)
    shuffled = np.random.default_rng(seed).permuted(np.tile(ranks, (SHUFFLES, 1)), axis=1)
    found, *by_chance = _eta_squared(groups, np.vstack([ranks, shuffled]))
    as_large = sum(eta >= found or math.isclose(eta, found) for eta in by_chance)
    share = 1 - (1 - found) * (trials - 1) / (trials - count)
    return Importance(trials, min(max(share, 0.0), 1.0), (1 + as_large) / (1 + SHUFFLES))


def _eta_squared(groups: np.ndarray, ranks: np.ndarray) -> list[float]:
    """Variance between the groups over all of it, for each row of ranks, whose mean is 0."""
    is_member = groups[:, None] == np.arange(groups.max() + 1)
    means = ranks @ is_member / is_member.sum(axis=0)
    between = (means**2 * is_member.sum(axis=0)).sum(axis=1)
    return (between / (ranks**2).sum(axis=1)).tolist()


def _groups(values: Sequence[Any]) -> np.ndarray:
    """The number of each trial's group, from 0."""
    bins = min(MOST_BINS, max(2, min(round(math.sqrt(len(values))), len(values) // LEAST_PER_BIN)))
    if all(isinstance(v, int | float) and not isinstance(v, bool) for v in values):
        numbers = np.asarray(values, float)
        known, index = np.unique(numbers, return_inverse=True)
        if len(known) > bins:
            place = np.argsort(np.argsort(numbers, kind="stable"), kind="stable")
            return np.unique(place[_first_alike(index)] * bins // len(numbers), return_inverse=True)[1]
        return index
    texts = [json.dumps(value, sort_keys=True) for value in values]
    return np.unique(texts, return_inverse=True)[1]


def _first_alike(index: np.ndarray) -> np.ndarray:
    """For each trial, the first one of the same value: equal numbers go into one bin."""
    _, first = np.unique(index, return_index=True)
    return first[index]


def _ranks(metric: np.ndarray) -> np.ndarray:
    """Ranks around 0; equal values share the mean of theirs."""
    _, index, counts = np.unique(metric, return_inverse=True, return_counts=True)
    shared = np.cumsum(counts) - (counts - 1) / 2
    ranks = shared[index]
    return ranks - ranks.mean()
