"""Sums of gradients that do not depend on the order in which they are added.

How many ranks there are decides in which order the gradients of micro-batches are summed, and every fp32
addition rounds. Adam divides by the gradient's own size, so where a gradient is nearly nothing that
rounding becomes a step of full length, and two runs drift apart at elements of no importance. If each
micro-batch's gradient has b bits behind its leading one, fp32 with 23 holds any sum of 2^k of them exactly
as long as their sizes differ by less than 2^(23 - b - k): then the order is of no consequence. bf16
gradients have 7 bits and get this for nothing; fp32 ones are rounded to as many bits as the job says. TF32,
in which GPUs multiply fp32 matrices, keeps 10.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

FP32_BITS = 23
"""Of an fp32 number, behind the leading one."""


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
