"""The norm by which gradients are clipped, the same however they are sharded.

DeepSpeed adds the squares of each shard in its own order and sends fp32 sums between ranks, so its norm, and
with it every clipped gradient, depends on the number of ranks.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.distributed as dist
from torch import Tensor

from plinth.engine.deepspeed_internals import INVALID_NORM
from plinth.world import World


class ExactNorm:
    """Sums the norm in fp64 over all ranks. It then rounds to the same fp32 number however the gradients are
    sharded; in about one of 10^8 steps the last bits of fp64 make a difference."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.refuses = False
        """Call every norm invalid: DeepSpeed then skips its step and drops the gradients."""

    def __call__(self, gradients: Sequence[Tensor], params: Sequence[Tensor], norm_type: int = 2) -> Tensor:
        squares = [g.detach().double().square().sum() for g in gradients]
        device = params[0].device if params else torch.device("cpu")
        total = torch.stack(squares).sum() if squares else torch.zeros((), dtype=torch.float64, device=device)
        if self._world.world_size > 1:
            dist.all_reduce(total)
        found = total.sqrt().float()
        is_valid = torch.isfinite(found) & (not self.refuses)
        return torch.where(is_valid, found, torch.full_like(found, INVALID_NORM))
