"""The learning rate over a stage."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plinth.engine.config import OptimConfig
from plinth.engine.schedules import lr_at
from plinth.errors import ConfigError

CONFIG = OptimConfig(lr=2.0, warmup_steps=4, min_lr_ratio=0.1)


def test_warm_up_is_linear_and_ends_at_the_peak() -> None:
    assert [lr_at(CONFIG, step, 20) for step in range(5)] == [0.5, 1.0, 1.5, 2.0, 2.0]


def test_cosine_halves_in_the_middle_and_ends_at_the_floor() -> None:
    assert lr_at(CONFIG, 12, 20) == pytest.approx(2.0 * (0.1 + 0.9 * 0.5))
    assert lr_at(CONFIG, 20, 20) == pytest.approx(0.2)
    assert lr_at(CONFIG, 99, 20) == pytest.approx(0.2)


@given(warmup=st.integers(0, 30), total=st.integers(31, 200))
def test_rises_then_falls_within_bounds(warmup: int, total: int) -> None:
    config = OptimConfig(lr=1.0, warmup_steps=warmup, min_lr_ratio=0.2)
    rates = [lr_at(config, step, total) for step in range(total)]
    peak = rates.index(max(rates))
    assert rates[:peak] == sorted(rates[:peak])
    assert rates[peak:] == sorted(rates[peak:], reverse=True)
    assert min(rates) > 0
    assert max(rates) == pytest.approx(1.0)
    assert min(rates[warmup:]) >= 0.2


@pytest.mark.parametrize(
    ("key", "value"),
    [("lr", 0.0), ("beta1", 1.0), ("beta2", -0.1), ("eps", 0.0), ("grad_clip", -1.0), ("min_lr_ratio", 2.0)],
)
def test_values_out_of_range_are_refused(key: str, value: float) -> None:
    with pytest.raises(ConfigError, match=rf"optim\.{key} is {value}, expected"):
        OptimConfig(**{key: value}).validate()


def test_warmup_as_long_as_stage_is_refused() -> None:
    OptimConfig(warmup_steps=9).validate(total_steps=10)
    with pytest.raises(ConfigError, match=r"warmup_steps 10 is not less than the stage's 10 steps"):
        OptimConfig(warmup_steps=10).validate(total_steps=10)
