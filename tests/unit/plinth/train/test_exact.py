"""Rounded gradients: how much they lose, and that the order of their sum is of no consequence."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from plinth.errors import ConfigError
from plinth.train import checkpoint
from plinth.train.exact import rounded
from plinth.train.zero import ZeroConfig
from tests.helpers.ranks import run_ranks
from tests.helpers.toy_run import toy_run
from tests.unit.plinth.train.test_loop import train


@given(st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=1), st.integers(1, 22))
def test_it_is_the_nearest_number_with_so_many_bits(numbers: list[float], bits: int) -> None:
    values = torch.tensor(numbers, dtype=torch.float32)
    found = rounded(values, bits)
    normal = (values.abs() > 1e-30) & (values.abs() < 1e38)
    off = ((found - values).double() / values.double())[normal].abs()
    assert bool((off <= 2.0 ** -(bits + 1)).all())
    assert torch.equal(rounded(found, bits), found)
    assert torch.equal(found.sign()[normal], values.sign()[normal])


def test_what_is_not_finite_stays_so() -> None:
    found = rounded(torch.tensor([torch.nan, torch.inf, -torch.inf, 0.0, -0.0]), 10)
    assert torch.isnan(found[0])
    assert found[1:].tolist() == [torch.inf, -torch.inf, 0.0, 0.0]


@given(st.integers(0, 2**32 - 1), st.permutations(range(8)))
def test_sums_do_not_depend_on_the_order(seed: int, order: list[int]) -> None:
    parts = torch.randn(8, 1000, generator=torch.Generator().manual_seed(seed))
    parts = parts.sign() * parts.abs().clamp(min=0.01)  # sizes that differ by no more than 2^10
    exact = rounded(parts, 10)
    forward, other, pairwise = exact[0].clone(), exact[order[0]].clone(), exact
    for i in range(1, 8):
        forward += exact[i]
        other += exact[order[i]]
    while len(pairwise) > 1:
        pairwise = pairwise[0::2] + pairwise[1::2]
    assert torch.equal(forward, other)
    assert torch.equal(forward, pairwise[0])


@pytest.mark.slow
@pytest.mark.parametrize("stage", [1, 2, 3])
@pytest.mark.parametrize("clip", [1e6, 0.05])
def test_any_number_of_ranks_gives_the_same_bits(tmp_path: Path, stage: int, clip: float) -> None:
    found = []
    for world_size in (1, 2, 4):
        run = toy_run(tmp_path / str(world_size), zero=ZeroConfig(stage=stage))
        run = replace(run, optim=replace(run.optim, grad_clip=clip))
        run_ranks(world_size, train, run)
        found.append(checkpoint.read_full(run.checkpoints, run.scratch))
    for other in found[1:]:
        assert all(torch.equal(other[name], tensor) for name, tensor in found[0].items())


@pytest.mark.parametrize("bits", [0, 24])
def test_more_bits_than_there_are_cannot_be_kept(bits: int) -> None:
    with pytest.raises(ConfigError, match=rf"zero\.gradient_bits is {bits}"):
        ZeroConfig(gradient_bits=bits).validate()
