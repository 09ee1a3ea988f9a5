"""Which way is up: in the world of a scan, and in its pictures.

A scan whose world frame does not say has its up direction estimated from the normals of floors and tables. A
phone held upright stores a rotated landscape image; teachers know upright pictures, so views are turned by
quarter turns: depth, colour, camera and pose together, which moves no point of the world.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np
import torch

from poma3d.geometry import unproject
from poma3d.scenes.frame import BadFrame, ColourCamera, Frame

QUARTER = np.array([[0.0, 1, 0], [-1, 0, 0], [0, 0, 1]])
"""Camera axes before -> after a quarter turn of the picture anticlockwise."""

FRAMES_USED = 12
COLUMNS = 60
"""Depth is thinned to about this many columns: neighbours far enough apart for normals to outgrow noise."""
CONES_DEG = (45.0, 20.0, 10.0, 5.0)
"""Normals within these angles of the estimate are averaged, one cone after another."""
FLAT_M = 0.15
"""Neighbours farther apart than this lie on different surfaces."""


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
            picture_turns=frame.picture_turns + (frame.colour_camera is None),
            colour_camera=_from_turned(frame.colour_camera),
        )
    return frame


def _from_turned(camera: ColourCamera | None) -> ColourCamera | None:
    """The colour camera, which is where it was, seen from a depth camera that made a quarter turn."""
    if camera is None:
        return None
    rotation, moved = camera.from_depth[:, :3] @ QUARTER.T, camera.from_depth[:, 3:]
    return replace(camera, from_depth=np.concatenate([rotation, moved], axis=1))


def estimate_up(frames: Sequence[Frame], depth_scale: float) -> np.ndarray:
    """Unit up direction float64 [3] in the frames' world.

    People hold cameras roughly upright: the mean of the cameras' up axes is the first guess. Surface
    normals near it are those of floors, tables and worktops, and are averaged in narrowing cones.

    Args:
        frames: of one scan; frames that cannot be used are passed over.
        depth_scale: metres per unit of their depth.

    Raises:
        ValueError: no frame can be used.
    """
    ups, normals = [], []
    for place in np.linspace(0, len(frames) - 1, min(len(frames), FRAMES_USED)).astype(int).tolist():
        try:
            frame = frames[place]
        except BadFrame:
            continue
        if np.isfinite(frame.pose).all() and np.isfinite(frame.intrinsics).all():
            ups.append(-frame.pose[:, 1])
            normals.append(_normals(frame, depth_scale))
    if not ups:
        raise ValueError("no frame with depth, pose and intrinsics to tell up from")
    up = np.mean(ups, axis=0)
    up /= np.linalg.norm(up)
    all_normals = np.concatenate(normals)
    for cone in CONES_DEG:
        near = all_normals[all_normals @ up > np.cos(np.deg2rad(cone))]
        if len(near) == 0:
            break
        up = near.mean(0) / np.linalg.norm(near.mean(0))
    return up


def _normals(frame: Frame, depth_scale: float) -> np.ndarray:
    """Unit normals float64 [n, 3] of a frame's surfaces, toward the camera."""
    stride = max(1, frame.depth.shape[1] // COLUMNS)
    depth = frame.depth[::stride, ::stride].copy()
    camera = torch.from_numpy(frame.intrinsics / stride), torch.from_numpy(frame.pose)
    points = unproject(torch.from_numpy(depth), depth_scale, *camera, dtype=torch.float64).numpy()
    across, down = points[:-1, 1:] - points[:-1, :-1], points[1:, :-1] - points[:-1, :-1]
    normal = np.cross(down, across)
    length = np.linalg.norm(normal, axis=-1)
    known = (depth[:-1, :-1] > 0) & (depth[:-1, 1:] > 0) & (depth[1:, :-1] > 0)
    whole = (np.linalg.norm(across, axis=-1) < FLAT_M) & (np.linalg.norm(down, axis=-1) < FLAT_M)
    keep = known & whole & (length > 0)
    return normal[keep] / length[keep][:, None]
