"""When checkpoints are written, what happens when they cannot be, and which are kept."""

from __future__ import annotations

import enum
from collections.abc import Callable
from dataclasses import dataclass

from plinth.errors import ConfigError

UploadHook = Callable[[int, str], None]
"""Called before a file is uploaded, with the step of its checkpoint and its name. For fault injection."""


class Best(enum.Enum):
    """Which end of a metric is better."""

    lowest = "lowest"
    highest = "highest"


@dataclass
class CheckpointConfig:
    """When checkpoints are written, what happens when they cannot be, and which are kept."""

    every_steps: int = 500
    """Steps between two checkpoints; the last step always has one."""
    keep_last: int = 3
    """How many of the newest to keep; 0 keeps all."""
    keep_every_steps: int = 0
    """Also keep those whose step is a multiple of this; 0 for none."""
    keep_best: int = 0
    """Also keep this many of the best by `best_metric`."""
    best_metric: str = "loss"
    """What decides the best: loss, or a loss term or log of the stage, at the step of the checkpoint; or a
    measure of an evaluation beside the training."""
    best: Best = Best.lowest
    """Whether the lowest or the highest is best."""
    asynchronous: bool = True
    """Continue training while a checkpoint is written and uploaded; it waits only for a copy in memory."""
    away_retry_s: float = 10.0
    """Seconds between tries while the storage is away (each try has its own retries, see storage)."""
    away_limit_s: float = 600.0
    """How long the end of a stage waits while the storage is away before the run fails. The checkpoint stays
    on the worker's disk; the same command uploads it."""
    keep_waiting: int = 2
    """Checkpoints that may wait on the worker's disk while the storage is away; older ones are dropped."""
    max_failed: int = 3
    """How many checkpoints in a row may fail for other reasons (a full disk) before the run stops."""

    def validate(self) -> None:
        """Raise a ConfigError that names a value out of range."""
        least = {"every_steps": 1, "keep_last": 0, "keep_every_steps": 0, "keep_best": 0, "max_failed": 0}
        for key, value in (least | {"keep_waiting": 1, "away_limit_s": 0}).items():
            if getattr(self, key) < value:
                raise ConfigError(f"checkpoint.{key} is {getattr(self, key)}, expected {value} or more.")
        if not self.away_retry_s > 0:
            raise ConfigError(f"checkpoint.away_retry_s is {self.away_retry_s}, expected more than 0.")
