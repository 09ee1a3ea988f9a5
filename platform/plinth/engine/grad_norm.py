"""The norm by which gradients are clipped, the same however they are sharded.

DeepSpeed adds the squares of each shard in its own order and sends fp32 sums between ranks, so its norm, and
with it every clipped gradient, depends on the number of ranks.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from plinth.engine.deepspeed_internals import INVALID_NORM


def square(gradients: Sequence[Tensor]) -> Tensor:
    """Sum of the squares of all elements, a scalar in fp64."""
    # One pass that converts as it reads: a copy in fp64 would be mapped and zeroed page by page.
    squares = [torch.linalg.vector_norm(g.detach(), dtype=torch.float64).square() for g in gradients]
    return torch.stack(squares).sum()


class ExactNorm:
    """The norm of each parameter group, from squares that were summed in fp64 over all ranks. It then rounds
    to the same fp32 number however the gradients are sharded; in about one of 10^8 steps the last bits of
    fp64 make a difference.

    Called by DeepSpeed in its step, once for each group in turn. The numbers are on the host, so it does not
    wait for the device.
    """

    def __init__(self) -> None:
        self._groups: Iterator[np.float32] = iter(())

    def expect(self, squares: np.ndarray) -> bool:
        """Take the squares [groups] of the next step; whether all of them are finite."""
        norms = np.sqrt(squares).astype(np.float32)
        self._groups = iter(norms)
        return bool(np.isfinite(norms).all())

    def refuse(self, groups: int) -> None:
        """Call the norms of the next step invalid: DeepSpeed then drops the gradients."""
        self._groups = iter([np.float32(INVALID_NORM)] * groups)

    def __call__(self, gradients: Sequence[Tensor], params: Sequence[Tensor], norm_type: int = 2) -> Tensor:
        return torch.tensor(float(next(self._groups)), dtype=torch.float32)
