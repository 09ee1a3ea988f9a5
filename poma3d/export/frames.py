"""Recorded frames, given as arrays, on an encoder's grid: the way of `poma ingest`, without files.

Legend: V frames, h w pixels of their depth maps, H W of the encoder's grid.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from poma3d.export.arrays import Array
from poma3d.geometry import rotation_to_z_up
from poma3d.sample import MILLIMETRE
from poma3d.scenes.checks import check_frame
from poma3d.scenes.colour import cut_to_colour, picture_on_grid
from poma3d.scenes.config import ViewConfig
from poma3d.scenes.frame import BadFrame, ColourCamera, Frame
from poma3d.scenes.orientation import estimate_up, turned, upright_turns
from poma3d.scenes.views import resize_colour, to_grid

FARTHEST_MEDIAN_M = 100.0
"""Depth maps with a median beyond this are in other units: rooms have a few metres, millimetres thousands."""
MOST = np.iinfo(np.uint16).max
NAMED = 3
"""Frames that an error lists."""


@dataclass(frozen=True)
class GridFrames:
    """Frames on an encoder's grid, their world z-up."""

    views: list[Frame]
    depth_scale: float
    """Metres per unit of their depth."""
    pictures: list[np.ndarray] | None = None
    """uint8 [H, W, 3]: what each view shows, in colour; None where no pictures were given."""

    def arrays(self) -> tuple[np.ndarray, float, np.ndarray, np.ndarray]:
        """What `points_of_depth` takes: depth uint16 [1, V, H, W], metres per unit, intrinsics float32
        [1, V, 4], pose float32 [1, V, 3, 4]."""
        return (
            np.stack([frame.depth for frame in self.views])[None],
            self.depth_scale,
            np.stack([frame.intrinsics for frame in self.views]).astype(np.float32)[None],
            np.stack([frame.pose for frame in self.views]).astype(np.float32)[None],
        )


def on_grid(
    depth: Array | Sequence[Array],
    intrinsics: Array,
    poses: Array | Sequence[Array],
    size: tuple[int, int],
    colour: ColourCamera | None = None,
    up: Array | Sequence[float] | None = None,
    depth_scale: float | None = None,
    pictures: Array | Sequence[Array] | None = None,
) -> GridFrames:
    """The frames of one scan on a grid; see `SceneEncoder.from_frames` for the arguments.

    Args:
        size: (H, W) of the grid.
        pictures: uint8 [V, any, any, 3] or V pictures, that show what the depth maps show, in any resolution,
            or what `colour` saw.

    Raises:
        ValueError: frames that cannot be used, with their numbers and reasons.
    """
    if colour is not None and not isinstance(colour, ColourCamera):
        raise ValueError(
            f"colour is a {type(colour).__name__}, expected the camera of the pictures "
            "(poma3d.scenes.frame.ColourCamera): the encoder reads geometry alone"
        )
    maps, scale = _depth(depth, depth_scale)
    cameras, motions = _intrinsics(intrinsics, len(maps)), _poses(poses, len(maps))
    frames = [
        Frame(str(i), one, camera, pose, picture, colour_camera=colour)
        for i, (one, camera, pose, picture) in enumerate(
            zip(maps, cameras, motions, _pictures(pictures, len(maps)), strict=True)
        )
    ]
    _refuse(frames, scale, cut=False)  # before anything is estimated from them
    if up is None:
        found = estimate_up(frames, scale)
        if not found.is_sure:
            warnings.warn(
                "which way is up was estimated and is not sure: give up=[x, y, z], or more frames",
                stacklevel=3,
            )
        direction = found.direction
    else:
        direction = _numpy(up).astype(np.float64)
        if direction.shape != (3,):
            raise ValueError(f"up is {list(direction.shape)}, expected [3], such as [0, -1, 0] for y down")
    level = rotation_to_z_up(direction)
    for frame in frames:
        frame.pose = level @ frame.pose
    turns = upright_turns([frame.pose for frame in frames])
    frames = [turned(frame, n) for frame, n in zip(frames, turns, strict=True)]
    cut = _refuse(frames, scale, cut=True)
    views = [to_grid(frame, *size) for frame in cut]
    if pictures is None:
        return GridFrames(views, scale)
    shapes = [(frame.depth.shape[0], frame.depth.shape[1]) for frame in cut]
    return GridFrames(views, scale, [_colour(*one, scale) for one in zip(views, shapes, strict=True)])


def _colour(view: Frame, source_hw: tuple[int, int], depth_scale: float) -> np.ndarray:
    """uint8 [H, W, 3] of a view that has a picture.

    Raises:
        ValueError: a picture of another shape, with the view's number.
    """
    try:
        picture = picture_on_grid(view, source_hw, depth_scale)
    except BadFrame as reason:
        raise ValueError(f"frame {view.frame_id}: {reason}. Give the picture that belongs to it") from None
    assert picture is not None, "pictures were given"
    return resize_colour(picture, *view.depth.shape)


def _pictures(pictures: Array | Sequence[Array] | None, frames: int) -> list[np.ndarray | None]:
    """A picture uint8 [any, any, 3] for each frame, or none for all.

    Raises:
        ValueError: another number of them, another shape or dtype.
    """
    if pictures is None:
        return [None] * frames
    found = [_numpy(one) for one in pictures]
    if len(found) != frames:
        raise ValueError(f"rgb has {len(found)} pictures, depth has {frames} maps: give one for each")
    for number, one in enumerate(found):
        if one.ndim != 3 or one.shape[-1] != 3 or one.dtype != np.uint8 or one.size == 0:
            raise ValueError(
                f"rgb: picture {number} is {one.dtype} {list(one.shape)}, expected uint8 [h, w, 3]"
            )
    return list(found)


def _refuse(frames: Sequence[Frame], depth_scale: float, cut: bool) -> list[Frame]:
    """The frames, cut to their pictures if asked.

    Raises:
        ValueError: naming those that ingest would leave out.
    """
    kept, bad = [], []
    for frame in frames:
        try:
            check_frame(frame, ViewConfig())
            kept.append(cut_to_colour(frame, depth_scale) if cut else frame)
        except BadFrame as reason:
            bad.append(f"frame {frame.frame_id}: {reason}")
    if bad:
        more = f"; and {len(bad) - NAMED} more" if len(bad) > NAMED else ""
        raise ValueError(
            f"{len(bad)} of {len(frames)} frames cannot be used: {'; '.join(bad[:NAMED])}{more}. "
            "Leave them out, or give what belongs to them"
        )
    return kept


def _numpy(array: Array | Sequence[float] | Sequence[Array]) -> np.ndarray:
    """The array as NumPy has it, from any device."""
    if isinstance(array, torch.Tensor):
        return array.detach().cpu().numpy()
    if isinstance(array, np.ndarray):
        return array
    return np.stack(
        [_numpy(one) if isinstance(one, np.ndarray | torch.Tensor) else np.asarray(one) for one in array]
    )


def _depth(depth: Array | Sequence[Array], depth_scale: float | None) -> tuple[list[np.ndarray], float]:
    """Depth maps uint16 [h, w], and the metres of their unit.

    Raises:
        ValueError: another shape or dtype, or values that cannot be metres.
    """
    maps = [_numpy(one) for one in depth]
    if not maps:
        raise ValueError("depth holds no frame")
    wrong = [one for one in maps if one.ndim != 2 or one.dtype.kind not in "iuf" or one.size == 0]
    if wrong:
        raise ValueError(
            f"depth has a map of {wrong[0].dtype} {list(wrong[0].shape)}, expected [V, h, w] of one scan: "
            "integers in millimetres or floats in metres"
        )
    if all(one.dtype.kind in "iu" and _fits(one) for one in maps):
        known = [np.where(one == MOST, 0, one).astype(np.uint16) for one in maps]
        return known, MILLIMETRE if depth_scale is None else depth_scale
    if any(one.dtype.kind in "iu" for one in maps):
        worst = next(one for one in maps if one.dtype.kind in "iu")
        raise ValueError(
            f"depth is {worst.dtype} from {worst.min()} to {worst.max()}: expected integers from 0 to "
            f"{MOST}, 0 = none, in all maps; or give metres as float32"
        )
    return [_millimetres(one, 1.0 if depth_scale is None else depth_scale) for one in maps], MILLIMETRE


def _fits(depth: np.ndarray) -> bool:
    return bool(depth.min() >= 0) and bool(depth.max() <= MOST)


def _millimetres(depth: np.ndarray, depth_scale: float) -> np.ndarray:
    """Float depth as uint16 millimetres; 0 for what is not finite, not positive, or beyond 65.5 m."""
    metres = depth.astype(np.float64) * depth_scale
    known = np.isfinite(metres) & (metres > 0)
    if known.any() and (middle := float(np.median(metres[known]))) > FARTHEST_MEDIAN_M:
        raise ValueError(
            f"depth has a median of {middle:.4g} m: floats are metres; for millimetres give depth_scale=0.001"
        )
    rounded = np.rint(np.where(known, metres, 0.0) / MILLIMETRE)
    return np.where(rounded > MOST, 0, rounded).astype(np.uint16)


def _intrinsics(intrinsics: Array, frames: int) -> np.ndarray:
    """float64 [V, 4].

    Raises:
        ValueError: another shape.
    """
    found = _numpy(intrinsics).astype(np.float64)
    if found.shape[-2:] == (3, 3):
        found = np.stack([found[..., 0, 0], found[..., 1, 1], found[..., 0, 2], found[..., 1, 2]], axis=-1)
    if found.shape not in ((4,), (frames, 4)):
        raise ValueError(
            f"intrinsics are {list(_numpy(intrinsics).shape)}, expected [4] (fx, fy, cx, cy), a matrix "
            f"[3, 3], or one of them for each of {frames} frames"
        )
    return np.broadcast_to(found, (frames, 4)).copy()


def _poses(poses: Array | Sequence[Array], frames: int) -> np.ndarray:
    """float64 [V, 3, 4].

    Raises:
        ValueError: another shape, or a last row that is none of a rigid motion.
    """
    found = _numpy(poses).astype(np.float64)
    if found.shape not in ((frames, 3, 4), (frames, 4, 4)):
        raise ValueError(f"poses are {list(found.shape)}, expected [{frames}, 3, 4] or [{frames}, 4, 4]")
    if found.shape[1] == 4 and not np.allclose(found[:, 3], [0, 0, 0, 1]):
        raise ValueError("poses do not end in a row of 0, 0, 0, 1: give camera -> world, not transposed")
    return found[:, :3]
