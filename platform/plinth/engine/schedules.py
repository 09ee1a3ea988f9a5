"""The learning rate as a pure function of the step."""

from __future__ import annotations

import math

from plinth.engine.config import OptimConfig


def lr_at(config: OptimConfig, step: int, total_steps: int) -> float:
    """Learning rate of step `step` (from 0) of a stage of `total_steps`."""
    if step < config.warmup_steps:
        return config.lr * (step + 1) / config.warmup_steps
    progress = (step - config.warmup_steps) / max(1, total_steps - config.warmup_steps)
    cosine = 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))
    return config.lr * (config.min_lr_ratio + (1 - config.min_lr_ratio) * cosine)
