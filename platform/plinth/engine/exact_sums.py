"""Sums of gradients that have the same bits however many workers add them.

The number of workers decides in which order the gradients of a step's micro-batches are added, and every fp32
addition rounds. Adam divides a gradient by its own size, so where a gradient is nearly zero this rounding
becomes a step of full length, and two runs drift apart.

Here no addition rounds (reproducible summation by rounding beforehand: Demmel and Nguyen, "Fast Reproducible
Floating-Point Summation", ARITH 2013). Each micro-batch's gradient is first rounded to whole multiples of a
quantum q, a power of two:

    g_k -> n_k q,   n_k = round(g_k / q),   |g_k| < 2^e,   q = 2^(e - bits),   bits <= 24 - log2 M
    |n_1| + ... + |n_M| <= M 2^bits <= 2^24

fp32 holds every whole number up to 2^24, so every partial sum is exact and the order does not matter. The
rounding itself costs two additions: near shift = 1.5 q 2^23 fp32 numbers are q apart, so that

    (g + shift) - shift = q round(g / q)

The ceiling e of a parameter must be known to all ranks before the backward pass, so it comes from the steps
before. A gradient that reaches its ceiling is noticed after the backward pass, on all ranks: the ceiling is
raised and the gradients are rounded anew; where a rank has added those of several micro-batches by then, the
pass is repeated. The first step finds its ceilings in the same way. They depend on the micro-batches alone,
not on which worker has them, and are part of the checkpoint.

Cost: elements far smaller than the largest of their parameter lose bits. The quantum is M / 2^24 of the
ceiling (4 / 2^24 at least), and the ceiling is about 8 times the largest element. Four passes over all
gradients take 1 to 2 % of a step on the demo's stages (`benchmarks.step`).

Legend: M micro-batches of the global batch.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from functools import partial

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from plinth.engine.process import Process
from plinth.errors import ConfigError

EXACT_BITS = 24
"""fp32 holds every whole number up to 2^24."""
SHIFT_BITS = 22
"""A number up to 2^22 plus 1.5 x 2^23 stays between 2^23 and 2^24, where fp32 holds the whole numbers."""
LEAST_BITS = 14
"""Fewest bits of a gradient that the grid may leave; fewer would harm training."""
LOWEST, HIGHEST = -90, 96
"""Ceilings for which neither the quantum nor a sum leaves the range of fp32."""
HEADROOM = 2
"""A ceiling is at least this many bits above what the step before needed: measured on the demo's stages, a
gradient then outgrew it in 3 of 400 steps, the first of each stage among them; at 1 it was 13."""
SLACK = 3
"""A ceiling up to this many bits above need stays where it is; above that, it sinks by one bit per step."""


def grid_bits(micro_batches: int) -> int:
    """How many quanta, as a power of two, the ceiling may have so that `micro_batches` of them add exactly.

    Raises:
        ConfigError: too few would be left.
    """
    bits = min(SHIFT_BITS, EXACT_BITS - (micro_batches - 1).bit_length())
    if bits < LEAST_BITS:
        raise ConfigError(
            f"zero.exact_sums leaves {bits} bits per gradient when {micro_batches} micro-batches are summed "
            f"in a step, fewer than {LEAST_BITS}.",
            "Raise micro_batch_size, or set zero.exact_sums=false.",
        )
    return bits


def shift_of(ceiling: int, bits: int) -> float:
    """What `on_grid` adds and takes away again; an fp32 number."""
    return math.ldexp(1.5, ceiling - bits + EXACT_BITS - 1)


def on_grid(values: Tensor, shift: float) -> Tensor:
    """The nearest multiples of the quantum. fp32 numbers beside `shift` are its multiples, so the addition
    does the rounding. Values that are too large or not finite stay nearly as they are."""
    return values.add(shift).sub_(shift)


def needed_for(largest: float) -> int:
    """The lowest ceiling above an element of size `largest`."""
    return min(max(math.frexp(largest)[1], LOWEST), HIGHEST) if largest else LOWEST


def next_ceiling(needed: int, ceiling: int) -> int:
    """The ceiling of a parameter for the step after one that needed `needed`; a gradient of zeros does not
    change it."""
    if needed == LOWEST:
        return ceiling
    sunk = ceiling - 1 if needed < ceiling - SLACK else ceiling
    return min(max(sunk, needed + HEADROOM), HIGHEST)


class ExactSums:
    """Rounds the gradients of a backward pass to the grid before they are added, and keeps the ceilings.

    Args:
        parameters: of the stage, by name, before DeepSpeed has them; those without gradient are ignored.
        micro_batches: M.
    """

    def __init__(
        self, parameters: Iterable[tuple[str, nn.Parameter]], micro_batches: int, process: Process
    ) -> None:
        self._trained = [(name, p) for name, p in parameters if p.requires_grad]
        self.redone = 0
        self._bits = grid_bits(micro_batches)
        self._world, self._device = process.world, process.device
        self.largest = torch.zeros(len(self._trained), device=self._device)
        """Largest element of each parameter's gradients on this rank since the last `settle`."""
        self._ceilings: list[int] = []
        self._set([LOWEST] * len(self._trained))
        self._hooks: list[RemovableHandle] = []

    @property
    def parameters(self) -> list[nn.Parameter]:
        """In the order of the gradients of `rounded`."""
        return [p for _, p in self._trained]

    def rounded(self, gradients: list[Tensor]) -> list[Tensor]:
        """The gradients of all parameters from one backward pass, rounded. Not in place: those of two
        parameters may be the same memory."""
        torch.maximum(
            self.largest, torch.stack(torch._foreach_max(torch._foreach_abs(gradients))), out=self.largest
        )
        found: list[Tensor] = list(torch._foreach_add(gradients, self._shifts))
        torch._foreach_sub_(found, self._shifts)
        return found

    def watch(self) -> None:
        """Round each gradient as it comes from a backward pass, where DeepSpeed takes it at once.

        The hooks also multiply it by the number of ranks, because DeepSpeed averages over ranks. This is
        exact at any number of ranks at stages 1 to 3, which divide before they add over ranks; stage 0
        divides afterwards and is exact at powers of two.
        """
        self._hooks = [p.register_hook(partial(self._seen, i)) for i, (_, p) in enumerate(self._trained)]

    def settle(self, largest: Sequence[float]) -> bool:
        """After all micro-batches went backward: whether their sums are exact. If not, round the gradients
        anew, of a repeated pass where need be: then they are.

        Gradients that are not finite are caught by the norm check.

        Args:
            largest: of all ranks' `largest`, the same on every rank.
        """
        self.largest.zero_()
        if not all(map(math.isfinite, largest)):
            return True
        pairs = [(needed_for(size), ceiling) for size, ceiling in zip(largest, self._ceilings, strict=True)]
        fits = all(needed <= ceiling for needed, ceiling in pairs)
        self._set([next_ceiling(*pair) for pair in pairs])
        self.redone += not fits
        return fits

    def state(self) -> dict[str, int]:
        """Ceilings by name."""
        return {name: ceiling for (name, _), ceiling in zip(self._trained, self._ceilings, strict=True)}

    def restore(self, state: Mapping[str, int]) -> None:
        """Continue with these ceilings; a parameter that has none finds its own."""
        self._set([state.get(name, LOWEST) for name, _ in self._trained])

    def close(self) -> None:
        """Remove the hooks."""
        for hook in self._hooks:
            hook.remove()

    def _set(self, ceilings: list[int]) -> None:
        if ceilings != self._ceilings:
            self._ceilings = ceilings
            self._shifts = [shift_of(ceiling, self._bits) for ceiling in ceilings]

    def _seen(self, i: int, gradient: Tensor) -> Tensor:
        """The gradient of a parameter from one backward pass, rounded to the grid."""
        largest = self.largest[i]
        torch.maximum(largest, gradient.abs().amax(), out=largest)
        gridded = on_grid(gradient, self._shifts[i])
        return gridded.mul_(self._world.world_size) if self._world.world_size > 1 else gridded
