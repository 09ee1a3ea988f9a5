"""Fault injection: what `poma prove-resume` does to the runs that it compares.

A fault fires once, in the middle of one optimizer step of one stage, on one rank. A mark in the run's storage
records that it fired, so that the resumed run is left alone.
"""

from __future__ import annotations

import enum
import os
import signal
import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from plinth.storage import Storage
from plinth.train.resolve import ResolvedStage

MARKS = "drills"


class Action(enum.Enum):
    """What happens."""

    kill_rank = "kill -9 of a worker in the middle of a step"
    stop_rank = "SIGSTOP of a worker in the middle of a step"
    kill_in_upload = "kill -9 of a worker while its checkpoint is being uploaded"
    hold = "the worker waits, so that the driver can be dealt with"


@dataclass(frozen=True)
class Fault:
    """One fault."""

    name: str
    action: Action
    stage: str
    after_steps: int
    """Steps of the stage, counted from where the process began."""
    rank: int = 0
    hold_s: float = 20.0
    """How long `hold` waits: for a stop, which saves after the step, or for the kill."""

    @property
    def key(self) -> str:
        """Its mark in the run's folder."""
        return f"{MARKS}/{self.name}"


def with_faults(
    stages: Sequence[ResolvedStage], faults: Sequence[Fault], storage: Storage
) -> list[ResolvedStage]:
    """The stages with their faults.

    Args:
        storage: the run's folder.
    """
    found = []
    for stage in stages:
        injector = _Injector(stage.build_stage, [f for f in faults if f.stage == stage.name], storage)
        found.append(replace(stage, build_stage=injector.build_stage, on_upload=injector.on_upload))
    return found


@dataclass
class _Injector:
    """The faults of a stage, in a worker: called by its steps and by its uploads."""

    build: Callable[..., Any]
    faults: list[Fault]
    storage: Storage
    steps: int = 0
    kills_next_upload: bool = False
    uploading: set[int] = field(default_factory=set)
    """Steps of the checkpoints whose upload began after the fault fired."""

    def build_stage(self, sources: Any) -> Any:
        """The stage; its faults fire between the forward passes of a step and the backward."""
        stage = self.build(sources)
        contrast, momentum = stage.contrast, stage.ema_momentum

        def contrast_with_faults(features: Any) -> Any:  # called once per step
            for fault in self.faults:
                if fault.after_steps == self.steps and fault.rank == int(os.environ["RANK"]):
                    self._fire(fault)
            return contrast(features)

        def counted_momentum(progress: float) -> Any:  # called once per step, at its end
            self.steps += 1
            return momentum(progress)

        self.steps = 0
        stage.contrast, stage.ema_momentum = contrast_with_faults, counted_momentum
        return stage

    def on_upload(self, step: int, name: str) -> None:
        """Kill this process after the first file of the next checkpoint, before its second."""
        if not self.kills_next_upload:
            return
        if step in self.uploading:
            os.kill(os.getpid(), signal.SIGKILL)
        self.uploading.add(step)

    def _fire(self, fault: Fault) -> None:
        note = f"pid {os.getpid()} on {socket.gethostname()} at {time.time()}".encode()
        if not self.storage.create(fault.key, note):
            return
        if fault.action is Action.kill_rank:
            os.kill(os.getpid(), signal.SIGKILL)
        elif fault.action is Action.stop_rank:
            os.kill(os.getpid(), signal.SIGSTOP)
        elif fault.action is Action.kill_in_upload:
            self.kills_next_upload = True
        else:
            time.sleep(fault.hold_s)
