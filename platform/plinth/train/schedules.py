"""The optimizer's settings and the learning rate as a pure function of the step."""

from __future__ import annotations

import math
from dataclasses import dataclass

from plinth.errors import ConfigError


@dataclass
class OptimConfig:
    """AdamW with linear warm-up and cosine decay."""

    lr: float = 1e-4
    """Peak learning rate, reached at the end of the warm-up; a parameter group's `lr_scale` multiplies it."""
    beta1: float = 0.9
    """Decay of the running mean of the gradient."""
    beta2: float = 0.98
    """Decay of the running mean of the squared gradient."""
    eps: float = 1e-8
    """Added to the root of the second moment."""
    weight_decay: float = 0.01
    """Decoupled weight decay; the stage decides which parameter groups have it."""
    warmup_steps: int = 500
    """Steps of linear warm-up from 0; fewer than the steps of the stage."""
    min_lr_ratio: float = 0.1
    """Where the cosine ends, as a part of `lr`."""
    grad_clip: float = 5.0
    """Largest norm of the gradient over all parameters; 0 does not clip."""

    def validate(self, total_steps: int | None = None) -> None:
        """Refuse values outside their range, and a warm-up that would outlast the stage.

        Raises:
            ConfigError: naming the key, its value and the range.
        """
        ranges = {
            "lr": (self.lr > 0, "above 0"),
            "beta1": (0 <= self.beta1 < 1, "in [0, 1)"),
            "beta2": (0 <= self.beta2 < 1, "in [0, 1)"),
            "eps": (self.eps > 0, "above 0"),
            "weight_decay": (self.weight_decay >= 0, "0 or more"),
            "warmup_steps": (self.warmup_steps >= 0, "0 or more"),
            "min_lr_ratio": (0 <= self.min_lr_ratio <= 1, "in [0, 1]"),
            "grad_clip": (self.grad_clip >= 0, "0 or more"),
        }
        for key, (holds, allowed) in ranges.items():
            if not holds:
                raise ConfigError(f"optim.{key} is {getattr(self, key)}, expected {allowed}.")
        if total_steps is not None and self.warmup_steps >= total_steps:
            raise ConfigError(
                f"optim.warmup_steps {self.warmup_steps} is not less than the stage's {total_steps} steps.",
                "The learning rate would never reach optim.lr: lower the one or train longer.",
            )


def lr_at(config: OptimConfig, step: int, total_steps: int) -> float:
    """Learning rate of step `step` (from 0) of a stage of `total_steps`."""
    if step < config.warmup_steps:
        return config.lr * (step + 1) / config.warmup_steps
    progress = (step - config.warmup_steps) / max(1, total_steps - config.warmup_steps)
    cosine = 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))
    return config.lr * (config.min_lr_ratio + (1 - config.min_lr_ratio) * cosine)
