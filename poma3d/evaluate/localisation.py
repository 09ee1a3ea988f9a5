"""Zero-shot embodied localisation: the views of one scene ranked by a text of where the agent is.

Legend: S scenes, V views, Q texts, D the teacher's joint space.
"""

from __future__ import annotations

import numpy as np

from poma3d.evaluate.bootstrap import Estimate, mean_over_scenes
from poma3d.evaluate.config import BootstrapConfig
from poma3d.evaluate.retrieval import hits_of_scores, normalise


def view_scores(
    texts: np.ndarray, views: np.ndarray, view_valid: np.ndarray, scene: np.ndarray
) -> np.ndarray:
    """Cosine of each text with the views of its scene; -inf where a view is a repeat.

    Args:
        texts: float [Q, D].
        views: float [S, V, D].
        view_valid: bool or uint8 [S, V].
        scene: int [Q], the scene of each text.

    Returns:
        float64 [Q, V].
    """
    scores = np.einsum("qd,qvd->qv", normalise(texts), normalise(views)[scene])
    return np.where(np.asarray(view_valid, bool)[scene], scores, -np.inf)


def rank_views(texts: np.ndarray, views: np.ndarray, view_valid: np.ndarray, scene: np.ndarray) -> np.ndarray:
    """View indices of each text's scene, best first; repeats come last. int64 [Q, V]."""
    return np.argsort(-view_scores(texts, views, view_valid, scene), axis=1, kind="stable")


def recall(
    texts: np.ndarray,
    views: np.ndarray,
    view_valid: np.ndarray,
    scene: np.ndarray,
    view: np.ndarray,
    best: int,
    cfg: BootstrapConfig,
) -> Estimate:
    """How often the right view is among the `best` of its scene, ties by lot in expectation.

    Args:
        view: int [Q], the view that each text describes; the others are as in `view_scores`.
    """
    scores = view_scores(texts, views, view_valid, scene)
    return mean_over_scenes(hits_of_scores(scores, view, best), scene, len(views), cfg)


def chance(view_valid: np.ndarray, scene: np.ndarray, best: int) -> float:
    """The same recall of a ranking by lot."""
    valid = np.asarray(view_valid, bool).sum(axis=1)[scene]
    return float(np.minimum(best / valid, 1.0).mean())
