"""How training ended: what workers tell their driver, which loads nothing of training to read it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass
class StageEnd:
    """How a call of `run_stage` ended."""

    summary: dict[str, Any] = field(default_factory=dict)
    """The numbers of the last step; empty if the stage had ended before."""
    is_stopped: bool = False
    """Whether it stopped on request, after a checkpoint, before the stage's end."""
