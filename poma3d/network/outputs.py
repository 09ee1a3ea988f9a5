"""What a stage gives back. The classes mirror those of `plinth.engine.stage`, kept equal by test_stages."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TypedDict

import torch
from torch import Tensor, nn

from poma3d import losses

RANK_ROWS = 1024
"""Tokens from which the effective rank is estimated."""


@dataclass
class Encoded:
    """What a micro-batch yields. Mirrors `plinth.engine.stage.Encoded`, kept equal by test_stages."""

    features: dict[str, Tensor] = field(default_factory=dict)
    sums: dict[str, Tensor] = field(default_factory=dict)
    counts: dict[str, Tensor] = field(default_factory=dict)
    weights: dict[str, float] = field(default_factory=dict)
    logs: dict[str, Tensor] = field(default_factory=dict)


@dataclass
class Contrast:
    """Losses over the global batch. Mirrors `plinth.engine.stage.Contrast`, kept equal by test_stages."""

    total: Tensor
    terms: dict[str, Tensor] = field(default_factory=dict)
    logs: dict[str, Tensor] = field(default_factory=dict)


class ParamGroup(TypedDict):
    """Parameters that share optimizer settings. Mirrors `plinth.engine.stage.ParamGroup`, kept equal by
    test_stages."""

    name: str
    params: list[nn.Parameter]
    weight_decay: float
    lr_scale: float


JEPA_LOGS = (
    "target_feature_std",
    "target_effective_rank",
    "unique_match_rate",
    "own_match_rate",
    "positional_ratio",
)
"""Names that `jepa_logs` gives."""


def jepa_logs(tokens_mPD: Tensor, z_hat_nLD: Tensor, z_nLD: Tensor, valid_nL: Tensor) -> dict[str, Tensor]:
    """Signs of collapse and of a cheated Chamfer distance."""
    matches = losses.nearest(z_hat_nLD, z_nLD, valid_nL, valid_nL)
    rows_RD = tokens_mPD.flatten(0, 1)
    rows_RD = rows_RD[:: max(1, len(rows_RD) // RANK_ROWS)][:RANK_ROWS]
    targets = z_nLD.shape[1]
    own_nL = matches.of_prediction == torch.arange(targets, device=z_nLD.device)
    return {
        "target_feature_std": rows_RD.std(dim=0).mean(),
        "target_effective_rank": losses.effective_rank(rows_RD),
        "unique_match_rate": losses.unique_match_rate(matches, valid_nL, targets),
        "own_match_rate": losses.masked_mean(own_nL.float(), valid_nL),
        "positional_ratio": losses.positional_ratio(z_hat_nLD, z_nLD, valid_nL),
    }
