"""AdamW is torch's own to the bit, and does not load torch's compiler."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
import torch
from torch import Tensor

from plinth.engine.adamw import AdamW

STEPS = 4


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
        "assert 'torch._dynamo' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
