"""The predictor: from the context tokens of a view, the tokens of its hidden target blocks.

As in I-JEPA each block is predicted on its own (the mask tokens of one block do not see those of
another), at fixed 2-D sin-cos positions.

Legend, also of the suffixes of tensors: n views, K context patches, M target blocks, N patches of a block,
T = K + N tokens of a sequence, D encoder width, W predictor width, P patches.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from poma3d.network.config import PredictorConfig
from poma3d.network.vit import Block, Blocks

NORM_EPS = 1e-6
INIT_STD = 0.02
WAVELENGTH_BASE = 10_000.0


def validate(config: PredictorConfig) -> None:
    """Refuse sizes that do not divide.

    Raises:
        ValueError: naming the fields.
    """
    if config.layers < 1 or config.width % 4 or config.width % config.heads:
        raise ValueError(
            f"predictor.width {config.width} must be a multiple of 4 and of predictor.heads {config.heads}, "
            f"and predictor.layers {config.layers} at least 1"
        )


class Predictor(nn.Module):
    """Context tokens + places -> predicted tokens."""

    def __init__(
        self, config: PredictorConfig, encoder_width: int, grid: tuple[int, int], checkpointing: bool = False
    ) -> None:
        super().__init__()
        self.inward = nn.Linear(encoder_width, config.width)
        self.places = MaskTokens(config.width, grid)
        mlp_width = int(config.width * config.mlp_ratio)
        self.blocks = Blocks(
            [Block(config.width, config.heads, mlp_width, "gelu", NORM_EPS) for _ in range(config.layers)],
            checkpointing,
        )
        self.norm = nn.LayerNorm(config.width, eps=NORM_EPS)
        self.outward = nn.Linear(config.width, encoder_width)
        self.apply(_init)

    def forward(self, context_nKD: Tensor, context_nK: Tensor, target_nMN: Tensor) -> Tensor:
        """Predict every target block of every view.

        Args:
            context_nKD: tokens of the context.
            context_nK: int64, their patches.
            target_nMN: int64 patches of the targets.

        Returns:
            [n, M, N, D].
        """
        n, m, hidden = target_nMN.shape
        known_nKW, asked_nMNW = self.places(self.inward(context_nKD), context_nK, target_nMN)
        known_nMKW = known_nKW[:, None].expand(-1, m, -1, -1)
        tokens_rTW = torch.cat([known_nMKW, asked_nMNW], dim=2).flatten(0, 1)  # r = n * M sequences
        predicted_rNW = self.blocks(tokens_rTW)[:, -hidden:]
        return self.outward(self.norm(predicted_rNW)).unflatten(0, (n, m))


class MaskTokens(nn.Module):
    """Fixed positions, and the learned token that stands for a hidden patch."""

    position: Tensor

    def __init__(self, width: int, grid: tuple[int, int]) -> None:
        super().__init__()
        self.mask_token = nn.Parameter(torch.zeros(width))
        self.register_buffer("position", sin_cos_positions(width, grid), persistent=False)

    def forward(self, context_nKW: Tensor, context_nK: Tensor, target_nMN: Tensor) -> tuple[Tensor, Tensor]:
        """Context [n, K, W] with its positions added, and mask tokens [n, M, N, W] at theirs."""
        position_PW = self.position.to(context_nKW.dtype)
        return context_nKW + position_PW[context_nK], self.mask_token + position_PW[target_nMN]


def sin_cos_positions(width: int, grid: tuple[int, int]) -> Tensor:
    """Float32 [P, width]: half the channels for the row, half for the column."""
    quarter = width // 4
    with torch.device("cpu"):  # for an outline on the meta device, `arange` would load torch's compiler
        frequency = WAVELENGTH_BASE ** (-torch.arange(quarter, dtype=torch.float64) / quarter)
        row, column = torch.meshgrid(torch.arange(grid[0]), torch.arange(grid[1]), indexing="ij")
        halves = [axis.reshape(-1, 1).double() * frequency for axis in (row, column)]
        position = torch.cat([f(angle) for angle in halves for f in (torch.sin, torch.cos)], dim=1)
    return position.float().to(torch.get_default_device())


def _init(module: nn.Module) -> None:
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=INIT_STD)
        nn.init.zeros_(module.bias)
    elif isinstance(module, MaskTokens):
        nn.init.trunc_normal_(module.mask_token, std=INIT_STD)
