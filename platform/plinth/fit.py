"""Run the stages of a job on workers: Ray Train, or this process alone.

A worker trains all stages one after the other (`plinth.train.loop`). Which stage it is in and how far is
in the run's storage, so starting a job again, by hand or by Ray after a worker was lost, resumes it.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

from plinth.errors import ConfigError
from plinth.storage import Storage
from plinth.train import attempt as attempts
from plinth.train import process
from plinth.train.control import Control, on_stop_signals
from plinth.train.loop import StageEnd, run_stage
from plinth.train.stage_run import StageRun, preflight
from plinth.world import possible_world_sizes

if TYPE_CHECKING:
    from plinth.room import Room


@dataclass
class Workers:
    """How many training processes: a range, or in short a number for exactly so many."""

    min: int = 1
    """Fewest workers to train on; with fewer the run waits."""
    max: int = 1
    """Most workers; the run grows and shrinks with the cluster between the two. 0 trains in this process,
    without Ray."""

    @staticmethod
    def from_number(number: int) -> dict[str, int]:
        """What `workers: 4` in a job file stands for."""
        return {"min": number, "max": number}


@dataclass
class FitConfig:
    """Workers, and what each of them has."""

    workers: Workers = field(default_factory=Workers)
    """Training processes of Ray Train. The result does not depend on how many, nor on their coming and
    going."""
    cpus_per_worker: float = 1.0
    """CPUs that Ray reserves for a worker; may be a fraction, so that reading tasks have room beside it."""
    gpus_per_worker: float = 0.0
    """GPUs that Ray reserves for a worker."""
    threads_per_worker: int = 1
    """Threads of torch's operators in a worker. More of them than cores make all workers slower."""
    deterministic_kernels: bool = True
    """On GPUs, take kernels that give the same bits every time where torch has them: others add with atomics,
    in any order."""
    max_failures: int = 3
    """How often lost workers, or a failed start of them, are started again, from the last checkpoint."""
    max_preemptions: int = 100
    """How often workers are started again that were taken away with a notice; counted for themselves."""
    start_timeout_s: float = 120.0
    """How long a try waits until the cluster has room for the workers and they have started."""
    resize_check_s: float = 30.0
    """Seconds between two looks whether the cluster has room for more workers."""

    def validate(self) -> None:
        """Refuse values out of range.

        Raises:
            ConfigError: naming the key.
        """
        least = {"gpus_per_worker": 0, "threads_per_worker": 1, "max_failures": 0, "max_preemptions": 0}
        for key, value in least.items():
            if getattr(self, key) < value:
                raise ConfigError(f"fit.{key} is {getattr(self, key)}, expected {value} or more.")
        for key in ("cpus_per_worker", "start_timeout_s", "resize_check_s"):
            if not getattr(self, key) > 0:
                raise ConfigError(f"fit.{key} is {getattr(self, key)}, expected more than 0.")
        low, high = self.workers.min, self.workers.max
        if low < 0:
            raise ConfigError(f"fit.workers.min is {low}, expected 0 or more.")
        if low > high or (low == 0 < high):
            raise ConfigError(
                f"fit.workers is {low} to {high}.", "Give a range from 1 on, or 0 to train without Ray."
            )


def fit(
    config: FitConfig,
    stages: Sequence[StageRun],
    storage: Storage,
    stop: threading.Event | None = None,
    room: Room | None = None,
) -> StageEnd:
    """Train the stages in order, resuming where the run stopped. With workers, join a Ray cluster before.

    Args:
        storage: the run's folder; Ray Train keeps its own state below it.
        stop: when it is set, the run saves and ends, as on SIGTERM or Ctrl-C.
        room: the resources to train in, if they are reserved already (a trial of a sweep).

    Returns:
        The numbers of the last step that was trained, and whether the run was told to stop before its end.

    Raises:
        PlinthError: a mistake in the job, before anything starts or from a worker.
        WorkersLostError: workers were lost, or failed, more than `max_failures` times.
    """
    config.validate()
    sizes = possible_sizes(config, stages)
    if config.workers.max == 0:
        control = Control(stop)
        with on_stop_signals(control.request_stop):
            return train_stages(stages, storage, config, None, control)
    from plinth import fit_ray  # here, because importing Ray takes seconds

    train = partial(
        train_stages, stages, storage, config, config.gpus_per_worker > 0,
        label=room.label if room is not None else "",
    )  # fmt: skip
    return fit_ray.run(config, sizes, train, storage, stop, room, stages[0].run_id)


def possible_sizes(config: FitConfig, stages: Sequence[StageRun]) -> list[int]:
    """Numbers of workers that divide the lanes and the batch of every stage, within the job's range.

    Raises:
        PlinthError: there is none, or another mistake in a stage.
    """
    low, high = max(1, config.workers.min), max(1, config.workers.max)
    for run in stages:
        preflight(run, low if low == high else 1)
    every = set(range(1, max(run.data.lanes for run in stages) + 1))
    for run in stages:
        every &= set(possible_world_sizes(run.data.lanes, run.global_batch_size, run.micro_batch_size))
    sizes = sorted(size for size in every if low <= size <= high)
    if not sizes:
        raise ConfigError(
            f"No number of workers from {low} to {high} divides lanes and micro-batches of all stages.",
            f"Possible are {sorted(every)}.",
        )
    return sizes


def train_stages(
    stages: Sequence[StageRun], storage: Storage, config: FitConfig, use_gpu: bool | None, control: Control,
    label: str = "",
) -> StageEnd:  # fmt: skip
    """What a worker does; see `plinth.train.process.start` for the GPU and the label."""
    started = process.start(config.threads_per_worker, use_gpu, label, config.deterministic_kernels)
    end = StageEnd()
    first = stages[0]
    with attempts.begin(started, storage, first.run_id, control, first.metrics.logs_every_s) as attempt:
        for run in stages:
            this = run_stage(run, started, control, attempt)
            end = this if this.summary else end
            if this.is_stopped:
                break
    return end
