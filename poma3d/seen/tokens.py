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
        pooled_nMD, waves_nMD = placed_cells(config, features_U, row_n, cells, positions)
        return pooled_nMD + waves_nMD
    flat_nMD = features_U[row_n]
    if kind == PATCHES:
        flat_nMD = flat_nMD.flatten(1, 2)
    order_nM = seen_nV.repeat_interleave(flat_nMD.shape[1] // seen_nV.shape[1], dim=1)
    first_nM = torch.argsort((~order_nM).to(torch.int8), dim=1, stable=True)
    return flat_nMD.gather(1, first_nM[..., None].expand_as(flat_nMD))


def placed_cells(
    config: SceneTokensConfig, patches_UVPD: Tensor, row_n: Tensor, cell_nK: Tensor, positions_nM3: Tensor
) -> tuple[Tensor, Tensor]:
    """The mean token of each cell and the sines of its position, both [n, M, D] in the dtype of the tokens.

    Args:
        row_n: int64, which of the U scenes a sample is about.
        cell_nK: int64, the cell of each of the V * P patches, -1 for none.
        positions_nM3: metres in the agent's frame.
    """
    tokens_nKD = patches_UVPD.flatten(1, 2)[row_n]
    pooled_nMD = voxels.pool(tokens_nKD, cell_nK, positions_nM3.shape[1])
    waves_nMD = voxels.sines(
        positions_nM3, pooled_nMD.shape[-1], config.shortest_wave_m, config.longest_wave_m
    )
    return pooled_nMD, waves_nMD.to(patches_UVPD.dtype)
