"""Faults on purpose: what `poma prove-resume` does to the runs that it compares.

A drill goes off once, in the middle of one optimizer step of one stage, on one rank. Its mark in the run's
storage says that it did, so that the run that goes on afterwards is left alone.
"""

from __future__ import annotations

import enum
import json
import os
import signal
import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from plinth.checkpoint import delivery
from plinth.checkpoint.store import folder_name
from plinth.storage import Storage
from plinth.train.stage_run import StageRun

MARKS = "drills"


class Action(enum.Enum):
    """What happens."""

    kill_rank = "kill -9 of a worker in the middle of a step"
    kill_in_upload = "kill -9 of a worker while its checkpoint is being uploaded"
    hold = "the worker waits, so that the driver can be dealt with"


@dataclass(frozen=True)
class Drill:
    """One fault."""

    name: str
    action: Action
    stage: str
    after_steps: int
    """Of the stage, counted from where the process began."""
    rank: int = 0
    hold_s: float = 20.0
    """How long `hold` waits: for a stop, which saves after the step, or for the end."""

    @property
    def key(self) -> str:
        """Its mark in the run's folder."""
        return f"{MARKS}/{self.name}"


def armed(runs: Sequence[StageRun], drills: Sequence[Drill], storage: Storage) -> list[StageRun]:
    """The stages with their drills.

    Args:
        storage: the run's folder.
    """
    return [
        replace(run, build_stage=_Armed(run.build_stage, [d for d in drills if d.stage == run.name], storage))
        for run in runs
    ]


@dataclass
class _Armed:
    """A `build_stage` whose stage meets drills."""

    build: Callable[..., Any]
    drills: list[Drill]
    storage: Storage

    def __call__(self, sources: Any) -> Any:
        stage = self.build(sources)
        contrast, progress = stage.contrast, stage.ema_momentum

        def with_drill(features: Any) -> Any:  # once a step, between the forward passes and the backward
            for drill in self.drills:
                if drill.after_steps == steps[0] and drill.rank == int(os.environ["RANK"]):
                    _go_off(drill, self.storage)
            return contrast(features)

        def counted(done: float) -> Any:  # once a step, at its end
            steps[0] += 1
            return progress(done)

        steps = [0]
        stage.contrast, stage.ema_momentum = with_drill, counted
        return stage


def _go_off(drill: Drill, storage: Storage) -> None:
    note = f"pid {os.getpid()} on {socket.gethostname()} at {time.time()}".encode()
    if not storage.create(drill.key, note):
        return
    if drill.action is Action.kill_rank:
        os.kill(os.getpid(), signal.SIGKILL)
    elif drill.action is Action.kill_in_upload:
        _kill_at_next_upload()
    else:
        time.sleep(drill.hold_s)


def _kill_at_next_upload() -> None:
    """Of the next checkpoint, one file is uploaded by this rank, and then the process is gone."""

    def deliver(storage: Storage, folder: Path) -> None:
        receipt = json.loads((folder / delivery.RECEIPT_KEY).read_text())
        name = next(iter(receipt["files"]))
        storage.child(folder_name(receipt["step"])).upload(folder / name, name)
        os.kill(os.getpid(), signal.SIGKILL)

    delivery.deliver = deliver  # type: ignore[assignment]
