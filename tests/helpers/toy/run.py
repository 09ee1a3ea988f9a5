"""A whole stage of training in miniature: a data set on disk, the toy stage, and what `run_stage` is told."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from plinth.checkpoint.config import CheckpointConfig
from plinth.data.config import DataConfig, ReaderKind, SourceConfig
from plinth.data.sources import OpenSource
from plinth.engine.config import OptimConfig, ZeroConfig
from plinth.observe.config import MetricsConfig
from plinth.storage import Storage
from plinth.train.resolve import ResolvedStage, StageSpec, resolve
from tests.helpers.datasets import decode, make_data_set
from tests.helpers.toy.stage import INPUT, JOINT, VIEWS, ToyStage

SHAPES = {"x": ("float32", (VIEWS, INPUT)), "y": ("float32", (VIEWS, JOINT))}
ROWS = (20, 17, 9)
GLOBAL_BATCH = 8


def toy_run(folder: Path, **changes: Any) -> ResolvedStage:
    """A stage of 12 steps (two epochs) over a data set in `folder`, which is made at the first call."""
    return resolve(toy_spec(folder, **changes))


def toy_spec(folder: Path, **changes: Any) -> StageSpec:
    """The same before it is resolved."""
    if not (folder / "data").exists():
        make_data_set(folder / "data", ROWS, shapes=SHAPES)
    spec = StageSpec(
        name="toy",
        storage=Storage.from_uri(folder / "run" / "toy"),
        build_stage=build,
        decode=wave,
        data=DataConfig(
            sources=[SourceConfig(uri=str(folder / "data"))],
            lanes=4,
            window_row_groups=2,
            reader=ReaderKind.threads,
        ),
        global_batch_size=GLOBAL_BATCH,
        micro_batch_size=2,
        steps=12,
        seed=3,
        optim=OptimConfig(lr=5e-3, warmup_steps=2, grad_clip=1.0),
        zero=ZeroConfig(stage=2),
        checkpoint=CheckpointConfig(every_steps=4, keep_last=2),
        metrics=MetricsConfig(progress_every_s=0, pictures_every_steps=5, details_every_steps=3),
        config={"optim": {"lr": 5e-3}},
        scratch_dir=str(folder / "scratch"),
    )
    return replace(spec, **changes)


def wave(table: pa.Table, columns: Sequence[str]) -> dict[str, np.ndarray]:
    """The data set's whole numbers as a wave between -1 and 1."""
    return {name: np.sin(values) for name, values in decode(table, columns).items()}


def build(sources: Sequence[OpenSource]) -> ToyStage:
    """The toy stage, whatever the data."""
    return ToyStage()


def build_dying(marker: Path, sources: Sequence[OpenSource]) -> ToyStage:
    """A stage that kills a worker once, and then writes `marker`."""
    return StageThatDies(marker)


def build_stopped(marker: Path, sources: Sequence[OpenSource]) -> ToyStage:
    """A stage that stops a worker's process once, and then writes `marker`."""
    return StageThatDies(marker, signal.SIGSTOP)


def build_stuck(marker: Path, sources: Sequence[OpenSource]) -> ToyStage:
    """A stage whose rank 1 once never comes to the collective in which rank 0 waits for it."""
    return StageThatDies(marker, None)


def build_nan(attempts: Path, sources: Sequence[OpenSource]) -> ToyStage:
    """A stage that gives a NaN; adds a line to `attempts` every time that it is built."""
    with attempts.open("a") as file:
        file.write("built\n")
    return StageOfNan()


def build_bug(sources: Sequence[OpenSource]) -> ToyStage:
    """A stage with a bug."""
    raise RuntimeError("a bug in the stage")


def build_slow(sources: Sequence[OpenSource]) -> ToyStage:
    """The toy stage at a pace at which a test can change the cluster under it."""
    return SlowStage()


def build_waiting(marker: Path, sources: Sequence[OpenSource]) -> ToyStage:
    """A stage that does not get far before there is `marker`."""
    return StageThatWaits(marker)


def found_of(marker: Path, stage: str, step: int) -> dict[str, float]:
    """An evaluation, which says in which process it ran."""
    with marker.open("a") as file:
        file.write(f"{stage} {step} {os.getpid()} {os.getppid()} {os.nice(0)}\n")
    return {"R@1-1": step / 100}


def endless(marker: Path, stage: str, step: int) -> dict[str, float]:
    """An evaluation that does not end; the marker has its pid."""
    marker.write_text(f"{os.getpid()}\n")
    while True:
        time.sleep(1)


class SlowStage(ToyStage):
    """Takes its time over a step."""

    def contrast(self, features: dict[str, Any]) -> Any:
        time.sleep(0.25)
        return super().contrast(features)


class StageThatDies(ToyStage):
    """Sends its own process a signal, once, in the middle of step `DIES_AT` on rank 1.

    Args:
        marker: a file that says that it has happened.
        number: of the signal; None: sleep for ever.
    """

    DIES_AT = 6

    def __init__(self, marker: Path, number: signal.Signals | None = signal.SIGKILL) -> None:
        super().__init__()
        self.marker, self.number = marker, number
        self.calls = 0

    def contrast(self, features: dict[str, Any]) -> Any:
        self.calls += 1  # once a step
        if self.calls == self.DIES_AT + 1 and os.environ["RANK"] == "1" and not self.marker.exists():
            self.marker.write_text(str(time.time()))
            if self.number is not None:
                os.kill(os.getpid(), self.number)
            while self.number is None:
                time.sleep(1)
        return super().contrast(features)


class StageThatWaits(ToyStage):
    """Waits in the middle of step `WAITS_AT`, counted from where it started, until a file exists."""

    WAITS_AT = 3

    def __init__(self, marker: Path) -> None:
        super().__init__()
        self.marker = marker
        self.calls = 0

    def contrast(self, features: dict[str, Any]) -> Any:
        self.calls += 1
        while self.calls == self.WAITS_AT + 1 and not self.marker.exists():
            time.sleep(0.05)
        return super().contrast(features)


class StageOfNan(ToyStage):
    """Gives a loss that is not finite at its third step."""

    def contrast(self, features: dict[str, Any]) -> Any:
        contrast = super().contrast(features)
        self.calls = getattr(self, "calls", 0) + 1
        return replace(contrast, total=contrast.total * (float("nan") if self.calls == 3 else 1.0))
