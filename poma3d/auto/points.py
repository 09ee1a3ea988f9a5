"""Points that are there already, on an encoder's grid.

Legend: B scenes, V views, h w pixels as given, H W of the grid.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from poma3d.export.arrays import Array, as_tensor
from poma3d.geometry import nearest_indices, rotation_to_z_up, same_view
from poma3d.scenes.views import resize_colour

WIDEST_MEDIAN_M = 100.0
"""Points whose median distance from their middle is more are in other units: rooms have a few metres,
millimetres thousands."""


def on_grid(
    xyz: Array,
    rgb: Array | Sequence[Array] | None,
    up: Array | Sequence[float] | None,
    size: tuple[int, int],
) -> tuple[Tensor, Tensor | None]:
    """Point maps float32 [B, V, H, W, 3] and pictures uint8 [B, V, H, W, 3], None where none are given.

    Args:
        xyz: see `Poma3dProcessor.__call__`, as the others.
        size: (H, W).

    Raises:
        ValueError: another shape or dtype, or coordinates that cannot be metres.
    """
    points = as_tensor("xyz", xyz)
    if points.ndim == 4:
        points = points[None]
    if points.ndim != 5 or points.shape[-1] != 3 or 0 in points.shape:
        raise ValueError(f"xyz is {list(points.shape)}, expected [V, h, w, 3] or [B, V, h, w, 3]")
    if not points.is_floating_point():
        raise ValueError(f"xyz is {points.dtype}, expected floating-point metres")
    points = _nearest(points.double(), size)
    there = points.isfinite().all(-1) & (points != 0).any(-1)
    _refuse_units(points[there])
    if up is not None:
        direction = np.asarray(up, np.float64) if not isinstance(up, Tensor) else up.double().cpu().numpy()
        if direction.shape != (3,):
            raise ValueError(f"up is {list(direction.shape)}, expected [3], such as [0, -1, 0] for y down")
        points = points @ torch.from_numpy(rotation_to_z_up(direction)).T
    made = torch.where(there[..., None], points, 0.0).float()
    given = as_tensor("xyz", xyz).shape
    return made, None if rgb is None else _pictures(rgb, (*made.shape[:2], *given[-3:-1]), size)


def _nearest(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """Maps [B, V, h, w, 3] on a grid, as depth goes there: no value is made up at an edge."""
    rows, columns = (
        torch.from_numpy(nearest_indices(source, target))
        for source, target in zip(maps.shape[2:4], size, strict=True)
    )
    return maps[:, :, rows[:, None], columns]


def _refuse_units(points: Tensor) -> None:
    """Refuse points [n, 3] that cannot be a room's in metres.

    Raises:
        ValueError: none at all, or too far apart.
    """
    if not len(points):
        raise ValueError("xyz holds no point: all are (0, 0, 0) or not finite")
    middle = points.median(0).values
    away = float((points - middle).norm(dim=-1).median())
    if away > WIDEST_MEDIAN_M:
        raise ValueError(
            f"xyz has points {away:.4g} m from their middle, by the median: give metres (millimetres * 0.001)"
        )


def _pictures(
    rgb: Array | Sequence[Array], expected: tuple[int, int, int, int], size: tuple[int, int]
) -> Tensor:
    """uint8 [B, V, H, W, 3].

    Args:
        expected: B, V, h, w of the points.

    Raises:
        ValueError: another number of pictures, another shape or dtype.
    """
    scenes, views, height, width = expected
    found = [one for scene in rgb for one in scene] if np.ndim(rgb[0]) == 4 else list(rgb)
    arrays = [one.cpu().numpy() if isinstance(one, Tensor) else np.asarray(one) for one in found]
    if len(arrays) != scenes * views:
        raise ValueError(f"rgb has {len(arrays)} pictures, xyz has {scenes * views} views: give one for each")
    for number, one in enumerate(arrays):
        if one.ndim != 3 or one.shape[-1] != 3 or one.dtype != np.uint8 or one.size == 0:
            raise ValueError(
                f"rgb: picture {number} is {one.dtype} {list(one.shape)}, expected uint8 [h, w, 3]"
            )
        if not same_view(one.shape[:2], (height, width), None):
            raise ValueError(
                f"rgb: picture {number} is {one.shape[1]} x {one.shape[0]}, its points are {width} x "
                f"{height}: give the picture of the same view"
            )
    resized = np.stack([resize_colour(np.ascontiguousarray(one), *size) for one in arrays])
    return torch.from_numpy(resized).unflatten(0, (scenes, views))
