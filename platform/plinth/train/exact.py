"""Sums of gradients that do not depend on the order in which they are added.

How many ranks there are decides in which order the gradients of micro-batches are summed, and every fp32
addition rounds. Adam divides by the gradient's own size, so where a gradient is nearly nothing that
rounding becomes a step of full length, and two runs drift apart at elements of no importance. If each
micro-batch's gradient has b bits behind its leading one, fp32 with 23 holds any sum of 2^k of them exactly
as long as their sizes differ by less than 2^(23 - b - k): then the order is of no consequence. bf16
gradients have 7 bits and get this for nothing; fp32 ones are rounded to as many bits as the job says. TF32,
in which GPUs multiply fp32 matrices, keeps 10. The norm that clips is summed in fp64 for the same reason.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from plinth.world import World

FP32_BITS = 23
"""Of an fp32 number, behind the leading one."""
INVALID_NORM = -1.0
"""How DeepSpeed is told that a norm is not finite."""


def round_gradients(parameters: Iterable[nn.Parameter], bits: int) -> list[RemovableHandle]:
    """Round what each backward pass gives for fp32 parameters, before it is added to anything.

    Args:
        bits: kept behind the leading one.
    """
    return [p.register_hook(partial(rounded, bits=bits)) for p in parameters if p.requires_grad]


def rounded(values: Tensor, bits: int) -> Tensor:
    """fp32 numbers with `bits` bits behind the leading one, to nearest; what is not finite stays so."""
    dropped = FP32_BITS - bits
    as_integers = values.contiguous().view(torch.int32)
    half, kept = 1 << (dropped - 1), -1 << dropped
    return (as_integers + half).bitwise_and_(kept).view(torch.float32)


def sum_norms_exactly(optimizer: Any, world: World) -> None:
    """Have DeepSpeed's ZeRO optimizer (stages 1 to 3) sum the gradient norm in fp64, so that it rounds to the
    same fp32 number however the gradients are sharded.

    It takes the place of a method that is not public: the parity and exactness tests watch over it.
    """

    def norm(gradients: Sequence[Tensor], params: Sequence[Tensor], norm_type: int = 2) -> Tensor:
        squares = [g.detach().double().square().sum() for g in gradients]
        device = params[0].device if params else torch.device("cpu")
        total = torch.stack(squares).sum() if squares else torch.zeros((), dtype=torch.float64, device=device)
        if world.world_size > 1:
            dist.all_reduce(total)
        found = total.sqrt().float()
        return torch.where(torch.isfinite(found), found, torch.full_like(found, INVALID_NORM))

    optimizer.get_grad_norm_direct = norm
