"""A scene as one coloured point cloud and its cameras as pyramids, small enough to be looked at in a browser.

Legend: V views, H W pixels, M points of all views, N points that are kept.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

FINEST_M = 1e-3
"""No cell is smaller: what depth is stored in."""
HALVINGS = 24
"""Of the interval that holds the size of a cell; from 100 m to far below a millimetre."""
CLOSE_ENOUGH = 0.95
"""Share of the points asked for at which the search for a size ends."""
MOST_PER_KEPT = 16
"""Points per kept one that are looked at; of more, every k-th pixel, so that many views take no minutes."""
SMOOTHING_PX = 2
"""A normal comes from the differences over this many pixels to either side: sensors' depth is noisy."""
STEPS = 65535
"""Of a coordinate of 16 bits."""
CELLS_A_SIDE = 1 << 20
"""What three coordinates of a cell leave room for in 63 bits."""


@dataclass(frozen=True)
class Cloud:
    """Points in world coordinates with their colours, and which views see each."""

    points: np.ndarray
    """float32 [N, 3], metres."""
    rgb: np.ndarray
    """uint8 [N, 3]."""
    normals: np.ndarray
    """float32 [N, 3], unit vectors out of the surface, on the side it was seen from; zeros where unknown."""
    seen_by: np.ndarray
    """bool [N, V]."""
    spacing_m: float
    """Edge of the cells that were merged to one point each; 0 where none were."""


@dataclass(frozen=True)
class Quantised:
    """Points as 16-bit steps from a corner: point = origin + step * values."""

    origin: np.ndarray
    """float64 [3], metres."""
    step: float
    """Metres; the same for all axes."""
    values: np.ndarray
    """uint16 [N, 3]."""


def merge(points: np.ndarray, rgb: np.ndarray, most: int) -> Cloud:
    """The point maps of all views as one cloud of at most `most` points, evenly spread in space.

    Points of one cubic cell become their mean, in place and colour; the cell is the smallest that leaves no
    more than `most`. A scene of fewer points keeps them all.

    Args:
        points: float [V, H, W, 3] metres, (0, 0, 0) where there is none.
        rgb: uint8 [V, H, W, 3].
        most: 1 or more.

    Raises:
        ValueError: no view has a point, or one is not finite.
    """
    views = len(points)
    seen = points.any(axis=-1)
    xyz, colours, out = points[seen].astype(np.float64), rgb[seen], normals(points)[seen]
    view = np.broadcast_to(np.arange(views)[:, None, None], seen.shape)[seen]
    if len(xyz) == 0:
        raise ValueError("no view has a point: nothing to look at")
    if not np.isfinite(xyz).all():
        raise ValueError("the points hold NaN or infinity")
    stride = max(len(xyz) // (most * MOST_PER_KEPT), 1)
    xyz, colours, out, view = xyz[::stride], colours[::stride], out[::stride], view[::stride]
    if len(xyz) <= most:
        seen_by = np.zeros((len(xyz), views), bool)
        seen_by[np.arange(len(xyz)), view] = True
        return Cloud(xyz.astype(np.float32), colours, out, seen_by, 0.0)
    size = _cell_size(xyz, most)
    _, cell = np.unique(_keys(xyz, size), return_inverse=True)
    count = np.bincount(cell)
    seen_by = np.zeros((len(count), views), bool)
    seen_by[cell, view] = True
    mean_rgb = np.rint(_means(colours, cell, count)).astype(np.uint8)
    mean_normals = _unit(_means(out, cell, count))
    return Cloud(_means(xyz, cell, count).astype(np.float32), mean_rgb, mean_normals, seen_by, size)


def normals(points: np.ndarray) -> np.ndarray:
    """Unit normals of point maps [V, H, W, 3] on the side they were seen from: float32 [V, H, W, 3].

    Columns run to the right and rows down, so rows x columns points at the viewer. Zeros where a neighbour
    has no point.
    """
    step = SMOOTHING_PX
    out = np.zeros(points.shape, np.float32)
    if min(points.shape[1:3]) <= 2 * step:
        return out
    left, right = points[:, step:-step, : -2 * step], points[:, step:-step, 2 * step :]
    above, below = points[:, : -2 * step, step:-step], points[:, 2 * step :, step:-step]
    known = np.all([each.any(axis=-1) for each in (left, right, above, below)], axis=0)
    across = np.cross((below - above).astype(np.float64), (right - left).astype(np.float64))
    out[:, step:-step, step:-step] = _unit(np.where(known[..., None], across, 0.0))
    return out


def quantise(points: np.ndarray) -> Quantised:
    """Points [N, 3] in 16 bits a coordinate: a room of 10 m to 0.15 mm."""
    low = points.min(axis=0).astype(np.float64)
    extent = float((points.max(axis=0) - low).max())
    step = max(extent / STEPS, float(np.finfo(np.float32).tiny))
    return Quantised(low, step, np.rint((points - low) / step).clip(0, STEPS).astype(np.uint16))


def pyramids(intrinsics: np.ndarray, pose: np.ndarray, hw: tuple[int, int], depth_m: float) -> np.ndarray:
    """Each camera as a pyramid: its centre and the corners of its picture `depth_m` ahead.

    Args:
        intrinsics: [V, 4] of pictures of `hw`; the centre of a pixel has integer coordinates, so a picture
            reaches from -0.5 to W - 0.5.
        pose: [V, 3, 4] camera -> world.

    Returns:
        float64 [V, 5, 3] world coordinates: centre, upper left, upper right, lower right, lower left.
    """
    height, width = hw
    fx, fy, cx, cy = np.asarray(intrinsics, np.float64).T[:, :, None]
    u = np.array([0, width, width, 0]) - 0.5
    v = np.array([0, 0, height, height]) - 0.5
    rays = np.stack([(u - cx) / fx, (v - cy) / fy, np.ones((len(intrinsics), 4))], axis=-1)
    local = np.concatenate([np.zeros((len(intrinsics), 1, 3)), depth_m * rays], axis=1)
    pose = np.asarray(pose, np.float64)
    world: np.ndarray = local @ pose[:, :, :3].transpose(0, 2, 1) + pose[:, None, :, 3]
    return world


def _cell_size(xyz: np.ndarray, most: int) -> float:
    """The smallest edge, to `CLOSE_ENOUGH`, of cells of which at most `most` hold points."""
    extent = float(np.ptp(xyz, axis=0).max())
    low, high = max(FINEST_M, 2 * extent / CELLS_A_SIDE), max(4 * extent, 2 * FINEST_M)
    for _ in range(HALVINGS):
        middle = float(np.sqrt(low * high))
        filled = len(np.unique(_keys(xyz, middle)))
        if filled > most:
            low = middle
            continue
        high = middle
        if filled >= CLOSE_ENOUGH * most:
            break
    return high


def _keys(xyz: np.ndarray, size: float) -> np.ndarray:
    """int64 [M], a number for each cell."""
    cells = ((xyz - xyz.min(axis=0)) / size).astype(np.int64)
    keys: np.ndarray = (cells[:, 0] * CELLS_A_SIDE + cells[:, 1]) * CELLS_A_SIDE + cells[:, 2]
    return keys


def _unit(vectors: np.ndarray) -> np.ndarray:
    """float32, of unit length; zeros stay zeros."""
    length = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return (vectors / np.where(length > 0, length, 1.0)).astype(np.float32)


def _means(values: np.ndarray, cell: np.ndarray, count: np.ndarray) -> np.ndarray:
    return np.stack([np.bincount(cell, weights=column) for column in values.T], axis=1) / count[:, None]
