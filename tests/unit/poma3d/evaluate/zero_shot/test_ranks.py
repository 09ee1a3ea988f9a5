"""Ranks, batch means and ceilings of the published protocols, on hand examples and against naive loops."""

from __future__ import annotations

from fractions import Fraction
from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from poma3d.annotations.ceiling import ceiling as ceiling_of_rows
from poma3d.annotations.rows import Utterance
from poma3d.evaluate.zero_shot.ranks import batch_mean, ceiling, chance_of_any, ranks


def right(*columns: int, of: int) -> np.ndarray:
    return np.isin(np.arange(of), columns)[None]


def test_batches_of_four_weigh_the_last_two_queries_double() -> None:
    """Ten queries, hits 2 of 4, 2 of 4, 2 of 2: the public code prints 66.7 % where 60 % were found."""
    hits = np.array([1, 1, 0, 0, 1, 0, 1, 0, 1, 1], float)
    assert hits.mean() == pytest.approx(0.6)
    assert batch_mean(hits, 4) == pytest.approx(2 / 3)
    assert batch_mean(hits, 5) == pytest.approx(0.6), "even batches change nothing"
    assert batch_mean(hits, 16) == pytest.approx(0.6)


def test_a_constant_bank_is_last_not_lucky() -> None:
    scores = np.zeros((3, 5))
    targets = np.eye(5, dtype=bool)[[0, 2, 4]]
    assert ranks(scores, targets).tolist() == [5, 5, 5]


def test_ties_count_against_us_and_equal_float32_cosines_are_ties() -> None:
    scores = np.array([[0.5, 0.5, 0.1], [0.5, 0.5 + 1e-7, 0.1], [0.5, 0.51, 0.1]])
    assert ranks(scores, np.repeat(right(0, of=3), 3, axis=0)).tolist() == [2, 2, 2]
    assert ranks(np.array([[0.5, 0.4999, 0.1]]), right(0, of=3)).tolist() == [1]


def test_the_best_of_several_right_ones_counts() -> None:
    scores = np.array([[0.9, 0.2, 0.8, 0.7]])
    assert ranks(scores, right(1, 3, of=4)).tolist() == [3]
    assert ranks(np.array([[0.9, 0.7, 0.7, 0.7]]), right(1, 3, of=4)).tolist() == [3], (
        "right ones tie with none"
    )


@given(st.integers(0, 10**6))
@settings(max_examples=40, deadline=None)
def test_ranks_are_those_of_the_worst_sort(seed: int) -> None:
    rng = np.random.default_rng(seed)
    scores = rng.integers(0, 4, (6, 5)) / 4
    mask = rng.random((6, 5)) < 0.4
    mask[np.arange(6), rng.integers(0, 5, 6)] = True
    for row, allowed, found in zip(scores, mask, ranks(scores, mask), strict=True):
        order = sorted(range(5), key=lambda i: (-row[i], allowed[i]))  # ties: wrong ones first
        assert found == 1 + next(place for place, i in enumerate(order) if allowed[i])


def test_a_diverged_encoder_and_a_query_without_an_answer_are_refused() -> None:
    with pytest.raises(ValueError, match="NaN"):
        ranks(np.array([[np.nan, 0.0]]), right(0, of=2))
    with pytest.raises(ValueError, match="no right answer"):
        ranks(np.zeros((1, 2)), np.zeros((1, 2), bool))


def test_repeated_utterances_put_a_ceiling_on_recall() -> None:
    """Three scans share one text, one of them says it twice: of four queries two can be right at once."""
    texts = ["the chair", "the chair", "the chair", "the chair", "the only sofa"]
    scans = ["a", "a", "b", "c", "a"]
    assert ceiling(texts, scans, 1) == pytest.approx(3 / 5)
    assert ceiling(texts, scans, 2) == pytest.approx(4 / 5)
    assert ceiling(texts, scans, 3) == 1.0
    rooms = [{"a": 0, "b": 0, "c": 1}[scan] for scan in scans]
    assert ceiling(texts, rooms, 1) == pytest.approx(4 / 5), "two of the scans are one room"


def test_chance_is_that_of_all_orders() -> None:
    for total, good, best in ((4, 1, 2), (4, 2, 1), (4, 3, 2), (3, 1, 5)):
        orders = list(permutations(range(total)))
        hit = Fraction(sum(any(i < good for i in order[:best]) for order in orders), len(orders))
        assert chance_of_any(np.array([good]), np.array([total]), best)[0] == pytest.approx(float(hit))


def test_the_ceiling_at_one_is_that_of_the_annotation_report() -> None:
    rows = [
        Utterance(scene, text) for scene, text in (("a", "x"), ("b", "x"), ("b", "x"), ("a", "y"), ("c", "y"))
    ]
    found = ceiling([row.text for row in rows], [row.scene_id for row in rows], 1)
    assert found == pytest.approx(ceiling_of_rows(rows, lambda scene: scene))
