"""Gradients on the grid: any order of adding them gives the same bits, and what does not fit is seen."""

from __future__ import annotations

import math
import random

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from plinth.engine.exact_sums import (
    EXACT_BITS,
    HEADROOM,
    HIGHEST,
    LOWEST,
    ExactSums,
    grid_bits,
    needed_for,
    next_ceiling,
    on_grid,
    shift_of,
)
from plinth.engine.process import Process
from plinth.errors import ConfigError
from plinth.world import World

ELEMENTS = 64


def gradients(seed: int, count: int, ceiling: int) -> list[Tensor]:
    """fp32 of all sizes below 2^ceiling, down to nothing, at least one of them just below."""
    generator = torch.Generator().manual_seed(seed)
    made = []
    for _ in range(count):
        sizes = torch.exp2(-30 * torch.rand(ELEMENTS, generator=generator, dtype=torch.float64))
        signs = torch.where(torch.rand(ELEMENTS, generator=generator) < 0.5, -1.0, 1.0)
        values = torch.ldexp(sizes * signs, torch.tensor(ceiling)).float()
        values[seed % ELEMENTS] = math.ldexp(1 - 2**-EXACT_BITS, ceiling)
        made.append(values)
    return made


def added(parts: list[Tensor], order: random.Random) -> Tensor:
    """Their fp32 sum by pairs in any order: every tree of additions can come out."""
    parts = list(parts)
    while len(parts) > 1:
        order.shuffle(parts)
        parts.append(parts.pop() + parts.pop())
    return parts[0]


@settings(max_examples=100, deadline=None)
@given(
    seed=st.integers(0, 2**16), count=st.integers(2, 100), ceiling=st.integers(LOWEST, HIGHEST),
    order=st.randoms(use_true_random=False),
)  # fmt: skip
def test_any_order_gives_the_exact_sum(seed: int, count: int, ceiling: int, order: random.Random) -> None:
    bits = grid_bits(count)
    plain = gradients(seed, count, ceiling)
    gridded = [on_grid(g, shift_of(ceiling, bits)) for g in plain]
    exact = torch.stack([g.double() for g in gridded]).sum(0)
    assert torch.equal(added(gridded, order).double(), exact)
    quantum = math.ldexp(1.0, ceiling - bits)
    for before, after in zip(plain, gridded, strict=True):
        assert (before.double() - after.double()).abs().max() <= quantum / 2
        assert torch.equal((after.double() / quantum).round() * quantum, after.double())


@pytest.mark.parametrize("world_size", [1, 2, 3, 4, 6, 12])
def test_sharing_over_ranks_and_averaging_is_exact(world_size: int) -> None:
    """As DeepSpeed does it at stages 1 to 3: times the ranks, added on each, divided, added over all."""
    gridded = [on_grid(g, shift_of(0, grid_bits(12))) for g in gradients(3, 12, 0)]
    of_ranks = [
        added([g * world_size for g in gridded[rank::world_size]], random.Random(rank)) / world_size
        for rank in range(world_size)
    ]
    assert torch.equal(added(of_ranks, random.Random(0)), added(gridded, random.Random(1)))


def test_without_the_grid_the_order_shows() -> None:
    plain = gradients(0, 16, 0)
    assert not torch.equal(added(plain, random.Random(1)), added(plain, random.Random(2)))


def test_on_grid_keeps_non_finite_values() -> None:
    odd = on_grid(torch.tensor([math.inf, -math.inf, math.nan, 0.0]), shift_of(0, 20))
    assert odd[:2].tolist() == [math.inf, -math.inf]
    assert odd[2].isnan()
    assert odd[3] == 0


def test_an_element_stays_below_the_ceiling_that_it_needs() -> None:
    assert [needed_for(size) for size in (0.5, 0.99, 1.0, 1.5, 2.0)] == [0, 0, 1, 1, 2]
    assert [needed_for(size) for size in (0.0, 1e-38, 3e38)] == [LOWEST, LOWEST, HIGHEST]


def test_ceiling_rises_at_once_and_sinks_slowly() -> None:
    assert next_ceiling(needed=3, ceiling=-5) == 3 + HEADROOM
    assert [next_ceiling(needed, 3) for needed in range(-1, 3)] == [2, 3, 3, 2 + HEADROOM]
    assert next_ceiling(LOWEST, 5) == 5
    assert next_ceiling(HIGHEST, HIGHEST) == HIGHEST


def test_too_many_micro_batches_are_refused() -> None:
    assert [grid_bits(m) for m in (2, 4, 5, 8, 64, 1024)] == [22, 22, 21, 21, 18, 14]
    with pytest.raises(ConfigError, match="13 bits per gradient when 1025 micro-batches are summed"):
        grid_bits(1025)


class Model(nn.Module):
    """A parameter used twice, one without gradient, one that no loss uses."""

    def __init__(self) -> None:
        super().__init__()
        self.used = nn.Parameter(torch.tensor([0.1, 0.2, 0.3]))
        self.frozen = nn.Parameter(torch.ones(2), requires_grad=False)
        self.unused = nn.Parameter(torch.ones(2))

    def backward(self, x: Tensor) -> Tensor:
        """The gradient of `used` from one pass."""
        self.used.grad = None
        ((self.used * x).sum() + (self.used * x).sum()).backward()
        assert self.used.grad is not None
        return self.used.grad


X = torch.tensor([0.7, 1e-3, 3e-7])


def sums_of(model: nn.Module, world_size: int = 1) -> ExactSums:
    world = World(0, 1) if world_size == 1 else World(0, world_size)
    sums = ExactSums(model.named_parameters(), 8, Process(world, torch.device("cpu"), 1, "here"))
    sums.watch()
    return sums


def settled(sums: ExactSums) -> bool:
    """With the numbers of this rank."""
    return sums.settle(sums.largest.tolist())


def test_first_step_finds_ceilings_and_is_repeated() -> None:
    model = Model()
    sums = sums_of(model)
    model.backward(X)
    assert not settled(sums)
    assert sums.state() == {"used": 1 + HEADROOM, "unused": LOWEST}
    gradient = model.backward(X)
    assert settled(sums)
    assert sums.redone == 1
    quantum = 2.0 ** (1 + HEADROOM - grid_bits(8))  # 1.4 < 2^1
    assert torch.equal(gradient, (2 * X / quantum).round() * quantum)
    assert gradient[2] in (0.0, quantum), "what is far below the largest element loses bits"


def test_gradient_above_ceiling_repeats_step_once() -> None:
    model = Model()
    sums = sums_of(model)
    sums.restore({"used": 1, "not in this model": 3})
    model.backward(X)
    assert settled(sums)
    assert sums.state()["used"] == 1 + HEADROOM, "the next step has room to grow"
    model.backward(100 * X)
    model.backward(X)  # the largest of all micro-batches counts
    assert not settled(sums)
    assert sums.state()["used"] == 8 + HEADROOM  # 140 < 2^8
    model.backward(100 * X)
    assert settled(sums)


def test_gradients_leave_times_the_number_of_ranks() -> None:
    alone, of_three = Model(), Model()
    for model, world_size in ((alone, 1), (of_three, 3)):
        sums_of(model, world_size).restore({"used": 1})
    assert torch.equal(of_three.backward(X), 3 * alone.backward(X))


@pytest.mark.parametrize("bad", [math.inf, math.nan])
def test_gradients_that_are_not_finite_are_left_to_the_norm(bad: float) -> None:
    model = Model()
    sums = sums_of(model)
    assert not model.backward(X * bad).isfinite().any()
    assert settled(sums)
    assert set(sums.state().values()) == {LOWEST}


def test_closed_it_leaves_gradients_alone() -> None:
    model = Model()
    sums = sums_of(model)
    sums.restore({"used": 20})
    assert torch.equal(model.backward(X)[1:], torch.zeros(2))
    sums.close()
    assert torch.equal(model.backward(X), 2 * X)


def test_hooks_and_the_buffer_round_alike() -> None:
    generator = torch.Generator().manual_seed(0)
    model = nn.ParameterList([nn.Parameter(torch.zeros(shape)) for shape in ((3, 5), (7,), (1,))])
    hooked, flat = sums_of(model), sums_of(nn.ParameterList(nn.Parameter(p.detach()) for p in model))
    gradients = [torch.randn(p.shape, generator=generator) for p in model]
    for sums in (hooked, flat):
        sums.restore({"0": 3, "1": 2, "2": -4})
    sum((p * g).sum() for p, g in zip(model, gradients, strict=True)).backward()
    for parameter, gradient in zip(model, flat.rounded(gradients), strict=True):
        assert torch.equal(parameter.grad, gradient)
    assert torch.equal(hooked.largest, flat.largest)
    flat.rounded([torch.full_like(g, math.nan) for g in gradients])
    assert flat.largest.isnan().all()
