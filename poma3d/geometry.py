"""Cameras, depth and point maps.

Conventions, used everywhere: the camera looks along +z with x to the right and y down; pixel (u, v)
is column u, row v and its *centre* has integer coordinates; a pose [3, 4] takes camera to world;
the world is z-up, in metres; intrinsics are (fx, fy, cx, cy) in pixels. Depth 0 means "no depth".

Legend, also of the suffixes of tensors, which leave out the leading dimensions (batch, views): H W pixels of
the grid, N points.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

UINT16_BITS = 0xFFFF
SAME_ASPECT = 0.02
"""Sizes are rounded to whole pixels (ScanNet's 1296 x 968 differs from 640 x 480 by 0.4 %); what differs by
more was cropped, or lies on its side."""
OPENGL = np.array([1.0, -1.0, -1.0, 1.0])
"""Factors of a pose's columns between a camera with OpenGL's axes and one with ours."""
OPPOSITE = 1e-12  # 1 + cosine below this: two directions are opposite and their cross product is noise


def unproject(
    depth: Tensor,
    depth_scale: Tensor | float,
    intrinsics: Tensor,
    pose: Tensor,
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """Point map of a depth map: the world coordinates of what each pixel sees.

    Args:
        depth: [..., H, W] in units of `depth_scale`, 0 = none. float, int32, uint16, or int16, which
            is read as the *bits* of uint16 (how such tensors travel, see `as_metres`).
        depth_scale: metres per unit, broadcastable to the leading dimensions [...] (a batch's [B] with
            depth [B, V, H, W] is `depth_scale[:, None]`).
        intrinsics: [..., 4].
        pose: [..., 3, 4] camera -> world.
        dtype: of the result; the arithmetic is at least float32.

    Returns:
        [..., H, W, 3] metres; exactly (0, 0, 0) where there is no depth.
    """
    compute = torch.promote_types(intrinsics.dtype, torch.float32)
    metres_HW = as_metres(depth, depth_scale, compute)
    fx, fy, cx, cy = (k[..., None] for k in intrinsics.to(compute).unbind(-1))
    rotation_33, translation_3 = pose[..., :3].to(compute), pose[..., 3].to(compute)
    # A ray is affine in (u, v): three vectors per view instead of a matrix product per pixel. Written
    # without matmul, so that autocast leaves it in full precision.
    per_u_3 = rotation_33[..., 0] / fx
    per_v_3 = rotation_33[..., 1] / fy
    origin_3 = rotation_33[..., 2] - per_u_3 * cx - per_v_3 * cy
    height, width = depth.shape[-2:]
    u_W = torch.arange(width, device=depth.device, dtype=compute)
    v_H = torch.arange(height, device=depth.device, dtype=compute)
    along_row_W3 = origin_3[..., None, :] + u_W[:, None] * per_u_3[..., None, :]
    down_column_H3 = v_H[:, None] * per_v_3[..., None, :]
    rays_HW3 = along_row_W3[..., None, :, :] + down_column_H3[..., :, None, :]
    points_HW3 = metres_HW[..., None] * rays_HW3
    points_HW3 += translation_3[..., None, None, :]
    return points_HW3.masked_fill_((metres_HW <= 0)[..., None], 0.0).to(dtype)


def as_metres(depth: Tensor, depth_scale: Tensor | float, dtype: torch.dtype = torch.float32) -> Tensor:
    """Depth [..., H, W] as floating metres; what is not finite or not positive becomes 0.

    int16 is taken as the bit pattern of uint16, so that units beyond 32767 survive: torch has few
    kernels for uint16, and tensors are handed around as a view.
    """
    if depth.dtype is torch.uint16:
        depth = depth.view(torch.int16)
    if depth.dtype is torch.int16:
        depth = depth.to(torch.int32) & UINT16_BITS
    scale = torch.as_tensor(depth_scale, dtype=dtype, device=depth.device)[..., None, None]
    metres = depth.to(dtype) * scale
    return torch.where((metres > 0) & torch.isfinite(metres), metres, 0.0)


def project(points: np.ndarray, intrinsics: np.ndarray, pose: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Pixels and depths of world points in one camera.

    Args:
        points: [..., 3] metres.
        intrinsics: [4].
        pose: [3, 4] camera -> world.

    Returns:
        pixels [..., 2] as (u, v), NaN for points that are not in front of the camera; depth [...] in
        metres along the optical axis (negative behind the camera).
    """
    local = (np.asarray(points, np.float64) - pose[:, 3]) @ pose[:, :3]
    z = local[..., 2]
    with np.errstate(divide="ignore", invalid="ignore"):
        pixels = local[..., :2] / np.where(z > 0, z, np.nan)[..., None]
    return pixels * intrinsics[:2] + intrinsics[2:], z


def nearest_indices(source: int, target: int) -> np.ndarray:
    """Which of `source` samples each of `target` samples takes: the one under its centre, int64 [target]."""
    return ((2 * np.arange(target) + 1) * source) // (2 * target)


def resize_depth_nearest(depth: np.ndarray, height: int, width: int) -> np.ndarray:
    """Depth [h, w] on a grid [height, width] by nearest neighbour: no value is made up at an edge."""
    rows, columns = nearest_indices(depth.shape[0], height), nearest_indices(depth.shape[1], width)
    return np.ascontiguousarray(depth[rows[:, None], columns])


def scale_intrinsics(intrinsics: np.ndarray, from_hw: tuple[int, int], to_hw: tuple[int, int]) -> np.ndarray:
    """Intrinsics [4] float64 that belong to `resize_depth_nearest` from `from_hw` to `to_hw`.

    A nearest-neighbour pixel carries the ray of the source pixel it was taken from. Those lie, on
    average over the grid, not always where the resized grid's centres are (for a factor of 2, half a
    source pixel beside them), so the principal point is shifted by that mean: the remaining error of
    a pixel is at most about half a source pixel and has mean zero.
    """
    fx, fy, cx, cy = (float(k) for k in intrinsics)
    (height, width), (new_height, new_width) = from_hw, to_hw
    fx, cx = _scale_axis(fx, cx, width, new_width)
    fy, cy = _scale_axis(fy, cy, height, new_height)
    return np.array([fx, fy, cx, cy])


def from_opengl(pose: np.ndarray) -> np.ndarray:
    """A pose [3 or 4, 4] camera -> world of a camera with OpenGL's axes (y up, z backwards), for one with
    ours (y down, z ahead); and the other way round."""
    return pose * OPENGL


def off_centre(intrinsics: np.ndarray, hw: tuple[int, int]) -> float:
    """How far the principal point lies from the middle of pictures of a size (h, w), as a share of the side.

    The cheapest check that intrinsics belong to pictures of a size: cameras have up to 0.08 (Azure Kinect);
    intrinsics of pictures of half or double the size have 0.25 and 0.5.
    """
    height, width = hw
    across = (float(intrinsics[2]) - (width - 1) / 2) / width
    down = (float(intrinsics[3]) - (height - 1) / 2) / height
    return max(abs(across), abs(down))


def same_view(picture_hw: tuple[int, int], depth_hw: tuple[int, int], intrinsics: np.ndarray | None) -> bool:
    """Whether a picture can show just what a depth map shows, by their shapes.

    Their grids have one aspect, or the picture has the aspect of the view itself: 3RScan's depth maps of
    224 x 172 have pixels that are not square and show what its pictures of 960 x 540 show.

    Args:
        intrinsics: fx, fy (and more) of the depth map; None where it has no camera.
    """
    (height, width), (rows, columns) = picture_hw, depth_hw
    aspects = [columns / rows]
    if intrinsics is not None:
        aspects.append(columns / rows * float(intrinsics[1] / intrinsics[0]))
    return any(abs(width / height / aspect - 1) <= SAME_ASPECT for aspect in aspects)


def _scale_axis(focal: float, centre: float, source: int, target: int) -> tuple[float, float]:
    factor = source / target
    # source index ~ factor * target index + offset, with the offset that makes the mean error zero
    offset = float(np.mean(nearest_indices(source, target) - factor * np.arange(target)))
    return focal / factor, (centre - offset) / factor


def rotation_to_z_up(up: np.ndarray) -> np.ndarray:
    """The smallest rotation [3, 3] that takes the direction `up` to +z.

    For a camera-like world, y down, `up` is (0, -1, 0) and the result maps (x, y, z) to (x, z, -y).

    Raises:
        ValueError: `up` has no direction.
    """
    length = np.linalg.norm(up)
    if not np.isfinite(length) or length == 0:
        raise ValueError(
            f"the up direction {list(up)} has no direction; give a non-zero vector such as [0, -1, 0]"
        )
    x, y, z = np.asarray(up, np.float64) / length
    if 1 + z < OPPOSITE:
        return np.diag([1.0, -1.0, -1.0])
    # Rodrigues' formula for the axis up x z = (y, -x, 0) and cosine z, both known in closed form.
    cross = np.array([[0, 0, -x], [0, 0, -y], [x, y, 0.0]])
    return np.eye(3) + cross + cross @ cross / (1 + z)


@dataclass(frozen=True)
class Agreement:
    """How two views agree about the surfaces they share (`agreement`)."""

    overlap: float
    """Share of the first view's points that the second view sees."""
    median_m: float
    """Median of |depth of the point in the second view - depth stored there|, metres; NaN without overlap."""


def agreement(
    points: np.ndarray,
    depth_m: np.ndarray,
    intrinsics: np.ndarray,
    pose: np.ndarray,
    hidden_m: float = 0.1,
) -> Agreement:
    """Project one view's point map into another view and compare depths.

    A point that lies farther away than what the second view saw there is hidden from it and does not
    count. A point that lies nearer should have been seen and always counts in full, so a wrong pose
    cannot hide.

    Args:
        points: [H, W, 3] point map of the first view, (0, 0, 0) where it has none.
        depth_m: [h, w] depth of the second view in metres, 0 where it has none.
        intrinsics: [4] of the second view.
        pose: [3, 4] of the second view.
        hidden_m: how much farther away a point must be to count as hidden.
    """
    valid = points.reshape(-1, 3)
    valid = valid[np.any(valid != 0, axis=-1)]
    if len(valid) == 0:
        return Agreement(0.0, float("nan"))
    pixels, z = project(valid, intrinsics, pose)
    height, width = depth_m.shape
    columns, rows = np.rint(np.clip(np.nan_to_num(pixels, nan=-1.0), -1, max(depth_m.shape))).astype(int).T
    inside = (z > 0) & (columns >= 0) & (columns < width) & (rows >= 0) & (rows < height)
    seen = depth_m[rows[inside], columns[inside]]
    farther = (z[inside] - seen)[seen > 0]
    difference = np.abs(farther[farther <= hidden_m])
    median = float(np.median(difference)) if len(difference) else float("nan")
    return Agreement(len(difference) / len(valid), median)
