"""AdamW and its learning rate. The optimizer is torch's, without torch's compiler, which each of its methods
would load for the sake of code that is compiled: 27 MiB and a second or two of CPU in every worker."""

from __future__ import annotations

import inspect
import math

import torch

from plinth.engine.config import OptimConfig


class AdamW(torch.optim.AdamW):
    """torch's own: the same arguments, arithmetic and state. A step takes no part in a gradient
    (`differentiable`), and is not to be compiled."""

    # torch's methods as they were written: what decorates them loads the compiler, and keeps them.
    step = torch.no_grad()(inspect.unwrap(torch.optim.Adam.step))
    add_param_group = inspect.unwrap(torch.optim.Optimizer.add_param_group)
    zero_grad = inspect.unwrap(torch.optim.Optimizer.zero_grad)
    state_dict = inspect.unwrap(torch.optim.Optimizer.state_dict)
    load_state_dict = inspect.unwrap(torch.optim.Optimizer.load_state_dict)


def lr_at(config: OptimConfig, step: int, total_steps: int) -> float:
    """Learning rate of step `step` (from 0) of a stage of `total_steps`."""
    if step < config.warmup_steps:
        return config.lr * (step + 1) / config.warmup_steps
    progress = (step - config.warmup_steps) / max(1, total_steps - config.warmup_steps)
    cosine = 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))
    return config.lr * (config.min_lr_ratio + (1 - config.min_lr_ratio) * cosine)
