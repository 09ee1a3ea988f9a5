"""A sweep over the toy stage: what its trials do, and how to watch it from outside."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from plinth.checkpoint.config import CheckpointConfig
from plinth.engine.config import OptimConfig
from plinth.launch.config import FitConfig, Workers
from plinth.launch.fit import fit
from plinth.launch.placement import TrialPlacement
from plinth.storage import Storage
from plinth.sweep import schedulers
from plinth.sweep.config import SchedulerConfig, SchedulerKind, SweepConfig
from plinth.sweep.driver import SweepDriver
from plinth.sweep.records import (
    REPORTS_KEY,
    TRIALS,
    StageLength,
    SweepRecord,
    Trial,
    Values,
    read_sweep,
    read_trials,
)
from plinth.sweep.space import Dimension
from plinth.sweep.trial import TrialTask
from tests.helpers.toy.run import GLOBAL_BATCH, build, build_waiting, toy_run

STEPS, EVERY = 8, 2
CPUS = 0.4
"""Of a worker; with the driver's 0.1, two trials on one CPU."""
LR = [1e-2, 5e-3, 2e-3, 1e-6]
GROUP_KEY = "group"
"""In a trial's folder: which placement group it has, in hexadecimal."""
PATIENCE_S = 300


def toy_config(kind: SchedulerKind = SchedulerKind.asha, **changes: Any) -> SweepConfig:
    """Four trials, one for each learning rate, the best one first."""
    return SweepConfig(
        space={"lr": Dimension(grid=LR)},
        trials=len(LR),
        include_default=False,
        scheduler=SchedulerConfig(kind, grace=0.25),
        **changes,
    )


def driver(
    folder: Path, config: SweepConfig, name: str = "s", die_once: int | None = None, ram: float = 0,
    hold: Path | None = None,
) -> SweepDriver:  # fmt: skip
    """A sweep in `folder`/name over the data in `folder`.

    Args:
        die_once: index of a trial whose process kills itself in mid-run, once.
        ram: bytes that a worker asks for, beside its CPUs.
        hold: trials report once and wait until there is this file.
    """
    toy_run(folder)  # makes the data
    storage = Storage.from_uri(folder / name)
    record = read_sweep(storage) or SweepRecord(
        name=name, metric=config.metric, mode=config.mode.value, scheduler=config.scheduler.kind.value,
        searcher=config.searcher.value, seed=config.seed, trials=config.trials, identity={},
        samples=STEPS * GLOBAL_BATCH,
    )  # fmt: skip
    record.starts += 1
    task = TrialTask(
        storage=storage,
        train=partial(train, folder, storage, die_once, hold),
        lengths=lengths,
        time_units=schedulers.units(config),
        metric=config.metric,
        mode=config.mode.value,
        measure=None,
    )
    return SweepDriver(
        config=config, storage=storage, task=task, record=record,
        resources={"CPU": CPUS} | ({"memory": ram} if ram else {}), admit=admit, show=nothing,
        start_timeout_s=3.0,
    )  # fmt: skip


def train(
    folder: Path, storage: Storage, die_once: int | None, hold: Path | None, name: str, values: Values,
    placement: TrialPlacement, changed: bool,
) -> None:  # fmt: skip
    """What a trial does."""
    run_storage = storage.child(TRIALS).child(name)
    run_storage.write(GROUP_KEY, placement.group.id.hex().encode())
    run = toy_run(
        folder,
        storage=run_storage.child("toy"),
        build_stage=partial(build_waiting, hold) if hold else build,
        optim=OptimConfig(lr=values["lr"], warmup_steps=2, grad_clip=1.0),
        steps=STEPS,
        checkpoint=CheckpointConfig(every_steps=EVERY, keep_last=2),
        config={"optim": {"lr": values["lr"]}},
        check_resume=nothing if changed else None,
    )
    marker = folder / "has-died"
    if die_once == int(name) and not marker.exists():
        threading.Thread(target=_die, args=(run_storage, marker), daemon=True).start()
    fit(FitConfig(workers=Workers(1, 1), cpus_per_worker=CPUS), [run], run_storage, None, placement)


def train_nothing(
    storage: Storage,
    name: str,
    values: Values,
    placement: TrialPlacement,
    changed: bool,
    pause_s: float = 0.3,
) -> None:
    """What a trial does where no training is needed: every `pause_s` it reports a loss of 1000 times its
    learning rate, as at a checkpoint, until it is asked to stop."""
    import ray

    from plinth.launch.coordinator import Coordinator

    coordinator = ray.remote(num_cpus=0)(Coordinator).remote(0.0, storage, 30.0)
    placement.attach(coordinator)
    for step in range(EVERY, STEPS + 1, EVERY):
        summary = {"stage": "toy", "step": step, "samples": step * GLOBAL_BATCH, "loss": 1000 * values["lr"]}
        ray.get(coordinator.add_report.remote(summary))
        until = time.monotonic() + pause_s
        while time.monotonic() < until:
            if ray.get(coordinator.requests.remote())[0]:
                return
            time.sleep(0.1)


class Watched:
    """A sweep in a thread of its own, and what can be seen of it from outside."""

    def __init__(self, sweep: SweepDriver) -> None:
        self.sweep = sweep
        self._thread = threading.Thread(target=sweep.run, daemon=True)
        self._thread.start()

    @property
    def is_running(self) -> bool:
        return self._thread.is_alive()

    def until(self, is_true: Callable[[], bool], what: str) -> None:
        """Wait for that; fails if the sweep ends before it."""
        deadline = time.monotonic() + PATIENCE_S
        while not is_true():
            assert self.is_running, f"{what}: the sweep ended before"
            assert time.monotonic() < deadline, what
            time.sleep(0.1)

    def trials(self) -> list[Trial]:
        return read_trials(self.sweep.storage)

    def reported(self) -> set[str]:
        """Names of the trials that have got so far."""
        return {t.record.name for t in self.trials() if t.history.reports}

    def end(self) -> None:
        """Wait for the sweep's end."""
        self._thread.join(PATIENCE_S)
        assert not self.is_running


def reserved() -> set[str]:
    """The placement groups that hold resources."""
    import ray

    groups = ray.util.placement_group_table().items()
    return {name for name, group in groups if group["state"] == "CREATED"}


def _die(trial: Storage, marker: Path) -> None:
    """Kill this process once the trial has reported."""
    while not trial.exists(REPORTS_KEY):
        time.sleep(0.01)
    marker.write_text("once")
    os.kill(os.getpid(), signal.SIGKILL)


def lengths(values: Values) -> dict[str, StageLength]:
    """Of the one stage."""
    return {"toy": StageLength(STEPS, STEPS * GLOBAL_BATCH, EVERY)}


def admit(values: Values) -> None:
    """All values will do."""


def nothing(*_: Any) -> None:
    """Do nothing."""
