"""Localisation: a text was said by somebody at a place; the views nearest to that place are right.

Legend: V views.
"""

from __future__ import annotations

import numpy as np


def offsets(pose: np.ndarray, position: np.ndarray, rotation: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Metres and degrees from each view to a camera: float64 [V] each.

    The angle is that between the directions in which they look; a camera that is turned about its own axis
    sees the same.

    Args:
        pose: [V, 3, 4] camera -> world.
        position: [3] metres.
        rotation: [3, 3] camera -> world.
    """
    pose = np.asarray(pose, np.float64)
    apart = np.linalg.norm(pose[:, :, 3] - position, axis=1)
    ahead = pose[:, :, 2] / np.linalg.norm(pose[:, :, 2], axis=1, keepdims=True)
    cosine = ahead @ (rotation[:, 2] / np.linalg.norm(rotation[:, 2]))
    return apart, np.degrees(np.arccos(np.clip(cosine, -1.0, 1.0)))


def nearest(metres: np.ndarray, degrees: np.ndarray, count: int, degrees_per_metre: float) -> np.ndarray:
    """The `count` views nearest to a place, bool [V]; so are views that are as near as the last of them."""
    distance = metres + degrees / degrees_per_metre
    bound = np.sort(distance)[min(count, len(distance)) - 1]
    near: np.ndarray = distance <= bound
    return near
