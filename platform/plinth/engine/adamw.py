"""AdamW and its learning rate. The optimizer is torch's, without torch's compiler, which each of its methods
would load for the sake of code that is compiled: 27 MiB and a second or two of CPU in every worker."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from typing import Any

import torch

from plinth.engine.config import OptimConfig

# The decorators keep what they decorate, as `functools.wraps` does.
_step = inspect.unwrap(torch.optim.Adam.step)
_add_param_group = inspect.unwrap(torch.optim.Optimizer.add_param_group)
_zero_grad = inspect.unwrap(torch.optim.Optimizer.zero_grad)
_state_dict = inspect.unwrap(torch.optim.Optimizer.state_dict)
_load_state_dict = inspect.unwrap(torch.optim.Optimizer.load_state_dict)


class AdamW(torch.optim.AdamW):
    """torch's own: the same arguments, arithmetic and state. A step takes no part in a gradient
    (`differentiable`), and is not to be compiled."""

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> Any:
        """One step, as torch's."""
        return _step(self, closure)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Take one more group of parameters, as torch's."""
        _add_param_group(self, param_group)

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Drop the gradients, as torch's."""
        _zero_grad(self, set_to_none)

    def state_dict(self) -> dict[str, Any]:
        """Its state, as torch's."""
        found: dict[str, Any] = _state_dict(self)
        return found

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take a state, as torch's."""
        _load_state_dict(self, state_dict)


def lr_at(config: OptimConfig, step: int, total_steps: int) -> float:
    """Learning rate of step `step` (from 0) of a stage of `total_steps`."""
    if step < config.warmup_steps:
        return config.lr * (step + 1) / config.warmup_steps
    progress = (step - config.warmup_steps) / max(1, total_steps - config.warmup_steps)
    cosine = 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))
    return config.lr * (config.min_lr_ratio + (1 - config.min_lr_ratio) * cosine)
