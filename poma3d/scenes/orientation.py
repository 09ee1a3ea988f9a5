"""Which way is up: in the world of a scan, and in its pictures.

A scan whose world frame does not say has its up direction estimated from the normals of floors and tables. A
phone held upright stores a rotated landscape image; teachers know upright pictures, so views are turned by
quarter turns: depth, colour, camera and pose together, which moves no point of the world. A device may be
turned in the middle of a recording, so each picture has turns of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from poma3d.geometry import unproject
from poma3d.scenes.frame import BadFrame, ColourCamera, Frame

QUARTER = np.array([[0.0, 1, 0], [-1, 0, 0], [0, 0, 1]])
"""Camera axes before -> after a quarter turn of the picture anticlockwise."""

FRAMES_USED = 12
COLUMNS = 60
"""Depth is thinned to about this many columns: neighbours far enough apart for normals to outgrow noise."""
CANDIDATES, NORMALS_COUNTED = 400, 6000
"""Normals that are tried as the up direction, and those that are counted for each."""
SAME_WAY_DEG = 10.0
"""Surfaces within this angle of a direction face that way."""
CONES_DEG = (20.0, 10.0, 5.0)
"""Normals within these angles of the estimate are averaged, one cone after another."""
HELD = np.array([[0.0, -1, 0], [1, 0, 0], [-1, 0, 0], [0, 1, 0]])
"""Up in the camera's axes (x right, y down) for the four ways to hold it: upright, on either side,
upside down."""
HELD_WEIGHT = np.array([1.0, 0.8, 0.8, 0.5])
"""How much each is believed where surfaces speak for several."""
OTHER_DEG = 45.0
"""Directions farther apart than this are different answers."""
SURE = 1.5
"""The best answer beats every other by this factor, or is unsure. Over 100 synthetic rooms, held in all four
ways or turned half way through, 498 of 500 answers were right and 97 % of those sure; the wrong ones had 1.07
and 1.17. Three real scans, held in all four ways, had 1.5 to 5."""
STAYS_DEG = 60.0
"""A picture keeps the turns of the one before until up is farther than this from its top: above 45, so that a
device held slantwise does not change its way at every frame."""
LEVEL = 0.35
"""Up in the picture is shorter than this where the camera looks straight down or up: it tells no way."""
FLAT_M = 0.15
"""Neighbours farther apart than this lie on different surfaces."""


def upright_turns(poses: Sequence[np.ndarray | None]) -> list[int]:
    """Quarter turns anticlockwise, 0 to 3, that bring each picture of a recording upright.

    A picture is turned as the one before, until the device was clearly turned. The first ones, and views
    straight down, which have no up of their own, go by what the recording shows on average.

    Args:
        poses: [3, 4] camera -> world, world z-up, in the order of the recording; None, or not finite, where a
            frame has none.
    """
    ups = [None if pose is None or not np.isfinite(pose).all() else pose[2, :2] for pose in poses]
    turns = _nearest_turns(np.sum([up for up in ups if up is not None] or [np.array([0.0, -1.0])], axis=0))
    found = []
    for up in ups:
        if up is not None and np.linalg.norm(up) > LEVEL:
            away = (_roll_deg(up) - 90 * turns + 180) % 360 - 180
            turns = turns if abs(away) <= STAYS_DEG else _nearest_turns(up)
        found.append(turns)
    return found


def _roll_deg(up: np.ndarray) -> float:
    """How far up is turned clockwise in the picture; 0: upright. `up` [2]: rightwards, downwards."""
    return float(np.rad2deg(np.arctan2(up[0], -up[1])))


def _nearest_turns(up: np.ndarray) -> int:
    return round(_roll_deg(up) / 90) % 4


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
            turns=frame.turns + 1,
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


@dataclass(frozen=True)
class Up:
    """An estimated up direction."""

    direction: np.ndarray
    """Unit float64 [3] in the frames' world."""
    ratio: float
    """How many times better than the next best answer; inf where there is no other."""

    @property
    def is_sure(self) -> bool:
        """Whether no other answer comes near."""
        return self.ratio > SURE


def estimate_up(frames: Sequence[Frame], depth_scale: float) -> Up:
    """Which way is up in the frames' world.

    Up is the direction that most surfaces face (floors, tables, worktops) and that is near one of the four
    ways to hold a camera in each frame: a wall may have more surface, but does not stay at one side of the
    picture when the camera looks around. The normals near it are averaged in narrowing cones.

    Args:
        frames: of one scan; frames that cannot be used are passed over.
        depth_scale: metres per unit of their depth.

    Raises:
        ValueError: no frame can be used.
    """
    poses, seen, reasons = [], [], []
    for place in np.linspace(0, len(frames) - 1, min(len(frames), FRAMES_USED)).astype(int).tolist():
        try:
            frame = frames[place]
        except BadFrame as bad:
            reasons.append(str(bad))
            continue
        if np.isfinite(frame.pose).all() and np.isfinite(frame.intrinsics).all():
            poses.append(frame.pose[:, :3])
            seen.append(_normals(frame, depth_scale))
    if not poses:
        found = f"; the first: {reasons[0]}" if reasons else ""
        raise ValueError(f"no frame with depth, pose and intrinsics to tell up from{found}")
    rotations, normals = np.stack(poses), np.concatenate(seen)
    held = np.einsum("fij,wj->wi", rotations, HELD)
    held /= np.maximum(np.linalg.norm(held, axis=1, keepdims=True), np.finfo(float).tiny)
    tried = np.concatenate([held, normals[:: max(1, len(normals) // CANDIDATES)]])
    score = _facing(tried, normals) * _held_share(tried, rotations)
    best = int(score.argmax())
    if score[best] == 0:  # no surfaces at all: people hold cameras upright
        return Up(held[0], 1.0)
    other = score[tried @ tried[best] < np.cos(np.deg2rad(OTHER_DEG))].max(initial=0)
    return Up(_narrowed(tried[best], normals), float(score[best] / other) if other else np.inf)


def _facing(directions: np.ndarray, normals: np.ndarray) -> np.ndarray:
    """Share of the surfaces that face each direction [n, 3]: [n]."""
    some = normals[:: max(1, len(normals) // NORMALS_COUNTED)]
    if not len(some):
        return np.zeros(len(directions))
    return (directions @ some.T > np.cos(np.deg2rad(SAME_WAY_DEG))).mean(1)


def _held_share(directions: np.ndarray, rotations: np.ndarray) -> np.ndarray:
    """How well each direction [n, 3] is up for cameras [f, 3, 3] as people hold them, 0 to 1: [n]."""
    in_camera = np.einsum("fij,ni->nfj", rotations, directions)
    along = np.maximum(in_camera @ HELD.T, 0) ** 2
    return (along * HELD_WEIGHT).max(-1).mean(1)


def _narrowed(up: np.ndarray, normals: np.ndarray) -> np.ndarray:
    """Mean of the normals near a direction, in narrowing cones."""
    for cone in CONES_DEG:
        near = normals[normals @ up > np.cos(np.deg2rad(cone))]
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
