"""Which way gradients take, and the norm; that both ways give the same bits is in tests/parity."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from plinth.engine.config import Precision, ZeroConfig
from plinth.engine.gradients import ExactNorm, is_short, square

ELEMENTS = 100


def test_what_fits_in_one_message_takes_the_short_way() -> None:
    for stage, expected in ((0, False), (1, True), (2, True), (3, False)):
        assert is_short(ZeroConfig(stage=stage, bucket_size=100), ELEMENTS) is expected
        assert not is_short(ZeroConfig(stage=stage, bucket_size=99), ELEMENTS)


@pytest.mark.parametrize(
    "changes",
    [
        {"overlap_communication": True},
        {"stage": 1, "precision": Precision.bf16},
        {"precision": Precision.bf16, "accumulate_precision": Precision.bf16},
        {"precision": Precision.bf16, "communicate_precision": Precision.bf16},
    ],
)
def test_what_only_deepspeed_can_do_takes_the_long_way(changes: dict[str, object]) -> None:
    assert not is_short(ZeroConfig(**{"stage": 2, **changes}), ELEMENTS)  # type: ignore[arg-type]
    assert is_short(ZeroConfig(stage=2, precision=Precision.bf16), ELEMENTS)


@given(seed=st.integers(0, 2**16), parts=st.integers(1, 5), scale=st.integers(-60, 60))
def test_norm_is_that_of_float64(seed: int, parts: int, scale: int) -> None:
    """However the gradient is cut."""
    generator = torch.Generator().manual_seed(seed)
    values = torch.ldexp(torch.randn(60, generator=generator), torch.tensor(scale))
    squares = sum(square([part]).item() for part in values.chunk(parts))
    norm = ExactNorm()
    assert norm.expect(np.array([squares, 0.0]))
    expected = values.double().square().sum().sqrt().float()
    assert norm((), ()).item() == pytest.approx(expected.item(), rel=1e-7)
    assert norm((), ()).item() == 0.0


def test_norm_that_is_not_finite_is_seen_and_refused() -> None:
    norm = ExactNorm()
    for bad in (math.inf, math.nan):
        assert not norm.expect(np.array([1.0, square([torch.tensor([1.0, bad])]).item()]))
    norm.refuse(2)
    assert [norm((), ()).item() for _ in range(2)] == [-1.0, -1.0]
