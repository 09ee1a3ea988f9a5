"""Ranks under published protocols: 1 + the wrong ones that are not strictly worse: a tie counts against us.

A stable or unstable sort gives a constant encoder a rank by luck; this gives it the last.

Legend: Q queries, S columns.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Hashable, Sequence

import numpy as np

from poma3d.evaluate.retrieval import TIE_TOLERANCE


def ranks(scores: np.ndarray, right: np.ndarray) -> np.ndarray:
    """The rank of the best right column of each query, from 1: int64 [Q].

    Args:
        scores: float [Q, S].
        right: bool [Q, S], one True or more in each row.

    Raises:
        ValueError: a score is NaN, or a query has no right column.
    """
    if np.isnan(scores).any():
        raise ValueError("the scores hold NaN: the encoder has diverged")
    if not right.any(axis=1).all():
        raise ValueError("a query has no right answer in the bank")
    own = np.where(right, scores, -np.inf).max(axis=1, keepdims=True)
    found: np.ndarray = 1 + ((scores >= own - TIE_TOLERANCE) & ~right).sum(axis=1)
    return found


def batch_mean(values: np.ndarray, batch: int) -> float:
    """The mean of the means over consecutive batches, as the public code prints it: a small last batch weighs
    as much as a full one.

    Args:
        values: float [Q], in the order of the queries.
    """
    return float(np.mean([values[start : start + batch].mean() for start in range(0, len(values), batch)]))


def ceiling(texts: Sequence[str], answers: Sequence[Hashable], best: int) -> float:
    """R@best of somebody who knows everything but sees the text alone: queries with one text and several
    answers can be right for the `best` commonest of these only.

    Args:
        answers: the right one of each text.
    """
    said: defaultdict[str, Counter[Hashable]] = defaultdict(Counter)
    for text, answer in zip(texts, answers, strict=True):
        said[text][answer] += 1
    return sum(n for counts in said.values() for _, n in counts.most_common(best)) / len(texts)


def chance_of_any(right: np.ndarray, total: np.ndarray, best: int) -> np.ndarray:
    """The chance that a random order has one of `right` among the `best` of `total`: float64 [Q].

    Args:
        right, total: int [Q].
    """
    missed = np.ones(len(right))
    for place in range(best):
        left = total - place
        missed *= np.where(left > 0, np.clip(left - right, 0, None) / np.maximum(left, 1), 0.0)
    return 1.0 - missed
