"""Run the stages of a job on workers: Ray Train, or this process alone.

A worker trains all stages one after the other (`plinth.train.loop`). Which stage it is in and how far is
in the run's storage, so starting a job again, by hand or by Ray after a worker was lost, resumes it.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from plinth.errors import ConfigError, PlinthError, StorageError
from plinth.storage import Storage
from plinth.train import process
from plinth.train.loop import Report, run_stage
from plinth.train.stage_run import StageRun, preflight

START_TIMEOUT_ENV = "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S"

log = logging.getLogger(__name__)


@dataclass
class FitConfig:
    """Workers, and what each of them has."""

    workers: int = 1
    """Training processes of Ray Train; 0 trains in this process, without Ray."""
    cpus_per_worker: float = 1.0
    """CPUs that Ray reserves for a worker; may be a fraction, so that reading tasks have room beside it."""
    gpus_per_worker: float = 0.0
    """GPUs that Ray reserves for a worker."""
    threads_per_worker: int = 1
    """Threads of torch's operators in a worker. More of them than cores make all workers slower."""
    max_failures: int = 3
    """How often lost workers, or a failed start of them, are started again, from the last checkpoint."""
    start_timeout_s: float = 120.0
    """How long a try waits until the cluster has room for all workers and they have started."""

    def validate(self) -> None:
        """Refuse values out of range.

        Raises:
            ConfigError: naming the key.
        """
        least = {"workers": 0, "gpus_per_worker": 0, "threads_per_worker": 1, "max_failures": 0}
        for key, value in least.items():
            if getattr(self, key) < value:
                raise ConfigError(f"fit.{key} is {getattr(self, key)}, expected {value} or more.")
        for key in ("cpus_per_worker", "start_timeout_s"):
            if not getattr(self, key) > 0:
                raise ConfigError(f"fit.{key} is {getattr(self, key)}, expected more than 0.")


def fit(config: FitConfig, stages: Sequence[StageRun], storage: Storage) -> dict[str, Any]:
    """Train the stages in order, resuming where the run stopped. With workers, join a Ray cluster before.

    Args:
        storage: the run's folder; Ray Train keeps its own state below it.

    Returns:
        The numbers of the last step that was trained; empty if all was done before.

    Raises:
        PlinthError: a mistake in the job, before anything starts or from a worker.
        ray.train.TrainingFailedError: workers were lost more than `max_failures` times.
    """
    config.validate()
    for run in stages:
        preflight(run, max(1, config.workers))
    if config.workers == 0:
        return train_stages(stages, config.threads_per_worker)
    return _fit_with_ray(config, stages, storage)


def train_stages(
    stages: Sequence[StageRun], threads: int, use_gpu: bool | None = None, report: Report | None = None
) -> dict[str, Any]:
    """What a worker does; see `plinth.train.process.start` for threads and GPU."""
    started = process.start(threads, use_gpu)
    last: dict[str, Any] = {}
    for run in stages:
        last = run_stage(run, started, report) or last
    return last


def _fit_with_ray(config: FitConfig, stages: Sequence[StageRun], storage: Storage) -> dict[str, Any]:
    import ray
    import ray.train.torch

    os.environ[START_TIMEOUT_ENV] = str(config.start_timeout_s)  # Ray Train hands it on to its controller
    _say_if_short(config)
    verdict = ray.remote(num_cpus=0)(_Verdict).remote()
    filesystem, path = storage.child("ray").pyarrow_filesystem()
    trainer = ray.train.torch.TorchTrainer(
        partial(_worker, list(stages), config.threads_per_worker, config.gpus_per_worker > 0, verdict),
        scaling_config=ray.train.ScalingConfig(
            num_workers=config.workers,
            use_gpu=config.gpus_per_worker > 0,
            resources_per_worker=_resources(config),
        ),
        run_config=ray.train.RunConfig(
            name="train",
            storage_path=path,
            storage_filesystem=filesystem,
            failure_config=ray.train.FailureConfig(
                max_failures=config.max_failures, controller_failure_limit=config.max_failures
            ),
        ),
    )
    try:
        result = trainer.fit()
    except ray.train.TrainingFailedError as error:
        raise _explained(error, config) from error
    mistake = ray.get(verdict.get.remote())
    if mistake is not None:
        raise mistake
    return dict(result.return_value or {})


class _Verdict:
    """Holds the first mistake that a worker met, as a Ray actor beside the workers."""

    def __init__(self) -> None:
        self._mistake: PlinthError | None = None

    def put(self, mistake: PlinthError) -> None:
        """Keep it, unless there is one."""
        self._mistake = self._mistake or mistake

    def get(self) -> PlinthError | None:
        """The mistake, or None."""
        return self._mistake


def _worker(stages: Sequence[StageRun], threads: int, use_gpu: bool, verdict: Any) -> dict[str, Any]:
    """Runs in every worker of Ray Train.

    A user's mistake would be the same in every attempt, so it is not tried again: the worker that met it
    tells the verdict and fails, which ends the others too; Ray's next attempt finds the verdict and ends.
    """
    import ray
    import ray.train

    logging.getLogger("ray.train").setLevel(logging.WARNING)  # it would repeat every report in full
    if ray.get(verdict.get.remote()) is not None:
        return {}
    try:
        return train_stages(stages, threads, use_gpu, report=ray.train.report)
    except StorageError:
        raise  # the network may be back at the next attempt
    except PlinthError as mistake:
        ray.get(verdict.put.remote(mistake))
        raise


def _resources(config: FitConfig) -> dict[str, float]:
    resources = {"CPU": config.cpus_per_worker}
    if config.gpus_per_worker:
        resources["GPU"] = config.gpus_per_worker
    return resources


def _say_if_short(config: FitConfig) -> None:
    import ray

    there = ray.cluster_resources()
    for kind, each in _resources(config).items():
        if each * config.workers > there.get(kind, 0):
            log.warning(
                "waiting for the cluster to grow: %d workers need %g %s, it has %g",
                config.workers, each * config.workers, kind, there.get(kind, 0),
            )  # fmt: skip


def _explained(error: Any, config: FitConfig) -> Exception:
    """The mistake of a worker, a cluster without room for the workers, or the error as it is."""
    import ray
    from ray.train.v2._internal.exceptions import WorkerGroupStartupTimeoutError

    failures = getattr(error, "worker_failures", {})
    for _, failure in sorted(failures.items()):
        cause = getattr(failure, "_base_exc", failure)  # Ray wraps it with its traceback
        if isinstance(cause, PlinthError):
            return cause
    if isinstance(getattr(error, "controller_failure", None), WorkerGroupStartupTimeoutError):
        needed = ", ".join(f"{each * config.workers:g} {kind}" for kind, each in _resources(config).items())
        there = ", ".join(f"{ray.cluster_resources().get(kind, 0):g} {kind}" for kind in _resources(config))
        return ConfigError(
            f"{config.workers} workers need {needed}; the cluster has {there} and did not make room "
            f"within fit.start_timeout_s {config.start_timeout_s:g} s.",
            "Use fewer workers, or lower fit.cpus_per_worker (a fraction will do).",
        )
    return error
