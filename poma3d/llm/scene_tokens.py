"""What the views of scenes say -> the scene tokens of samples, and these in the rows of text.

Legend: n samples, U scenes of theirs, V views, P patches, M scene tokens, D their width, R rows of L places,
Q places of scene tokens, W width of the language model.
"""

from __future__ import annotations

import torch
from torch import Tensor

from poma3d.llm import voxels
from poma3d.llm.config import PATCHES, VOXELS, SceneTokensConfig


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
        waves_nMD = voxels.sines(
            positions, pooled_nMD.shape[-1], config.shortest_wave_m, config.longest_wave_m
        )
        return pooled_nMD + waves_nMD.to(features_U.dtype)
    flat_nMD = features_U[row_n]
    if kind == PATCHES:
        flat_nMD = flat_nMD.flatten(1, 2)
    order_nM = seen_nV.repeat_interleave(flat_nMD.shape[1] // seen_nV.shape[1], dim=1)
    first_nM = torch.argsort((~order_nM).to(torch.int8), dim=1, stable=True)
    return flat_nMD.gather(1, first_nM[..., None].expand_as(flat_nMD))


def placed(embeds_RLW: Tensor, scene_QW: Tensor, scene_at: Tensor) -> Tensor:
    """The rows with scene tokens at their places of the flattened rows, int64 [Q]."""
    return embeds_RLW.flatten(0, 1).index_copy(0, scene_at, scene_QW).view(embeds_RLW.shape)
