"""`benchmarks.memory`: the engine runs on fake tensors, and its peak is near what `poma plan` says."""

from __future__ import annotations

import pytest

from benchmarks.memory import Case, child

SMALL = Case(
    "warmup", "full", width=64, layers=1, heads=1, patch=16, views=2, samples=8, stage=2, precision="bf16",
    world_size=2,
)  # fmt: skip


@pytest.mark.slow
def test_the_engine_is_tracked_on_fake_tensors() -> None:
    found = child("track", SMALL)
    assert 0.5 < found["plan"] / found["peak"] < 2
