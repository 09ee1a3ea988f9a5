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


def way_come(config: EmaConfig, steps: int, total_steps: int) -> float:
    """How far the target encoder has come from its start after `steps` of a stage, 0 to 1: one minus the
    weight that its first values still have in the average, the product of the momenta so far.

    40 steps at 0.996 to 1 give 0.08: what is exported then is the teacher's image tower and little else.
    """
    still = 1.0
    for step in range(steps):
        still *= momentum(config, step / max(1, total_steps - 1))
    return 1 - still
