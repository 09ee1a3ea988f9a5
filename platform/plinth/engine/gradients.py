"""From backward passes to the gradient that the optimizer steps with, summed over micro-batches and ranks.

Two ways lead there, and give the same bits with exact sums:

    short    at stages 1 and 2, if all gradients fit in one message: they are added locally in one flat
             buffer, laid out as DeepSpeed's flat weights are, which travels once per step
    long     through DeepSpeed's hooks on every parameter: stages 0 and 3, and what is larger than a message

        p.grad, p.grad, ...  -> round (exact sums) -> [ group 1 | group 2 ] -> all-reduce -> this rank's parts
                                    k times, added here ^

DeepSpeed's hooks cost tens of microseconds of Python per parameter and backward pass, and at stage 2 a
message for every micro-batch. The flat buffer takes the place of the bucket that the hooks would fill.

The norm is ours on both ways: DeepSpeed adds the squares of each shard in its own order and sends fp32 sums
between ranks, so its norm, and with it every clipped gradient, depends on the number of ranks.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn

from plinth.engine import deepspeed_internals as internals
from plinth.engine.config import Precision, ZeroConfig
from plinth.engine.exact_sums import ExactSums
from plinth.engine.stage import Batch
from plinth.world import World


class Gradients(Protocol):
    """One of the ways."""

    def forward(self, batch: Batch, features_only: bool) -> dict[str, Any]:
        """The stage's forward pass."""
        ...

    def backward(self, loss: Tensor, is_last: bool) -> None:
        """The backward pass of a micro-batch, whose loss is this rank's share of the global one."""
        ...

    def squares(self) -> Tensor:
        """After the last micro-batch: numbers [k] fp64 of this rank, for `is_finite` and the norm."""
        ...

    def is_finite(self, squares: np.ndarray) -> bool:
        """Whether the gradient may be applied, by the `squares` of all ranks [ranks, k]."""
        ...

    def round_again(self) -> bool:
        """Round the gradients of this step once more, to ceilings that have changed meanwhile. False where
        they are no longer there as they came: then `discard` them and repeat the backward passes."""
        ...

    def discard(self) -> None:
        """Drop the gradients of this step."""
        ...

    def step(self) -> float | None:
        """Clip and apply; returns the norm before clipping, None if it was not finite and nothing was
        applied."""
        ...


def is_short(zero: ZeroConfig, trained: int) -> bool:
    """Whether the gradients of `trained` elements fit in one message, in fp32, at a stage that keeps the
    weights whole."""
    return (
        zero.stage in (1, 2)
        and not (zero.stage == 1 and zero.precision is Precision.bf16)  # another optimizer class
        and zero.accumulate_precision is Precision.fp32
        and zero.communicate_precision is Precision.fp32
        and not zero.overlap_communication
        and trained <= zero.bucket_size
    )


class ShortWay:
    """Flat gradients, reduced once per step.

    Args:
        stage: whose forward pass it is; DeepSpeed only steps.
        engine: DeepSpeed's.
    """

    def __init__(self, stage: nn.Module, engine: Any, world: World, sums: ExactSums | None) -> None:
        self._stage, self._engine, self._world, self._sums = stage, engine, world, sums
        self._exact_norm = ExactNorm()
        internals.replace_grad_norm(engine.optimizer, self._exact_norm)
        internals.leave_gradients_alone(engine.optimizer)
        engine.set_gradient_accumulation_boundary(True)
        groups = internals.flat_groups(engine.optimizer)
        device = groups[0].places[0].parameter.device
        self._flat = torch.zeros(sum(g.numel for g in groups), device=device)
        self._is_empty = True
        self._only: list[Tensor] | None = None
        """Gradients of the only micro-batch of a step, not rounded."""
        by_parameter: dict[int, Tensor] = {}
        self._parts: list[Tensor] = []
        """This rank's, by group."""
        for group, flat in zip(groups, self._flat.split([g.numel for g in groups]), strict=True):
            self._parts.append(flat.narrow(0, world.rank * group.partition, group.partition))
            for parameter, offset in group.places:
                held = flat.narrow(0, offset, parameter.numel())
                by_parameter[id(parameter)] = held.view(parameter.shape)
        self._parameters = sums.parameters if sums else [p for g in groups for p, _ in g.places]
        self._places = [by_parameter[id(p)] for p in self._parameters]

    def forward(self, batch: Batch, features_only: bool) -> dict[str, Any]:
        encoded: dict[str, Any] = self._stage(batch, features_only=features_only)
        return encoded

    def backward(self, loss: Tensor, is_last: bool) -> None:
        if loss.requires_grad:
            loss.backward()
        gradients = [p.grad if p.grad is not None else torch.zeros_like(p) for p in self._parameters]
        for parameter in self._parameters:
            parameter.grad = None
        if self._sums and is_last and self._is_empty:
            self._only = gradients
        self._add(gradients)

    @torch.no_grad()
    def _add(self, gradients: list[Tensor]) -> None:
        if self._sums:
            gradients = self._sums.rounded(gradients)
        if self._is_empty:
            torch._foreach_copy_(self._places, gradients)
        else:
            torch._foreach_add_(self._places, gradients)
        self._is_empty = False

    def squares(self) -> Tensor:
        if self._world.world_size > 1:
            dist.all_reduce(self._flat)
        return torch.stack([square([part]) for part in self._parts])

    def is_finite(self, squares: np.ndarray) -> bool:
        return self._exact_norm.expect(squares.sum(axis=0))

    def round_again(self) -> bool:
        if self._only is None:
            return False
        self._is_empty = True
        self._add(self._only)
        return True

    def discard(self) -> None:
        self._is_empty, self._only = True, None

    def step(self) -> float | None:
        self._is_empty, self._only = True, None
        internals.give_gradients(self._engine.optimizer, self._parts)
        self._engine.step()
        return float(self._engine.get_global_grad_norm())


class LongWay:
    """DeepSpeed's hooks.

    Args:
        engine: DeepSpeed's.
    """

    def __init__(
        self, stage: nn.Module, engine: Any, zero: ZeroConfig, world: World, sums: ExactSums | None
    ) -> None:
        self._stage, self._engine, self._zero, self._world = stage, engine, zero, world
        self._share = 1 if sums else world.world_size
        """DeepSpeed averages over ranks; with exact sums the gradient is multiplied, else the loss."""
        self._whole_norm = math.nan
        self._exact_norm: ExactNorm | None = None
        if zero.stage == 3 or (zero.stage and internals.keeps_flat_groups(engine.optimizer)):
            self._exact_norm = ExactNorm()
            internals.replace_grad_norm(engine.optimizer, self._exact_norm)
        if sums:
            sums.watch()

    def forward(self, batch: Batch, features_only: bool) -> dict[str, Any]:
        encoded: dict[str, Any] = self._engine(batch, features_only=features_only)
        return encoded

    def backward(self, loss: Tensor, is_last: bool) -> None:
        self._engine.set_gradient_accumulation_boundary(is_last)
        self._engine.backward(loss * self._share, scale_wrt_gas=False)

    def squares(self) -> Tensor:
        if self._zero.stage == 0:  # every rank has all of the gradient
            found = [p.grad for p in self._stage.parameters() if p.grad is not None]
            return torch.nn.utils.get_total_norm(found).double().view(1)
        if self._exact_norm is None:
            return torch.zeros(0, dtype=torch.float64)
        return torch.stack([square(g) for g in internals.reduced_gradients(self._engine.optimizer)])

    def is_finite(self, squares: np.ndarray) -> bool:
        if self._zero.stage == 0:
            self._whole_norm = float(squares[0, 0])
            return math.isfinite(self._whole_norm)
        return self._exact_norm is None or self._exact_norm.expect(squares.sum(axis=0))

    def round_again(self) -> bool:
        return False

    def discard(self) -> None:
        if self._exact_norm is None:
            self._engine.zero_grad()
            return
        self._exact_norm.refuse(len(internals.reduced_gradients(self._engine.optimizer)))
        self._engine.step()

    def step(self) -> float | None:
        self._engine.step()
        if self._zero.stage == 0:
            return self._whole_norm
        if not self._engine.was_step_applied():
            return None
        return float(self._engine.get_global_grad_norm())


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
        self._groups = iter([np.float32(internals.INVALID_NORM)] * groups)

    def __call__(self, gradients: Sequence[Tensor], params: Sequence[Tensor], norm_type: int = 2) -> Tensor:
        return torch.tensor(float(next(self._groups)), dtype=torch.float32)
