"""Patches of many views in common cells of space, and where these lie for somebody who stands in the scene.

    point map [V, H, W, 3] -> the mean point of each patch [V, P, 3] -> cells of `cell_m` -> at most M of them

Cells are those of the world frame, so they depend on the scene alone; what the agent's pose turns is the
position of each cell.

Legend: V views, H W pixels, P patches, M cells, D width.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

AXES = 3


class PatchPoints(NamedTuple):
    """Where the patches of a scene are."""

    points: np.ndarray
    """float32 [V, P, 3], metres: the mean of a patch's points."""
    valid: np.ndarray
    """bool [V, P]: whether it has any."""


class Cells(NamedTuple):
    """Cells of a scene, by their place in space."""

    of_patch: np.ndarray
    """int64 [V * P]: the cell of each patch, -1 for those in none."""
    positions: np.ndarray
    """float32 [M, 3], metres: the mean of the cell's patches."""


def patch_side(height: int, width: int, patches: int) -> int:
    """Pixels along the edge of one of `patches` square patches of a view; 0 where it does not fall into so
    many."""
    side = math.isqrt(height * width // patches)
    fits = side and side * side * patches == height * width and not height % side and not width % side
    return side if fits else 0


def patch_points(points_VHW3: Tensor, patches: int) -> PatchPoints:
    """The mean point of each of `patches` square patches of a view.

    Raises:
        ValueError: views that do not fall into so many squares.
    """
    height, width = points_VHW3.shape[1:3]
    side = patch_side(height, width, patches)
    if not side:
        raise ValueError(f"views of {height} x {width} pixels have no {patches} square patches")
    grid = points_VHW3.float().unflatten(2, (-1, side)).unflatten(1, (-1, side)).transpose(2, 3)
    flat_VPk3 = grid.reshape(len(points_VHW3), patches, side * side, AXES)
    valid_VPk1 = (flat_VPk3 != 0).any(dim=-1, keepdim=True)
    count_VP1 = valid_VPk1.sum(dim=2)
    mean_VP3 = (flat_VPk3 * valid_VPk1).sum(dim=2) / count_VP1.clamp(min=1)
    return PatchPoints(mean_VP3.numpy(), (count_VP1[..., 0] > 0).numpy())


def cells(places: PatchPoints, seen_V: np.ndarray, cell_m: float, most: int) -> Cells:
    """Put patches in cells; of too many, those with the most patches are kept.

    Args:
        seen_V: bool, which views count.
    """
    chosen = (places.valid & seen_V[:, None]).reshape(-1)
    of_patch = np.full(len(chosen), -1, np.int64)
    points = places.points.reshape(-1, AXES)[chosen]
    if not len(points):
        return Cells(of_patch, np.zeros((0, AXES), np.float32))
    index = np.floor(points / np.float32(cell_m)).astype(np.int64)
    _, inverse, counts = np.unique(index, axis=0, return_inverse=True, return_counts=True)
    inverse = inverse.reshape(-1)
    kept = np.sort(np.argsort(-counts, kind="stable")[:most])
    number = np.full(len(counts), -1, np.int64)
    number[kept] = np.arange(len(kept))
    of_patch[chosen] = number[inverse]
    sums = np.zeros((len(counts), AXES), np.float64)
    np.add.at(sums, inverse, points.astype(np.float64))
    return Cells(of_patch, (sums[kept] / counts[kept, None]).astype(np.float32))


def pool(tokens_nKD: Tensor, cell_nK: Tensor, count: int) -> Tensor:
    """The mean token of each cell, [n, M, D].

    As a product of matrices, which adds in the same order every time also on a GPU.

    Args:
        cell_nK: the cell of each of K patches, -1 for none.
        count: M, cells of the sample that has most; a sample with fewer gets zeros.
    """
    numbers_M = torch.arange(count, device=cell_nK.device)
    member_nMK = (cell_nK[:, None, :] == numbers_M[None, :, None]).to(tokens_nKD.dtype)
    size_nM1 = member_nMK.float().sum(dim=2, keepdim=True).clamp(min=1)
    pooled: Tensor = (member_nMK @ tokens_nKD) / size_nM1.to(tokens_nKD.dtype)
    return pooled


def sines(positions_nM3: Tensor, width: int, shortest_m: float, longest_m: float) -> Tensor:
    """Positions in metres as sines and cosines of waves from short to long, float32 [n, M, D].

    Each axis has D / 6 waves, at least one; what is left of D is 0.

    Raises:
        ValueError: a width that does not hold a wave for each axis.
    """
    waves = width // (2 * AXES)
    if waves < 1:
        raise ValueError(f"tokens of width {width} hold no position: it takes {2 * AXES} or more")
    lengths = torch.logspace(math.log10(shortest_m), math.log10(longest_m), waves, dtype=torch.float64)
    factors = (2 * math.pi / lengths).float().to(positions_nM3.device)
    angles = (positions_nM3.float()[..., None] * factors).flatten(-2)
    found = torch.cat([angles.sin(), angles.cos()], dim=-1)
    return torch.nn.functional.pad(found, (0, width - found.shape[-1]))


def in_agent_frame(positions: np.ndarray, agent: np.ndarray) -> np.ndarray:
    """Positions [M, 3] of the world as somebody sees them; `agent` [3, 4] takes world to agent."""
    turned: np.ndarray = (positions @ agent[:, :AXES].T + agent[:, AXES]).astype(np.float32)
    return turned
