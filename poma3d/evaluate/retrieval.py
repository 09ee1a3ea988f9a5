"""Zero-shot scene retrieval, R@M-N: M utterances of one scene joined, is the right scene in the N best?

Legend: S scenes of the gallery, V views, Q queries, D the teacher's joint space.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from poma3d.evaluate.bootstrap import Estimate, mean_over_scenes
from poma3d.evaluate.config import BootstrapConfig, RetrievalConfig

# Cosines of float32 features closer than this are the same number, and count as a tie.
TIE_TOLERANCE = 1e-6


@dataclass(frozen=True)
class Queries:
    """`texts` (Q of them) and the gallery index `target` int64 [Q] that each belongs to."""

    texts: list[str]
    target: np.ndarray


def normalise(x: np.ndarray) -> np.ndarray:
    """Rows of unit length in float64; a row of zeros stays zeros."""
    x = np.asarray(x, np.float64)
    return x / np.maximum(np.linalg.norm(x, axis=-1, keepdims=True), np.finfo(np.float64).tiny)


def scene_features(views: np.ndarray, view_valid: np.ndarray) -> np.ndarray:
    """Normalised mean of the normalised features of a scene's valid views.

    Args:
        views: float [S, V, D].
        view_valid: bool or uint8 [S, V]; repeats that fill a short scene are left out.

    Returns:
        float64 [S, D].
    """
    weights = np.asarray(view_valid, np.float64)[..., None]
    return normalise((normalise(views) * weights).sum(axis=-2))


def draw_queries(utterances: Sequence[Sequence[str]], count: int, per_scene: int, seed: int) -> Queries:
    """`per_scene` queries of `count` joined utterances from each scene.

    A scene with fewer than `count` utterances gives all it has; one without any gives no query.
    """
    texts: list[str] = []
    target: list[int] = []
    for index, said in enumerate(utterances):
        rng = np.random.default_rng([seed, count, index])
        for _ in range(per_scene if said else 0):
            chosen = rng.permutation(len(said))[:count]
            texts.append(" ".join(said[i] for i in chosen))
            target.append(index)
    return Queries(texts, np.array(target, np.int64))


def hits(queries: np.ndarray, gallery: np.ndarray, target: np.ndarray, best: int) -> np.ndarray:
    """`hits_of_scores` of the cosines of queries [Q, D] with the rows of the gallery [S, D]."""
    return hits_of_scores(normalise(queries) @ normalise(gallery).T, target, best)


def hits_of_scores(scores: np.ndarray, target: np.ndarray, best: int) -> np.ndarray:
    """The chance in [0, 1] that each query's target is among its `best` columns.

    Ties count by their expected rank: a target that shares its score with others gets its share of the
    places that are left, so an encoder that maps everything to one point scores exactly chance.

    Args:
        scores: float [Q, S]; -inf for a column that does not take part.
        target: int [Q], the right column of each query.

    Returns:
        float64 [Q].

    Raises:
        ValueError: a score is NaN.
    """
    if np.isnan(scores).any():
        raise ValueError("the scores hold NaN: the encoder has diverged")
    own = np.take_along_axis(scores, np.asarray(target)[:, None], axis=1)
    better = (scores > own + TIE_TOLERANCE).sum(axis=1)
    tied = (np.abs(scores - own) <= TIE_TOLERANCE).sum(axis=1)  # the target itself is one of them
    return np.clip((best - better) / tied, 0.0, 1.0)


def chance(scenes: int, best: int) -> float:
    """R@N of a random ranking."""
    return min(best / scenes, 1.0)


def recall(
    queries: np.ndarray, gallery: np.ndarray, target: np.ndarray, best: int, config: BootstrapConfig
) -> Estimate:
    """R@N with its interval over scenes; see `hits` for the arguments."""
    return mean_over_scenes(hits(queries, gallery, target, best), np.asarray(target), len(gallery), config)


def recalls(
    queries: np.ndarray, gallery: np.ndarray, target: np.ndarray, config: RetrievalConfig
) -> dict[int, Estimate]:
    """R@N for every N of `config.best`."""
    return {best: recall(queries, gallery, target, best, config.bootstrap) for best in config.best}


def ranking(queries: np.ndarray, gallery: np.ndarray, best: int) -> np.ndarray:
    """Gallery indices of the `best` scenes of each query, best first: int64 [Q, min(best, S)]."""
    scores = normalise(queries) @ normalise(gallery).T
    return np.argsort(-scores, axis=1, kind="stable")[:, :best]
