"""The target encoder's moving average: its momentum, and the one-process reference of how it is kept.

The averages are float32 whatever the weights are: at a momentum of 0.996 and more a bfloat16 average
stops moving. An engine that shards the weights keeps the same numbers its own way.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from poma3d.network.config import EmaConfig


def validate(cfg: EmaConfig) -> None:
    """Refuse a momentum outside [0, 1].

    Raises:
        ValueError: naming both fields.
    """
    if not (0 <= cfg.momentum_start <= 1 and 0 <= cfg.momentum_end <= 1):
        raise ValueError(
            f"ema.momentum_start {cfg.momentum_start} and ema.momentum_end {cfg.momentum_end} "
            "must lie in [0, 1]"
        )


def momentum(cfg: EmaConfig, progress: float) -> float:
    """Momentum at `progress` in [0, 1] of the stage."""
    progress = min(max(progress, 0.0), 1.0)
    return cfg.momentum_start + (cfg.momentum_end - cfg.momentum_start) * progress


class Ema:
    """Float32 averages by name. Starts as a copy."""

    def __init__(self, online: Mapping[str, Tensor]) -> None:
        self.averages = {name: p.detach().float().clone() for name, p in online.items()}

    @torch.no_grad()
    def update(self, online: Mapping[str, Tensor], momentum: float) -> None:
        """average = momentum * average + (1 - momentum) * online."""
        for name, average in self.averages.items():
            average.lerp_(online[name].detach().float(), 1.0 - momentum)

    @torch.no_grad()
    def copy_to(self, targets: Mapping[str, Tensor]) -> None:
        """Write each average into the target of the same name, rounded to its dtype."""
        for name, average in self.averages.items():
            targets[name].copy_(average)
