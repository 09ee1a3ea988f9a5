"""What the views of scenes say -> the scene tokens of samples.

Legend: n samples, U scenes of theirs, V views, P patches, M scene tokens, D their width.
"""

from __future__ import annotations

import torch
from torch import Tensor

from poma3d.seen import voxels
from poma3d.seen.config import PATCHES, VOXELS, SceneTokensConfig


def arranged(
    config: SceneTokensConfig,
    features_U: Tensor,
    row_n: Tensor,
    seen_nV: Tensor,
    cells: Tensor | None,
    positions: Tensor | None,
) -> Tensor:
    """Tokens [n, M, D] in the dtype of the features; those that a sample has come first.

    Args:
        features_U: [U, V, D] of views, or [U, V, P, D] of patches.
        row_n: int64, which of the U scenes a sample is about.
        seen_nV: bool, the views that it sees.
        cells: of voxels, int64 [n, V * P]: the cell of each patch, -1 for none.
        positions: of voxels, float32 [n, M, 3]: metres in the agent's frame.
    """
    kind = config.tokens
    if kind == VOXELS:
        assert cells is not None
        assert positions is not None
        tokens_nKD = features_U.flatten(1, 2)[row_n]
        pooled_nMD = voxels.pool(tokens_nKD, cells, positions.shape[1])
        return pooled_nMD + waves(config, positions, pooled_nMD.shape[-1]).to(features_U.dtype)
    flat_nMD = features_U[row_n]
    if kind == PATCHES:
        flat_nMD = flat_nMD.flatten(1, 2)
    order_nM = seen_nV.repeat_interleave(flat_nMD.shape[1] // seen_nV.shape[1], dim=1)
    first_nM = torch.argsort((~order_nM).to(torch.int8), dim=1, stable=True)
    return flat_nMD.gather(1, first_nM[..., None].expand_as(flat_nMD))


def waves(config: SceneTokensConfig, positions_nM3: Tensor, width: int) -> Tensor:
    """Positions in metres as sines, float32 [n, M, D]."""
    return voxels.sines(positions_nM3, width, config.shortest_wave_m, config.longest_wave_m)
