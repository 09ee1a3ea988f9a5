"""Linear probe: which classes are in view, read from frozen features by logistic regression.

Rows are views; training and held-out rows never share a scene.

Legend: n rows (views), D features, K classes, R bootstrap draws.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from poma3d.evaluate.bootstrap import Estimate, estimate, scene_weights
from poma3d.evaluate.config import ProbeConfig
from poma3d.sample import Classes


@dataclass(frozen=True)
class ProbeResult:
    """Average precision per class [K] (NaN where a class has no positive or no negative row), its mean
    over the classes that have both, and the mean of a random ranking (the share of positives)."""

    per_class: np.ndarray
    macro: Estimate
    base_rate: float


def named_classes(captions: Iterable[str], classes: Classes) -> np.ndarray:
    """bool [K], classes by name: whether one of the captions names it, by any of its words or phrases."""
    spoken = " | ".join(f" {' '.join(_words(caption))} " for caption in captions)
    return np.array([any(f" {' '.join(_words(w))} " in spoken for w in classes[c]) for c in sorted(classes)])


def split_scenes(scenes: int, config: ProbeConfig) -> np.ndarray:
    """bool [scenes], True for the scenes that are held out.

    Raises:
        ValueError: one of the two sides would be empty.
    """
    held_out = round(scenes * config.held_out)
    if not 0 < held_out < scenes:
        raise ValueError(f"held_out {config.held_out} of {scenes} scenes leaves one side of the probe empty")
    mask = np.zeros(scenes, bool)
    mask[np.random.default_rng(config.seed).permutation(scenes)[:held_out]] = True
    return mask


def average_precision(
    scores: np.ndarray, labels: np.ndarray, weights: np.ndarray | None = None
) -> np.ndarray:
    """Area under the precision-recall steps; rows of equal score enter together.

    Args:
        scores: float [n].
        labels: bool [n].
        weights: float [R, n], how often each row counts; once each when None.

    Returns:
        float64 [R] (R = 1 without weights); NaN where there is no positive row.
    """
    order = np.argsort(-scores, kind="stable")
    ranked = scores[order]
    last_of_tie = np.append(ranked[1:] != ranked[:-1], True)
    w = np.ones((1, len(scores))) if weights is None else weights[:, order]
    positives = np.cumsum(w * labels[order], axis=1)[:, last_of_tie]
    everything = np.cumsum(w, axis=1)[:, last_of_tie]
    with np.errstate(invalid="ignore", divide="ignore"):
        precision = np.nan_to_num(positives / everything)
        recall_steps = np.diff(positives, axis=1, prepend=0.0) / positives[:, -1:]
    return (precision * recall_steps).sum(axis=1)


def fit_logistic(
    features: np.ndarray, labels: np.ndarray, config: ProbeConfig
) -> tuple[np.ndarray, np.ndarray]:
    """One logistic regression per class, together, by L-BFGS in float64.

    Args:
        features: float [n, D], standardised.
        labels: bool [n, K].

    Returns:
        weights [D, K] and biases [K].
    """
    x = torch.from_numpy(np.ascontiguousarray(features, np.float64))
    y = torch.from_numpy(np.ascontiguousarray(labels, np.float64))
    weight = torch.zeros(x.shape[1], y.shape[1], dtype=torch.float64, requires_grad=True)
    bias = torch.zeros(y.shape[1], dtype=torch.float64, requires_grad=True)
    optimiser = torch.optim.LBFGS([weight, bias], max_iter=config.steps, line_search_fn="strong_wolfe")

    def closure() -> torch.Tensor:
        optimiser.zero_grad()
        # Sum over classes: each class then has the optimum that it would have alone.
        cross_entropy = nn.functional.binary_cross_entropy_with_logits(x @ weight + bias, y) * y.shape[1]
        loss = cross_entropy + config.l2 * weight.square().sum()
        loss.backward()
        return loss

    optimiser.step(closure)
    return weight.detach().numpy(), bias.detach().numpy()


def probe(
    features: np.ndarray, labels: np.ndarray, scene: np.ndarray, held_out: np.ndarray, config: ProbeConfig
) -> ProbeResult:
    """Train on the rows of some scenes, score on the rows of the others.

    Args:
        features: float [n, D], one row a valid view.
        labels: bool [n, K].
        scene: int [n], the scene of each row.
        held_out: bool [scenes], see `split_scenes`.
    """
    test = np.asarray(held_out, bool)[scene]
    x = np.asarray(features, np.float64)
    if not np.isfinite(x).all():
        raise ValueError("features for the probe hold NaN or infinity: the encoder has diverged")
    mean, std = x[~test].mean(axis=0), x[~test].std(axis=0)
    x = (x - mean) / np.where(std > 0, std, 1.0)
    weight, bias = fit_logistic(x[~test], labels[~test], config)
    return score(x[test] @ weight + bias, labels[test], scene[test], config)


def score(scores: np.ndarray, labels: np.ndarray, scene: np.ndarray, config: ProbeConfig) -> ProbeResult:
    """Macro average precision of `scores` [n, K] against `labels` [n, K], interval over `scene` [n]."""
    _, row_scene = np.unique(scene, return_inverse=True)
    weights = scene_weights(int(row_scene.max()) + 1, config.bootstrap)[:, row_scene]
    usable = labels.any(axis=0) & ~labels.all(axis=0)
    per_class = np.full(labels.shape[1], np.nan)
    resampled = []
    for k in np.flatnonzero(usable):
        per_class[k] = average_precision(scores[:, k], labels[:, k])[0]
        resampled.append(average_precision(scores[:, k], labels[:, k], weights))
    if not resampled:
        raise ValueError("no class of the probe has both positive and negative held-out views")
    # A draw may lack every positive of a rare class: that class is then left out of that draw.
    macro = estimate(
        float(np.nanmean(per_class)), np.nanmean(np.stack(resampled), axis=0), config.bootstrap.confidence
    )
    return ProbeResult(per_class, macro, float(labels[:, usable].mean()))


def _words(text: str) -> list[str]:
    return re.findall(r"\w+", text.lower())
