"""AdamW is torch's own to the bit, and does not load torch's compiler; the learning rate over a stage."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from plinth.engine.adamw import AdamW, lr_at
from plinth.engine.config import OptimConfig
from plinth.errors import ConfigError

STEPS = 4
CONFIG = OptimConfig(lr=2.0, warmup_steps=4, min_lr_ratio=0.1)


def trained(
    kind: type[torch.optim.AdamW], steps: int, state: dict[str, Any] | None = None
) -> tuple[list[Tensor], dict[str, Any]]:
    """Parameters of two groups and the state after some steps."""
    drawn = torch.Generator().manual_seed(1)
    parameters = [torch.randn(5, 3, generator=drawn), torch.randn(7, generator=drawn)]
    for parameter in parameters:
        parameter.requires_grad_()
    first, second = parameters
    optimizer = kind([{"params": [first], "weight_decay": 0.3}], lr=0.1, betas=(0.8, 0.9), eps=1e-6)
    optimizer.add_param_group({"params": [second], "weight_decay": 0.0, "lr": 0.01})
    if state is not None:
        optimizer.load_state_dict(state)
    for _ in range(steps):
        optimizer.zero_grad()
        (first.square().sum() + (second**3).sum()).backward()
        optimizer.step()
    return [parameter.detach() for parameter in parameters], optimizer.state_dict()


def test_bits_are_those_of_torch() -> None:
    (ours, our_state), (theirs, their_state) = trained(AdamW, STEPS), trained(torch.optim.AdamW, STEPS)
    assert all(map(torch.equal, ours, theirs))
    assert our_state["param_groups"] == their_state["param_groups"]
    assert list(our_state["state"]) == list(their_state["state"]) == [0, 1]
    for number, values in their_state["state"].items():
        assert all(torch.equal(our_state["state"][number][name], value) for name, value in values.items())
    (ours, _), (theirs, _) = trained(AdamW, 2, our_state), trained(torch.optim.AdamW, 2, their_state)
    assert all(map(torch.equal, ours, theirs))


def test_a_step_with_a_closure_returns_its_loss() -> None:
    parameter = torch.ones(2, requires_grad=True)
    optimizer = AdamW([parameter])

    def loss() -> float:
        optimizer.zero_grad()
        found = parameter.square().sum()
        found.backward()
        return float(found.detach())

    assert optimizer.step(loss) == 2


@pytest.mark.slow
def test_the_compiler_is_not_loaded() -> None:
    program = (
        "import sys, torch\n"
        "from plinth.engine.adamw import AdamW\n"
        "parameter = torch.ones(2, requires_grad=True)\n"
        "optimizer = AdamW([parameter])\n"
        "parameter.sum().backward(); optimizer.step(); optimizer.zero_grad()\n"
        "optimizer.load_state_dict(optimizer.state_dict())\n"
        "print('torch._dynamo' in sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False"]


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
