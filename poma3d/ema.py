"""The momentum of the target encoder's moving average, which whoever trains the stage keeps in float32.

At a momentum of 0.996 and more a bfloat16 average stops moving.
"""

from __future__ import annotations

from poma3d.network.config import EmaConfig


def validate(config: EmaConfig) -> None:
    """Refuse a momentum outside [0, 1].

    Raises:
        ValueError: naming both fields.
    """
    if not (0 <= config.momentum_start <= 1 and 0 <= config.momentum_end <= 1):
        raise ValueError(
            f"ema.momentum_start {config.momentum_start} and ema.momentum_end {config.momentum_end} "
            "must lie in [0, 1]"
        )


def momentum(config: EmaConfig, progress: float) -> float:
    """Momentum at `progress` in [0, 1] of the stage."""
    progress = min(max(progress, 0.0), 1.0)
    return config.momentum_start + (config.momentum_end - config.momentum_start) * progress
