"""Sums of gradients that are the same bits however many workers add them.

How many workers there are decides in which order the gradients of the micro-batches of a step are added, and
every fp32 addition rounds. Adam divides a gradient by its own size, so where it is nearly nothing that
rounding becomes a step of full length, and two runs drift apart. Here nothing is rounded while adding: each
micro-batch's gradient is put on a grid before, whole multiples of a quantum (a power of two), so coarse that
the multiples of all micro-batches together stay below 2^24. fp32 holds those, and every partial sum of them,
exactly: the order is of no consequence.

The quantum of a parameter follows from its ceiling, an exponent e such that no element of a micro-batch's
gradient reaches 2^e. All ranks must know it before the backward pass, so it comes from the steps before. A
gradient that does reach its ceiling is seen after the backward pass, on all ranks: the ceiling is raised and
the pass is done again. That is also how the first step finds its ceilings. They depend on the
micro-batches alone, not on how they are dealt to workers, and are part of the checkpoint.

What it costs: elements far smaller than the largest of their parameter lose bits. With M micro-batches in a
step the quantum is M / 2^24 of the ceiling (4 / 2^24 at least), which is about 8 times the largest element.
Besides five passes over each gradient, 2 to 6 % of a step's CPU time on the demo's stages.

Legend: M micro-batches of the global batch.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from functools import partial

import torch
import torch.distributed as dist
from torch import Tensor, nn

from plinth.engine.process import Process
from plinth.errors import ConfigError

EXACT_BITS = 24
"""fp32 holds every whole number up to 2^24."""
SHIFT_BITS = 22
"""A number up to 2^22 plus 1.5 x 2^23 stays between 2^23 and 2^24, where fp32 holds the whole numbers."""
LEAST_BITS = 14
"""Of the ceiling that the grid must keep; fewer would be felt in training."""
LOWEST, HIGHEST = -90, 96
"""Ceilings for which neither the quantum nor a sum leaves the range of fp32."""
HEADROOM = 2
"""A ceiling is at least this many bits above what the step before needed: measured on the demo's stages, 3 of
400 steps were then done again, the first of each stage among them; at 1 it was 13."""
SLACK = 3
"""A ceiling up to this many bits above need stays where it is; beyond, it sinks by one bit a step."""


def grid_bits(micro_batches: int) -> int:
    """How many quanta, as a power of two, the ceiling may have so that `micro_batches` of them add exactly.

    Raises:
        ConfigError: too few would be left.
    """
    bits = min(SHIFT_BITS, EXACT_BITS - (micro_batches - 1).bit_length())
    if bits < LEAST_BITS:
        raise ConfigError(
            f"zero.exact_sums leaves {bits} bits to a gradient when {micro_batches} micro-batches are summed "
            f"in a step, fewer than {LEAST_BITS}.",
            "Raise micro_batch_size, or set zero.exact_sums=false.",
        )
    return bits


def shift_of(ceiling: int, bits: int) -> float:
    """What `on_grid` adds and takes away again; an fp32 number."""
    return math.ldexp(1.5, ceiling - bits + EXACT_BITS - 1)


def on_grid(values: Tensor, shift: Tensor) -> Tensor:
    """The nearest multiples of the quantum. fp32 numbers beside `shift` are its multiples, so the addition
    does the rounding. What is too large, or not finite, stays as it is or nearly so."""
    return values.add(shift).sub_(shift)


def needed_for(largest: float) -> int:
    """The lowest ceiling above an element of size `largest`."""
    return min(max(math.frexp(largest)[1], LOWEST), HIGHEST) if largest else LOWEST


def next_ceiling(needed: int, ceiling: int) -> int:
    """The ceiling of a parameter for the step after one that needed `needed`. A gradient of zeros says
    nothing."""
    if needed == LOWEST:
        return ceiling
    sunk = ceiling - 1 if needed < ceiling - SLACK else ceiling
    return min(max(sunk, needed + HEADROOM), HIGHEST)


class ExactSums:
    """Puts the gradients of a backward pass on the grid before anyone adds them, and keeps the ceilings.

    Gradients leave its hooks times the number of ranks, over which DeepSpeed will average. Multiplied here
    that is exact at any number of ranks at stages 1 to 3, which divide before they add over ranks; stage 0
    divides afterwards and is exact at powers of two.

    Args:
        parameters: of the stage, by name; those without gradient are left alone. Before DeepSpeed has them.
        micro_batches: M.
    """

    def __init__(
        self, parameters: Iterable[tuple[str, nn.Parameter]], micro_batches: int, process: Process
    ) -> None:
        trained = [(name, p) for name, p in parameters if p.requires_grad]
        self.redone = 0
        self._names = [name for name, _ in trained]
        self._bits = grid_bits(micro_batches)
        self._world, self._device = process.world, process.device
        self._largest = torch.zeros(len(trained), device=self._device)
        self._ceilings: list[int] = []
        self._set([LOWEST] * len(trained))
        self._hooks = [p.register_hook(partial(self._seen, i)) for i, (_, p) in enumerate(trained)]

    def settle(self) -> bool:
        """After all micro-batches went backward: whether their sums are exact. If not, they will be once the
        gradients are thrown away and the same is done again. Call it on all ranks.

        Gradients that are not finite are left to who looks at the norm.
        """
        largest = self._largest.nan_to_num(nan=torch.inf, posinf=torch.inf)
        if self._world.world_size > 1:
            dist.all_reduce(largest, dist.ReduceOp.MAX)
        self._largest.zero_()
        found = largest.tolist()
        if math.inf in found:
            return True
        pairs = [(needed_for(size), ceiling) for size, ceiling in zip(found, self._ceilings, strict=True)]
        fits = all(needed <= ceiling for needed, ceiling in pairs)
        self._set([next_ceiling(*pair) for pair in pairs])
        self.redone += not fits
        return fits

    def state(self) -> dict[str, int]:
        """Ceilings by name."""
        return dict(zip(self._names, self._ceilings, strict=True))

    def restore(self, state: Mapping[str, int]) -> None:
        """Go on with these ceilings; a parameter that has none here finds its own."""
        self._set([state.get(name, LOWEST) for name in self._names])

    def close(self) -> None:
        """Leave the parameters alone."""
        for hook in self._hooks:
            hook.remove()

    def _set(self, ceilings: list[int]) -> None:
        if ceilings == self._ceilings:
            return
        self._ceilings = ceilings
        self._shifts = torch.tensor([shift_of(c, self._bits) for c in ceilings], device=self._device).unbind()

    def _seen(self, i: int, gradient: Tensor) -> Tensor:
        """The gradient of a parameter from one backward pass, on the grid."""
        largest = self._largest[i]
        torch.maximum(largest, gradient.abs().amax(), out=largest)
        gridded = on_grid(gradient, self._shifts[i])
        return gridded.mul_(self._world.world_size) if self._world.world_size > 1 else gridded
