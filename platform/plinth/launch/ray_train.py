"""The driver's side of Ray Train: start the workers, pass requests on, say why they failed."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import ray
import ray.train
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from plinth.errors import ConfigError, PlinthError, WorkersLostError, first_line
from plinth.every import Every
from plinth.launch.coordinator import Coordinator
from plinth.launch.lost_ranks import LostRanks
from plinth.launch.placement import TrialPlacement
from plinth.launch.ray_worker import POLL_S, Train, work
from plinth.launch.scaling_policy import ANSWER_TIMEOUT_S, LadderPolicy
from plinth.launch.torch_backend import TorchBackend
from plinth.observe.failures import by_attempt, first_cause, is_collective, read_failures
from plinth.observe.rank_logs import salvage
from plinth.ray_internals.core import is_alone
from plinth.ray_internals.train import make_trainer, set_start_timeout, watch_nccl
from plinth.ray_internals.train_failures import (
    controller_failure,
    is_start_timeout,
    memory_kill,
    worker_errors,
)
from plinth.ray_labels import label_selector, nodes_with
from plinth.storage import Storage
from plinth.storage.arrow import arrow_filesystem
from plinth.train.attempt import local_folder
from plinth.train.control import on_stop_signals
from plinth.train.outcome import StageEnd

if TYPE_CHECKING:
    from plinth.launch.beside import Beside
    from plinth.launch.config import FitConfig

log = logging.getLogger(__name__)


class RayRun:
    """A run on workers of the Ray that this process is part of.

    Args:
        sizes: possible numbers of workers, ascending.
        storage: the run's folder; Ray Train keeps its own state below it.
        run_id: the id in the stages.
    """

    def __init__(self, config: FitConfig, sizes: Sequence[int], storage: Storage, run_id: str) -> None:
        self._config, self._sizes, self._storage, self._run_id = config, sizes, storage, run_id
        self._resources = {"CPU": config.cpus_per_worker}
        if config.gpus_per_worker:
            self._resources["GPU"] = config.gpus_per_worker

    def fit(
        self,
        train: Train,
        stop: threading.Event | None = None,
        placement: TrialPlacement | None = None,
        beside: Callable[[Callable[[], bool]], Beside] | None = None,
    ) -> StageEnd:
        """Train to the end.

        Args:
            train: picklable.
            stop: when it is set, the workers save and exit.
            placement: resources to train in that are already reserved.
            beside: makes what evaluates checkpoints, given whether the workers are there.

        Raises:
            PlinthError: a worker's error, or too few resources for the workers.
            WorkersLostError: workers were lost, or failed, more often than allowed.
        """
        set_start_timeout(self._config.start_timeout_s)
        if self._config.gpus_per_worker:
            watch_nccl()
        self._warn_if_short()
        # On this node, like Ray's controller: the nodes of the workers come and go.
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        coordinator = ray.remote(num_cpus=0, scheduling_strategy=here)(Coordinator).remote(
            time.time(), self._storage, self._config.silent_after_s
        )
        if placement is not None:
            placement.attach(coordinator)
        if beside is None:
            return self._fit(train, coordinator, stop, placement)
        with beside(lambda: bool(ray.get(coordinator.trains.remote()))) as evaluating:
            end = self._fit(train, coordinator, stop, placement)
            asked = stop or threading.Event()
            if not end.is_stopped:
                with on_stop_signals(asked.set):
                    evaluating.finish(asked.is_set)
            return end

    def _fit(
        self,
        train: Train,
        coordinator: Any,
        stop: threading.Event | None,
        placement: TrialPlacement | None,
    ) -> StageEnd:
        trainer = self._trainer(train, coordinator, placement)
        request = _StopRequest(coordinator, trainer)
        try:
            with on_stop_signals(request.start), _passing_on(stop, request.send):
                result = trainer.fit()
        except (ray.exceptions.RayActorError, ray.exceptions.OutOfMemoryError) as error:
            if request.has_ended_waiting:
                return StageEnd(is_stopped=True)
            raise self._service_lost("Ray Train's controller", error) from error
        except ray.train.TrainingFailedError as error:
            salvage(local_folder(self._storage, self._run_id), self._storage)
            self._refuse_dead(coordinator)
            raise self._explained(error) from error
        first_error = self._refuse_dead(coordinator)
        if first_error is not None:
            raise first_error
        end: StageEnd = result.return_value or StageEnd()
        return end

    def _refuse_dead(self, coordinator: Any) -> PlinthError | None:
        """The first error that workers have told the coordinator.

        Raises:
            WorkersLostError: it is not there: whatever else went wrong followed from that.
        """
        try:
            found: PlinthError | None = ray.get(coordinator.error.remote(), timeout=ANSWER_TIMEOUT_S)
        except (ray.exceptions.RayActorError, ray.exceptions.OutOfMemoryError) as error:
            raise self._service_lost("the run's coordinator", error) from error
        return found

    def _service_lost(self, what: str, error: Exception) -> WorkersLostError:
        memory = memory_kill(error)
        why = f"out of memory: {memory}" if memory else "killed, out of memory, or its machine is lost"
        return WorkersLostError(
            f"{what}, a process of Ray beside this one, has ended ({why}).",
            f"The same command resumes from the last checkpoint; Ray's own logs and `poma runs logs "
            f"{self._storage.uri}` have the rest.",
        )

    def _trainer(self, train: Train, coordinator: Any, placement: TrialPlacement | None) -> Any:
        config, sizes = self._config, self._sizes
        filesystem, path = arrow_filesystem(self._storage.child("ray"))
        return make_trainer(
            partial(LadderPolicy, sizes=sizes, coordinator=coordinator, label=config.ray_label),
            placement.group if placement is not None else None,
            is_alone() if placement is None else placement.is_alone,
            partial(work, train, coordinator),
            backend_config=TorchBackend("nccl" if config.gpus_per_worker else "gloo"),
            scaling_config=ray.train.ScalingConfig(
                num_workers=sizes[-1] if len(sizes) == 1 else (sizes[0], sizes[-1]),
                use_gpu=config.gpus_per_worker > 0,
                resources_per_worker=self._resources,
                label_selector=label_selector(config.ray_label),
                elastic_resize_monitor_interval_s=config.resize_check_s,
            ),
            run_config=ray.train.RunConfig(
                name="train",
                storage_path=path,
                storage_filesystem=filesystem,
                callbacks=[LostRanks(self._storage, coordinator)],
                logging_config=ray.train.LoggingConfig(log_level="WARNING"),  # else it logs its states
                failure_config=ray.train.FailureConfig(
                    max_failures=config.max_failures,
                    controller_failure_limit=config.max_failures,
                    max_preemption_failures=config.max_preemptions,
                    # A rank that is gone before it has reported a checkpoint must not strand the others.
                    relax_collectives_on_preemption=True,
                    preemption_grace_s=config.preemption_grace_s,
                ),
            ),
        )

    def _warn_if_short(self) -> None:
        """Say what a run waits for. What can never come is refused before (`jobs.pretrain.command`)."""
        total, workers, label = self._there(), self._sizes[0], self._config.ray_label
        where = f" with the label {label}" if label else ""
        for kind, each in self._resources.items():
            if each * workers > total.get(kind, 0):
                log.warning(
                    "waiting for the cluster to grow: %d workers need %g %s, it has %g%s",
                    *(workers, each * workers, kind, total.get(kind, 0), where),
                )

    def _there(self) -> dict[str, float]:
        """Resources of the nodes that may train."""
        total: dict[str, float] = {}
        for node in nodes_with(self._config.ray_label, ray.nodes()):
            for kind, amount in node["Resources"].items():
                total[kind] = total.get(kind, 0.0) + amount
        return total

    def _explained(self, error: Exception) -> Exception:
        """What Ray's error means: too few resources, or what `explain_failures` makes of the workers'
        errors; a bug stays as it is."""
        if is_start_timeout(error):
            workers, total = self._sizes[0], self._there()
            needed = ", ".join(f"{each * workers:g} {kind}" for kind, each in self._resources.items())
            there = ", ".join(f"{total.get(kind, 0):g} {kind}" for kind in self._resources)
            return ConfigError(
                f"{workers} workers need {needed}; the cluster has {there} and did not make room "
                f"within fit.start_timeout_s {self._config.start_timeout_s:g} s.",
                "Use fewer workers, or lower fit.cpus_per_worker (a fraction will do).",
            )
        failure = controller_failure(error)
        if isinstance(failure, ray.exceptions.RayError):
            return WorkersLostError(
                f"Ray Train could not start or end the workers: {first_line(failure)}",
                f"`poma runs logs {self._storage.uri}` has the rest; the same command resumes.",
            )
        errors = worker_errors(error)
        return explain_failures(errors, str(error), self._config.max_failures, self._storage) or error


def explain_failures(
    errors: Mapping[int, BaseException], summary: str, max_failures: int, storage: Storage
) -> Exception | None:
    """The error of the job that a worker raised, or what happened first; None for a bug, whose traceback
    is needed.

    Args:
        errors: rank -> what its worker raised.
        summary: Ray's own text, where no worker says more.
        storage: the run's folder, with the failure records of its ranks.
    """
    for error in errors.values():
        if isinstance(error, PlinthError):
            return error
    attempts = list(by_attempt(read_failures(storage)).values())
    texts = {rank: str(error) for rank, error in errors.items()}
    cause = first_cause(attempts[-1] if attempts else [], texts) or summary
    lost = (ray.exceptions.RayError, OSError)
    if any(not isinstance(error, lost) and not is_collective(error) for error in errors.values()):
        log.error("first cause: %s", cause)
        return None
    return WorkersLostError(
        f"The workers failed more often than fit.max_failures {max_failures} allows. First: {cause}",
        f"`poma runs logs {storage.uri}` has the rest; the same command resumes.",
    )


class _StopRequest:
    """A request to stop, on its way to the workers. Where there are none yet, Ray Train would go on waiting
    for them: its controller is ended, and with it the run.

    Args:
        trainer: `plinth.ray_internals.train.make_trainer`.
    """

    def __init__(self, coordinator: Any, trainer: Any) -> None:
        self._coordinator, self._trainer = coordinator, trainer
        self.has_ended_waiting = False

    def start(self) -> None:
        """Send it from a thread: a signal's handler may have interrupted a call of Ray's."""
        threading.Thread(target=self._send_to_controller, daemon=True).start()

    def _send_to_controller(self) -> None:
        while self._trainer.controller is None:  # Ctrl-C in the first second
            time.sleep(POLL_S)
        self.send()

    def send(self) -> None:
        if ray.get(self._coordinator.request_stop.remote()) or self._trainer.controller is None:
            return
        self.has_ended_waiting = True
        log.info("no workers have started, so there is nothing to save: ending")
        ray.kill(self._trainer.controller)


def _passing_on(
    stop: threading.Event | None, send: Callable[[], None]
) -> contextlib.AbstractContextManager[Any]:
    """Once `stop` is set, `send` is called, again and again."""
    if stop is None:
        return contextlib.nullcontext()

    def pass_on() -> None:
        if stop.is_set():
            send()

    return Every(POLL_S, pass_on, "the request to stop cannot be passed on")
