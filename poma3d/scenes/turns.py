"""Captures that were stored on their side: a phone held upright records a landscape picture that lies.

A teacher knows upright pictures, so views are turned by quarter turns: depth, colour, camera and pose
together, which changes no point of the world.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import numpy as np

from poma3d.scenes.frame import Frame

QUARTER = np.array([[0.0, 1, 0], [-1, 0, 0], [0, 0, 1]])
"""Camera axes before -> after a quarter turn of the picture anticlockwise."""


def quarter_turns(poses: Iterable[np.ndarray]) -> int:
    """Quarter turns anticlockwise, 0 to 3, that bring the pictures of a recording upright.

    One answer for a recording: where up is in its pictures on average. A view straight down has no up of its
    own and hardly counts.

    Args:
        poses: float64 [3, 4] camera -> world, world z-up; those that are not finite do not count.
    """
    up = np.zeros(2)
    for pose in poses:
        if np.isfinite(pose).all():
            up += pose[2, :2]  # world's up in the camera's x (right) and y (down)
    right, down = up
    if abs(right) > abs(down):
        return 1 if right > 0 else 3
    return 2 if down > 0 else 0


def turned(frame: Frame, turns: int) -> Frame:
    """The same view with its picture turned anticlockwise by quarter turns."""
    for _ in range(turns % 4):
        width = frame.depth.shape[1]
        fx, fy, cx, cy = frame.intrinsics
        pose = np.concatenate([frame.pose[:, :3] @ QUARTER.T, frame.pose[:, 3:]], axis=1)
        frame = replace(
            frame,
            depth=np.ascontiguousarray(np.rot90(frame.depth)),
            intrinsics=np.array([fy, fx, cy, width - 1 - cx]),
            pose=pose,
            picture_turns=frame.picture_turns + 1,
        )
    return frame
