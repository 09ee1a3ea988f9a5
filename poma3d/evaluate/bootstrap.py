"""Intervals by resampling scenes: views and queries of one scene are not independent, scenes are.

Legend: S scenes, R bootstrap draws.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from poma3d.evaluate.config import BootstrapConfig


@dataclass(frozen=True)
class Estimate:
    """A value with its interval; `resampled` [R] is kept for paired differences."""

    value: float
    low: float
    high: float
    resampled: np.ndarray = field(repr=False, compare=False)

    def to_dict(self) -> dict[str, float]:
        """For JSON."""
        return {"value": self.value, "low": self.low, "high": self.high}


def scene_weights(scenes: int, config: BootstrapConfig) -> np.ndarray:
    """How often each scene occurs in each draw: float64 [R, S], each row sums to S."""
    rng = np.random.default_rng(config.seed)
    return rng.multinomial(scenes, np.full(scenes, 1.0 / scenes), size=config.draws).astype(np.float64)


def estimate(value: float, resampled: np.ndarray, confidence: float) -> Estimate:
    """The percentile interval of `resampled` [R] around `value`; NaN draws are left out."""
    tail = (1.0 - confidence) / 2.0
    finite = resampled[np.isfinite(resampled)]
    if finite.size == 0:
        return Estimate(float(value), float("nan"), float("nan"), resampled)
    low, high = np.quantile(finite, [tail, 1.0 - tail])
    return Estimate(float(value), float(low), float(high), resampled)


def mean_over_scenes(
    values: np.ndarray, scene_of: np.ndarray, scenes: int, config: BootstrapConfig
) -> Estimate:
    """The mean of `values` [n] with an interval over the scenes that its rows belong to.

    Args:
        values: float [n].
        scene_of: int [n], the scene of each row, in [0, scenes).
    """
    total = np.bincount(scene_of, weights=values, minlength=scenes)
    count = np.bincount(scene_of, minlength=scenes).astype(np.float64)
    weights = scene_weights(scenes, config)
    with np.errstate(invalid="ignore"):  # a draw may hold no scene that has rows
        resampled = (weights @ total) / (weights @ count)
    return estimate(float(values.mean()), resampled, config.confidence)


def difference(a: Estimate, b: Estimate, confidence: float) -> Estimate:
    """`a - b` with a paired interval: both must come from the same scenes and bootstrap seed.

    Raises:
        ValueError: the two have different numbers of draws.
    """
    if a.resampled.shape != b.resampled.shape:
        raise ValueError(
            f"paired estimates need the same draws, found {a.resampled.shape} and {b.resampled.shape}"
        )
    return estimate(a.value - b.value, a.resampled - b.resampled, confidence)
