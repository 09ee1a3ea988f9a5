"""Types of rooms: zero-shot by sentences with the type's name, few-shot by a linear classifier.

Legend: S scenes, K types, D features, T templates.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from poma3d.evaluate.config import ProbeConfig
from poma3d.evaluate.probe import fit_logistic
from poma3d.evaluate.retrieval import TIE_TOLERANCE, normalise


def is_best(scores: np.ndarray, label: np.ndarray) -> np.ndarray:
    """bool [S]: whether the right type is strictly ahead of every other; a tie is wrong.

    Args:
        scores: float [S, K].
        label: int [S].
    """
    own = np.take_along_axis(scores, label[:, None], axis=1)
    ahead: np.ndarray = (scores < own - TIE_TOLERANCE).sum(axis=1) == scores.shape[1] - 1
    return ahead


def type_features(texts: np.ndarray) -> np.ndarray:
    """Features [K, D] of the types: the normalised mean of the normalised [K, T, D] of their sentences."""
    return normalise(normalise(texts).mean(axis=1))


def few_shot_split(
    label: np.ndarray, room: Sequence[str], shots: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Scenes to learn from and scenes to be scored on, bool [S] each.

    `shots` rooms of each type are drawn, and one scene of each. Other scans of these rooms are on neither
    side. A type of fewer than `shots` + 1 rooms is on neither side, because nothing would be left to score.
    """
    rooms = np.array(room)
    learn, score = np.zeros(len(label), bool), np.zeros(len(label), bool)
    for each in np.unique(label):
        of_type = np.flatnonzero(label == each)
        names = np.unique(rooms[of_type])
        if len(names) <= shots:
            continue
        drawn = rng.permutation(names)[:shots]
        for name in drawn:
            learn[rng.choice(of_type[rooms[of_type] == name])] = True
        score[of_type[~np.isin(rooms[of_type], drawn)]] = True
    score &= ~np.isin(rooms, rooms[learn])  # a room whose scans are of two types
    return learn, score


def few_shot(
    features: np.ndarray, label: np.ndarray, learn: np.ndarray, score: np.ndarray, probe: ProbeConfig
) -> np.ndarray:
    """bool [number of `score`]: whether a one-against-rest logistic regression on the scenes of `learn` is
    right on each scene of `score`. Features [S, D] are standardised by those of `learn`."""
    kinds, code = np.unique(label[learn], return_inverse=True)
    mean, std = features[learn].mean(axis=0), features[learn].std(axis=0)
    x = (features - mean) / np.where(std > 0, std, 1.0)
    weight, bias = fit_logistic(x[learn], code[:, None] == np.arange(len(kinds)), probe)
    return is_best(x[score] @ weight + bias, np.searchsorted(kinds, label[score]))
