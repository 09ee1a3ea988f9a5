"""Training on Ray Train: what the driver, the workers and the coordinator between them say to each other."""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, cast

import ray
import ray.train
import ray.train.torch
from ray.train.v2._internal.execution import context as train_context
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from plinth.errors import ConfigError, PlinthError, StorageError, WorkersLostError
from plinth.launch.placement import TrialPlacement
from plinth.launch.scaling_policy import ElasticTrainer
from plinth.observe.failures import by_attempt, first_cause, is_collective, read_failures
from plinth.observe.rank_logs import salvage
from plinth.storage import Storage
from plinth.storage.arrow import arrow_filesystem
from plinth.train.attempt import local_folder
from plinth.train.control import Control, on_stop_signals
from plinth.train.loop import StageEnd

if TYPE_CHECKING:
    from plinth.launch.config import FitConfig

START_TIMEOUT_ENV = "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S"
POLL_S = 0.5
PARK_POLL_S = 0.2

log = logging.getLogger(__name__)

Train = Callable[[Control], StageEnd]
"""What a worker does, given what it is told from outside."""


class Coordinator:
    """An actor beside the workers: the first mistake that one of them met, and orders to all of them."""

    def __init__(self, launched: float) -> None:
        self._mistake: PlinthError | None = None
        self._stop = self._resize = False
        self._parked: set[int] = set()
        self._workers = 0
        self._launched: float | None = launched
        self._reports: list[dict[str, Any]] = []

    def report_error(self, mistake: PlinthError) -> None:
        """Keep it, unless there is one."""
        self._mistake = self._mistake or mistake

    def error(self) -> PlinthError | None:
        """The first mistake, or None."""
        return self._mistake

    def register(self, rank: int, world_size: int) -> tuple[PlinthError | None, float | None]:
        """A worker begins; returns a mistake that makes it pointless, and, to the first rank 0 alone, when
        the driver began: starting Ray belongs to the first attempt."""
        self._workers = world_size
        self._parked.clear()
        launched, self._launched = (self._launched, None) if rank == 0 else (None, self._launched)
        return self._mistake, launched

    def add_report(self, summary: dict[str, Any]) -> None:
        """Numbers at a checkpoint."""
        self._reports.append(summary)

    def take_reports(self) -> list[dict[str, Any]]:
        """Those since the last call."""
        reports, self._reports = self._reports, []
        return reports

    def request_stop(self) -> None:
        """The run shall save and end."""
        self._stop = True

    def request_resize(self) -> None:
        """The workers shall save at their next checkpoint and wait to be restarted."""
        self._resize = True

    def cancel_resize(self) -> None:
        """A new group of workers is about to start, or the wish is off."""
        self._resize = False
        self._parked.clear()

    def orders(self) -> tuple[bool, bool]:
        """Whether to stop, whether to make room for another size."""
        return self._stop, self._resize

    def park(self, rank: int) -> None:
        """A worker has saved and waits."""
        self._parked.add(rank)

    def all_waiting(self) -> bool:
        """Whether all workers wait."""
        return bool(self._parked) and len(self._parked) >= self._workers


class RayControl(Control):
    """A Ray Train worker's control: the coordinator's requests, polled by rank 0, and preemption notices."""

    def __init__(self, coordinator: Any) -> None:
        super().__init__()
        context = ray.train.get_context()
        self._coordinator, self._rank = coordinator, context.get_world_rank()
        self._resize = threading.Event()
        self._closed = threading.Event()
        mistake, launched = ray.get(coordinator.register.remote(self._rank, context.get_world_size()))
        self.must_exit = mistake is not None
        self._launched = launched or self._launched
        if self._rank == 0:
            threading.Thread(target=self._listen, name="plinth-coordinator", daemon=True).start()

    def resize_wanted(self) -> bool:
        return self._resize.is_set()

    def deadline(self) -> float | None:
        from ray.train.v2._internal.execution.context import get_train_context

        # What the public get_preemption_info reads, without its barrier over all workers: `Exchange`
        # has the ranks agree at no further cost.
        info = get_train_context().preemption_context.preemption_info
        if info is None:
            return None
        return time.time() if info.deadline_ms is None else info.deadline_ms / 1000

    def report(self, summary: dict[str, Any]) -> None:
        ray.train.report(summary)
        if self._rank == 0:
            ray.get(self._coordinator.add_report.remote(summary))

    def wait_for_shutdown(self, limit_s: float) -> None:
        ray.get(self._coordinator.wait_here.remote(self._rank))
        self._resize.clear()
        time.sleep(limit_s)  # Ray ends this process meanwhile; else the run goes on as it is

    def close(self) -> None:
        """No more listening."""
        self._closed.set()

    def _listen(self) -> None:
        while not self._closed.wait(POLL_S):
            try:
                stop, resize = ray.get(self._coordinator.orders.remote())
            except ray.exceptions.RayError:
                return  # the run is over
            if stop:
                self.request_stop()
            (self._resize.set if resize else self._resize.clear)()


def run(
    config: FitConfig,
    sizes: Sequence[int],
    train: Train,
    storage: Storage,
    stop: threading.Event | None = None,
    placement: TrialPlacement | None = None,
    run_id: str = "",
) -> StageEnd:
    """Train on workers of a Ray that this process is part of.

    Args:
        sizes: possible numbers of workers, ascending.
        train: picklable.
        storage: the run's folder; Ray Train keeps its own state below it.
        stop: when it is set, the workers save and end.
        placement: resources to train in that are already reserved.
        run_id: as of the stages.

    Raises:
        PlinthError: a worker's mistake, or no room for the workers.
        WorkersLostError: workers were lost, or failed, more often than allowed.
    """
    os.environ[START_TIMEOUT_ENV] = str(config.start_timeout_s)  # Ray Train hands it on to its controller
    _say_if_short(config, sizes[0])
    # On this node, as Ray's controller is: the nodes of the workers come and go.
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    coordinator = ray.remote(num_cpus=0, scheduling_strategy=here)(Coordinator).remote(time.time())
    if placement is not None:
        placement.open(coordinator)
    filesystem, path = arrow_filesystem(storage.child("ray"))
    trainer = ElasticTrainer(
        partial(_worker, train, coordinator),
        sizes=sizes,
        coordinator=coordinator,
        placement=placement,
        scaling_config=ray.train.ScalingConfig(
            num_workers=sizes[-1] if len(sizes) == 1 else (sizes[0], sizes[-1]),
            use_gpu=config.gpus_per_worker > 0,
            resources_per_worker=_resources(config),
            elastic_resize_monitor_interval_s=config.resize_check_s,
        ),
        run_config=ray.train.RunConfig(
            name="train",
            storage_path=path,
            storage_filesystem=filesystem,
            logging_config=ray.train.LoggingConfig(log_level="WARNING"),  # its controller narrates its states
            failure_config=ray.train.FailureConfig(
                max_failures=config.max_failures,
                controller_failure_limit=config.max_failures,
                max_preemption_failures=config.max_preemptions,
            ),
        ),
    )
    try:
        with on_stop_signals(coordinator.request_stop.remote), _stop_when(stop, coordinator):
            result = trainer.fit()
    except ray.train.TrainingFailedError as error:
        salvage(local_folder(storage, run_id), storage)
        raise explained(error, config, sizes, storage) from error
    mistake = ray.get(coordinator.error.remote())
    if mistake is not None:
        raise mistake
    end: StageEnd = result.return_value or StageEnd()
    return end


def _worker(train: Train, coordinator: Any) -> StageEnd:
    """Runs in every worker of Ray Train.

    A user's mistake would be the same in every attempt, so it is not tried again: the worker that met it
    tells the coordinator and fails, which ends the others too; Ray's next attempt finds it there and ends.
    """
    logging.getLogger(train_context.__file__).setLevel(logging.WARNING)  # it would repeat every report
    control = RayControl(coordinator)
    if control.must_exit:
        return StageEnd()
    try:
        return train(control)
    except StorageError:
        raise  # the network may be back at the next attempt
    except PlinthError as mistake:
        ray.get(coordinator.report_error.remote(mistake))
        raise
    finally:
        control.close()


@contextlib.contextmanager
def _stop_when(stop: threading.Event | None, coordinator: Any) -> Iterator[None]:
    """Once `stop` is set, the workers save and end."""
    if stop is None:
        yield
        return
    over = threading.Event()

    def wait() -> None:
        while not over.wait(POLL_S):
            if stop.is_set():
                coordinator.request_stop.remote()
                return

    watcher = threading.Thread(target=wait, name="plinth-stop", daemon=True)
    watcher.start()
    try:
        yield
    finally:
        over.set()
        watcher.join()


def _resources(config: FitConfig) -> dict[str, float]:
    resources = {"CPU": config.cpus_per_worker}
    if config.gpus_per_worker:
        resources["GPU"] = config.gpus_per_worker
    return resources


def _say_if_short(config: FitConfig, workers: int) -> None:
    there = ray.cluster_resources()
    for kind, each in _resources(config).items():
        if each * workers > there.get(kind, 0):
            log.warning(
                "waiting for the cluster to grow: %d workers need %g %s, it has %g",
                workers, each * workers, kind, there.get(kind, 0),
            )  # fmt: skip


def explained(error: Any, config: FitConfig, sizes: Sequence[int], storage: Storage) -> Exception:
    """The mistake of a worker, a cluster without room for the workers, or what happened first; a
    bug as it is."""
    from ray.train.v2._internal.exceptions import WorkerGroupStartupTimeoutError

    failures = getattr(error, "worker_failures", {})
    for _, failure in sorted(failures.items()):
        cause = getattr(failure, "_base_exc", failure)  # Ray wraps it with its traceback
        if isinstance(cause, PlinthError):
            return cause
    if isinstance(getattr(error, "controller_failure", None), WorkerGroupStartupTimeoutError):
        needed = ", ".join(f"{each * sizes[0]:g} {kind}" for kind, each in _resources(config).items())
        there = ", ".join(f"{ray.cluster_resources().get(kind, 0):g} {kind}" for kind in _resources(config))
        return ConfigError(
            f"{sizes[0]} workers need {needed}; the cluster has {there} and did not make room "
            f"within fit.start_timeout_s {config.start_timeout_s:g} s.",
            "Use fewer workers, or lower fit.cpus_per_worker (a fraction will do).",
        )
    said = {rank: str(getattr(failure, "_base_exc", failure)) for rank, failure in failures.items()}
    attempts = list(by_attempt(read_failures(storage)).values())
    cause = first_cause(attempts[-1] if attempts else [], said) or str(error)
    causes = [getattr(failure, "_base_exc", failure) for failure in failures.values()]
    lost = (ray.exceptions.RayError, OSError)
    if any(not isinstance(c, lost) and not is_collective(c) for c in causes):
        log.error("first cause: %s", cause)
        return cast(Exception, error)  # a bug: its traceback is needed
    return WorkersLostError(
        f"The workers failed more often than fit.max_failures {config.max_failures} allows. First: {cause}",
        f"`poma runs logs {storage.uri}` has the rest; the same command resumes.",
    )
