"""Importance of parameters: known answers, no false ones, and silence where there are too few trials."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

from plinth.sweep.importance import LEAST_TRIALS, MOST_BINS, importance


def share(values: Sequence[Any] | np.ndarray, metric: Sequence[float] | np.ndarray) -> float:
    found = importance(np.array(values, object).tolist(), [float(m) for m in metric]).share
    assert found is not None
    return found


@pytest.mark.parametrize("shape", [lambda x: x, np.exp, lambda x: -(x**3), lambda x: (x - 0.5) ** 2])
def test_what_orders_the_trials_alone_explains_nearly_all(shape: Callable[[Any], Any]) -> None:
    x = np.random.default_rng(0).uniform(size=100)
    metric = shape(x)
    assert share(x, metric) > 0.9
    assert importance(list(x), list(metric)).chance == pytest.approx(1 / 1001)


def test_bins_leave_only_the_order_inside_them() -> None:
    x = np.arange(64)
    eta = 1 - (1 / MOST_BINS**2) * (1 - (MOST_BINS / 64) ** 2) / (1 - (1 / 64) ** 2)
    assert share(x, x) == pytest.approx(1 - (1 - eta) * 63 / (64 - MOST_BINS))


def test_what_does_nothing_explains_nothing_whatever_its_number_of_values() -> None:
    rng = np.random.default_rng(0)
    for values in (rng.uniform(size=200), rng.integers(0, 2, 200), rng.integers(0, 20, 200).astype(str)):
        of_many = [share(values, rng.normal(size=200)) for _ in range(20)]
        assert np.mean(of_many) < 0.02
    uncorrected = 19 / 199
    assert np.mean([share(rng.integers(0, 20, 200).astype(str), rng.normal(size=200))]) < uncorrected


def test_shares_of_a_sum_are_those_of_its_variance() -> None:
    """Var(2a + b) = 4 + 1 with a and b alike: 80 and 20 % of it, and of the ranks nearly so."""
    a, b = np.random.default_rng(1).normal(size=(2, 2000))
    assert share(a, 2 * a + b) == pytest.approx(0.8, abs=0.05)
    assert share(b, 2 * a + b) == pytest.approx(0.2, abs=0.05)


def test_categories_with_a_known_answer() -> None:
    """Two groups, one wholly before the other, n trials: eta squared is (n^2 / 4) / ((n^2 - 1) / 3)."""
    eta = (20**2 / 4) / ((20**2 - 1) / 3)
    expected = 1 - (1 - eta) * 19 / 18
    metric = list(range(20))
    assert share(["full"] * 10 + ["lora"] * 10, metric) == pytest.approx(expected)
    assert share([True] * 10 + [False] * 10, metric) == pytest.approx(expected)
    assert share([3] * 10 + [4] * 10, metric) == pytest.approx(expected), "few numbers are as categories"
    for one, other in ((None, 4), ([1, 2], {"a": 1})):
        assert importance([one] * 10 + [other] * 10, metric).share == pytest.approx(expected)


def test_one_diverged_trial_is_only_the_last() -> None:
    x = np.arange(30.0)
    metric = x.copy()
    metric[29] = 1e30
    assert share(x, metric) == share(x, x)


def test_equal_numbers_share_a_bin() -> None:
    """Were the tied half spread over the bins, where they begin would matter."""
    values = [0.0] * 15 + [float(i) for i in range(1, 16)]
    metric = [*range(15), *range(100, 115)]
    order = np.random.default_rng(0).permutation(30)
    shuffled = share([values[i] for i in order], [metric[i] for i in order])
    assert shuffled == pytest.approx(share(values, metric))


def test_few_trials_are_not_told_from_chance() -> None:
    for found in (importance([], []), importance(list(range(9)), list(range(9)))):
        assert found.share is None
        assert not found.may_be_chance
    rng = np.random.default_rng(0)
    x, noise = rng.uniform(size=(2, LEAST_TRIALS))
    assert importance(list(x), list(noise)).may_be_chance
    assert not importance(list(x), list(x)).may_be_chance
    often = [
        importance(list(x), list(rng.uniform(size=12))).may_be_chance for x in rng.uniform(size=(60, 12))
    ]
    assert np.mean(often) > 0.85, "about 95 % of the parameters that do nothing are said to"


def test_nothing_to_tell() -> None:
    many = list(range(12))
    assert importance(["same"] * 12, many).share is None
    assert importance(many, [1.0] * 12).share is None
    assert importance([f"name-{i}" for i in many], many).share is None, "each trial a group of its own"


def test_it_is_repeatable() -> None:
    x, y = np.random.default_rng(0).uniform(size=(2, 40))
    assert importance(list(x), list(y)) == importance(list(x), list(y))
