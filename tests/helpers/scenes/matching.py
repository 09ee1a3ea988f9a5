"""At which scale and shift the edges of a picture lie on those of its depth map.

Legend: H W pixels of both.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageFilter

JUMP_M = 0.15
"""Neighbouring pixels farther apart in depth than this are on both sides of an edge."""


def match(depths_m: Sequence[np.ndarray], pictures: Sequence[np.ndarray]) -> tuple[float, float, float]:
    """Scale about the middle, shift to the right and shift downwards, in pixels, of the pictures' edges
    beside those of the depth maps: (1, 0, 0) where both show the same.

    Args:
        depths_m: float [H, W] metres, 0 = none.
        pictures: uint8 [H, W, 3].
    """
    pairs = [(_edges(d), _gradient(p)) for d, p in zip(depths_m, pictures, strict=True)]
    middle = (np.array(depths_m[0].shape[::-1]) - 1) / 2
    best = (1.0, 0.0, 0.0)
    for step in (2.0, 0.5):  # coarse, then fine around it
        scale, right, down = best
        near = np.arange(-4, 5) * step
        both = [(scale + k / 50, right + x, down) for k in near for x in near]
        best = max([best, *both], key=lambda each: _score(pairs, middle, each))
        downwards = [(*best[:2], down + y) for y in near]
        best = max([best, *downwards], key=lambda each: _score(pairs, middle, each))
    return best


def _edges(depth: np.ndarray) -> np.ndarray:
    """Pixels (u, v) float [n, 2] between the near and the far side of each jump in depth."""
    found = []
    for axis, step, beside in ((0, 1, (0, -0.5)), (0, -1, (0, 0.5)), (1, 1, (-0.5, 0)), (1, -1, (0.5, 0))):
        other = np.roll(depth, step, axis)
        jump = (depth > 0) & (other - depth > JUMP_M)
        jump[[0, -1]] = jump[:, [0, -1]] = False
        found.append(np.argwhere(jump)[:, ::-1] + np.array(beside))
    return np.concatenate(found)


def _gradient(picture: np.ndarray) -> np.ndarray:
    """How strongly grey changes, [H, W], 1 on average."""
    grey = np.asarray(Image.fromarray(picture).convert("L").filter(ImageFilter.GaussianBlur(0.7)), float)
    down, across = np.gradient(grey)
    strength = np.hypot(across, down)
    return strength / strength.mean()


def _score(
    pairs: list[tuple[np.ndarray, np.ndarray]], middle: np.ndarray, at: tuple[float, float, float]
) -> float:
    """Mean strength of the pictures' edges where those of the depth maps are."""
    scale, *shift = at
    strengths = []
    for edges, gradient in pairs:
        u, v = ((edges - middle) * scale + middle + np.array(shift)).T
        height, width = gradient.shape
        inside = (u >= 0) & (u < width - 1) & (v >= 0) & (v < height - 1)
        left, top = u[inside].astype(int), v[inside].astype(int)
        x, y = u[inside] - left, v[inside] - top
        upper = gradient[top, left] * (1 - x) + gradient[top, left + 1] * x
        lower = gradient[top + 1, left] * (1 - x) + gradient[top + 1, left + 1] * x
        strengths.append(upper * (1 - y) + lower * y)
    return float(np.concatenate(strengths).mean())
