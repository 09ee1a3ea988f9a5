"""The one adapter for Ray's private names: an upgrade of Ray is checked and mended here.

`tests/unit/plinth/test_ray_internals.py` has a test for each borrowed name. Ray is imported inside the
functions, because files that run without Ray may import this one.
"""

from __future__ import annotations

import logging
import os
import re
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from typing import Any

TOKEN_LOGGER = "ray._private.authentication.authentication_token_setup"
REQUESTS_LOGGER = "ray.train.v2._internal.execution.scaling_policy.autoscaling_coordinator_client"
"""Loggers that `plinth.observe.terminal` listens to."""
MEMORY_HELD = re.compile(r"actual memory used=([\d.]+)GB")
MEMORY_USED = re.compile(r"was ([\d.]+)GB used / ([\d.]+)GB")
"""In the message of a worker that Ray's memory monitor has killed."""
LOOK_EVERY_S, FEW_WORKERS = 0.5, 64
"""How often Ray Train looks at so many workers, or fewer."""
DRIVER_BUNDLE = 0
"""Bundle of a trial's placement group that holds the trial itself; the workers have the bundles after it."""


def cluster_of_this_node() -> str | None:
    """host:port of the cluster that the address `auto` means; None where there is none."""
    from ray._private.services import canonicalize_bootstrap_address

    found: str | None = canonicalize_bootstrap_address("auto")
    return found


def stay_on_loopback() -> None:
    """Let a cluster that this process starts listen on 127.0.0.1 alone; call before `ray.init`, which is then
    given that as its address. Another process that joins this cluster calls it, too.

    Ray has the switch for macOS and Windows, where a single node is all there is; elsewhere it takes the
    machine's address in its place, and its services listen on all interfaces.
    """
    from ray._private import ray_constants

    ray_constants.ENABLE_RAY_CLUSTER = False


def started_here() -> bool:
    """Whether this process has started the cluster that it is part of, which then ends with it."""
    from ray._private import worker

    node = worker._global_node
    return node is not None and bool(node.is_head())


def draining_nodes() -> dict[str, int]:
    """Nodes that will be taken away, with the deadline (ms since 1970; 0: unknown). Not in the public API."""
    from ray._private.state import state

    found: dict[str, int] = state.get_draining_nodes() or {}
    return found


def preemption_deadline() -> float | None:
    """When a node of this worker group will be preempted (`time.time()`), None: no notice.

    The public `get_preemption_info` reads the same, but adds a barrier over all workers. Our ranks agree
    by `plinth.train.control` at no further cost.
    """
    from ray.train.v2._internal.execution.context import get_train_context

    info = get_train_context().preemption_context.preemption_info
    if info is None:
        return None
    return time.time() if info.deadline_ms is None else float(info.deadline_ms) / 1000


def quiet_reports() -> None:
    """Keep a Ray Train worker from logging every report: its logger is named by the file."""
    from ray.train.v2._internal.execution import context

    logging.getLogger(context.__file__).setLevel(logging.WARNING)


def set_start_timeout(seconds: float) -> None:
    """How long Ray Train waits for its workers; an environment variable that it passes to its controller."""
    from ray.train.v2._internal.constants import WORKER_GROUP_START_TIMEOUT_S_ENV_VAR

    os.environ[WORKER_GROUP_START_TIMEOUT_S_ENV_VAR] = str(seconds)


def watch_nccl() -> None:
    """Let Ray Train's detector of hangs in NCCL, experimental and off by default, fail a group that hangs.

    It takes 10 minutes and leaves NCCL's report and all stacks in the run's ray/ folder. It needs `ncclras`
    on the nodes, and says so where there is none. Call it in the driver, which makes the detector.
    """
    from ray.train.v2._internal import constants

    os.environ.setdefault(constants.ENABLE_NCCL_HANG_DETECTOR_ENV_VAR, "1")
    os.environ.setdefault(constants.NCCL_RAS_ACTION_ENV_VAR, constants.NCCL_RAS_ACTION_FAIL)


def is_start_timeout(error: BaseException) -> bool:
    """Whether Ray Train gave up because the workers did not start in time. The exception is not public."""
    from ray.train.v2._internal.exceptions import WorkerGroupStartupTimeoutError

    return isinstance(getattr(error, "controller_failure", None), WorkerGroupStartupTimeoutError)


def controller_failure(error: BaseException) -> BaseException | None:
    """What went wrong in Ray Train itself rather than in a worker, from a `ray.train.TrainingFailedError`."""
    found = getattr(error, "controller_failure", None)
    return found if isinstance(found, BaseException) else None


def ended_services() -> list[str]:
    """Names of Ray's own processes on this machine that have ended by themselves, of a cluster that this
    process has started: gcs_server, raylet and others; nothing elsewhere."""
    from ray._private import worker

    return [name for name, _ in worker._global_node.dead_processes()] if started_here() else []


def is_lost_worker(error: BaseException) -> bool:
    """Whether a worker's error, as Ray Train's controller has it, says that its process died."""
    from ray.exceptions import RayError

    return isinstance(_of_a_look(error), RayError)


def memory_kill(error: BaseException) -> str:
    """What Ray's memory monitor says of a worker that it killed, as Ray Train's controller has it: how much
    the process held and how full the machine was; empty for any other error."""
    from ray.exceptions import OutOfMemoryError

    cause = _of_a_look(error)
    if not isinstance(cause, OutOfMemoryError):
        return ""
    held, full = MEMORY_HELD.search(str(cause)), MEMORY_USED.search(str(cause))
    parts = [f"it held {held[1]} GB"] if held else []
    parts += [f"its machine {full[1]} of {full[2]} GB"] if full else []
    return ", ".join(parts) or "Ray says no more"


def worker_errors(error: BaseException) -> dict[int, BaseException]:
    """Rank -> what its worker raised, unwrapped, from a `ray.train.TrainingFailedError`."""
    from ray.train.v2._internal.util import UserExceptionWithTraceback

    def unwrapped(failure: BaseException) -> BaseException:
        failure = _of_a_look(failure)
        return failure._base_exc if isinstance(failure, UserExceptionWithTraceback) else failure

    failures = getattr(error, "worker_failures", {})
    return {rank: unwrapped(failure) for rank, failure in sorted(failures.items())}


def _of_a_look(error: BaseException) -> BaseException:
    """What a look of Ray Train's controller at a worker failed by; any other error itself."""
    from ray.train.v2._internal.exceptions import WorkerHealthCheckFailedError

    return error.health_check_failure if isinstance(error, WorkerHealthCheckFailedError) else error


def scaling_decisions() -> tuple[Any, Any]:
    """The classes (NoopDecision, ResizeDecision) that a scaling policy answers with."""
    from ray.train.v2._internal.execution.scaling_policy import NoopDecision, ResizeDecision

    return NoopDecision, ResizeDecision


def elastic_policy() -> Any:
    """Ray Train's elastic scaling policy as a base class; `count_workers` is its private counting method."""
    from ray.train.v2._internal.execution.scaling_policy import ElasticScalingPolicy

    class Policy(ElasticScalingPolicy):
        def count_workers(self, reserved_resources: Any) -> int:
            return int(super()._count_possible_workers(reserved_resources))

        def _count_possible_workers(self, reserved_resources: Any) -> int:
            return int(self.count_workers(reserved_resources))

    return Policy


def trainer(policy: Callable[[Any], Any], group: Any, *arguments: Any, **settings: Any) -> Any:
    """Ray Train's trainer with private methods replaced, and the actor that runs it as `controller`.

    Args:
        policy: makes the scaling policy from the ScalingConfig, where its number of workers is a range.
        group: placement group to run controller and workers in (see `_run_controller`); None for Ray's own.
        arguments, settings: of the DataParallelTrainer.
    """
    from ray.train.v2._internal.callbacks import DatasetsCallback
    from ray.train.v2._internal.callbacks.placement_group_callback import PlacementGroupCleanerCallback
    from ray.train.v2.api.data_parallel_trainer import DataParallelTrainer

    left_out: tuple[type, ...] = (DatasetsCallback,)
    if group is not None or started_here():
        left_out += (PlacementGroupCleanerCallback,)

    class Trainer(DataParallelTrainer):
        controller: Any = None

        def _create_default_callbacks(self) -> list[Any]:
            """Without the actor that splits Ray Data sets among the workers: each worker streams its own. In
            a borrowed group also without the actor that removes it: whoever reserved the group does; and on
            a cluster that ends with this process. Each costs seconds at every start, and that actor takes
            any cluster of the machine for its own."""
            callbacks: list[Any] = super()._create_default_callbacks()
            return [callback for callback in callbacks if not isinstance(callback, left_out)]

        def _initialize_and_run_controller(self, **controller: Any) -> Any:
            if self.scaling_config.elasticity_enabled:
                controller["scaling_policy"] = policy(self.scaling_config)
            workers = self.scaling_config.max_workers
            return _run_controller(group, workers, controller, self._register_sigint_handler)

        def _register_sigint_handler(self, controller: Any) -> None:
            """Ray's would discard what is not saved yet: see `plinth.train.control.on_stop_signals`."""
            self.controller = controller

    return Trainer(*arguments, **settings)


def _run_controller(group: Any, workers: int, settings: dict[str, Any], tell: Callable[[Any], None]) -> Any:
    """What a trainer does with its controller, with workers that `worker_group` makes.

    Args:
        group: to run controller and workers in; None runs the controller on this node, and its workers in a
            group that Ray Train reserves for them.
        workers: how many it has at most.
        settings: arguments of the controller.
        tell: is given the controller's actor.
    """
    import ray
    from ray.train.v2._internal import constants
    from ray.train.v2._internal.execution.controller import TrainController
    from ray.util import scheduling_strategies as strategies

    here: Any = strategies.NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    if group is not None:
        here = strategies.PlacementGroupSchedulingStrategy(group, placement_group_bundle_index=DRIVER_BUNDLE)
    variables = {constants.RAY_WARN_BLOCKING_GET_INSIDE_ASYNC_ENV_VAR: "0"}
    if workers <= FEW_WORKERS:  # a look calls them all; how long a death goes unnoticed is part of a restart
        variables[constants.HEALTH_CHECK_INTERVAL_S_ENV_VAR] = str(LOOK_EVERY_S)
    if started_here() and len(ray.nodes()) == 1:  # no notice can come; a watch costs 1 s
        variables[constants.ENABLE_PREEMPTION_WATCHER_ENV_VAR] = "0"
    users = constants.get_env_vars_to_propagate()
    of_workers = {k: v for k, v in users.items() if k != constants.WORKER_GROUP_START_TIMEOUT_S_ENV_VAR}

    class Controller(TrainController):
        worker_group_cls = worker_group(group, of_workers)

        def __init__(self, *arguments: Any, **named: Any) -> None:
            """With its variables set here: a runtime environment would be inherited by all that it starts,
            down to what reads, none of which could then be one of the processes that Ray has ready."""
            os.environ.update(variables | users)
            super().__init__(*arguments, **named)

    controller = ray.remote(num_cpus=0, scheduling_strategy=here)(Controller).remote(**settings)
    tell(controller)
    ray.get(controller.run.remote())
    return ray.get(controller.get_result.remote())


def worker_group(group: Any, variables: Mapping[str, str]) -> Any:
    """Ray Train's worker group, which leaves nothing behind when it fails to start.

    Ray frees what a start has reserved only if it fails early: once the workers are created, a death (in the
    setup of torch's process group, say) leaves the placement group reserved for ever. Where the cluster fits
    the workers exactly, every later start waits for it in vain. And Ray reckons with actors that died, but
    not with those that its memory monitor killed, whose error is of another class: one of these in the start
    or the end of a group would end the run.

    Args:
        group: placement group to start the workers in; None for one of their own. Ray Train would reserve a
            second one, and remove it at the end.
        variables: of the workers' environment.
    """
    from ray.exceptions import RayError, RayTaskError
    from ray.train.v2._internal.exceptions import WorkerGroupStartupFailedError
    from ray.train.v2._internal.execution.worker_group import DefaultPlacementGroupHandle, WorkerGroup

    class BorrowedGroup(DefaultPlacementGroupHandle):
        def shutdown(self) -> None:
            """Whoever reserved the group removes it."""

    class Workers(WorkerGroup):
        @staticmethod
        def _get_worker_runtime_env(custom_runtime_env: Any) -> Any:
            """The user's variables alone: without any a worker can be a process that Ray has ready."""
            return {**custom_runtime_env, "env_vars": variables} if variables else custom_runtime_env

        def _start(self) -> None:
            try:
                super()._start()
            except (WorkerGroupStartupFailedError, RayTaskError):
                self._free()
                raise
            except RayError as error:  # Ray tries again after the death of an actor, not after this
                self._free()
                raise WorkerGroupStartupFailedError(str(error)) from error
            except BaseException:
                self._free()
                raise

        def shutdown(self) -> None:
            try:
                super().shutdown()
            except RayError:  # of a worker that is dead: no reason to end the run
                self._free()

        def _free(self) -> None:
            if self.has_started():
                self._worker_group_state.shutdown()
                self._clear_state()

    class BorrowingWorkers(Workers):
        def _create_placement_group(self, *_: Any, **__: Any) -> Any:
            return BorrowedGroup(group)

        def _create_workers(self, num_workers: int, *arguments: Any, **named: Any) -> Any:
            bundles = list(range(DRIVER_BUNDLE + 1, DRIVER_BUNDLE + 1 + num_workers))
            named.setdefault("placement_group_bundle_indices", bundles)
            return super()._create_workers(num_workers, *arguments, **named)

    return Workers if group is None else BorrowingWorkers


def population_training() -> Any:
    """Ray Tune's PopulationBasedTraining as a base class; `new_config` may change what a clone trains with.

    Tune offers `custom_explore_fn`, but that does not see the trial that the config is for.
    """
    from ray.tune.schedulers import PopulationBasedTraining

    class Population(PopulationBasedTraining):
        def new_config(self, trial: Any, config: dict[str, Any]) -> dict[str, Any]:
            return config

        def _get_new_config(self, trial: Any, trial_to_clone: Any) -> Any:
            config, operations = super()._get_new_config(trial, trial_to_clone)
            return self.new_config(trial, config), operations

    return Population


def execution_callback() -> Any:
    """Base class of Ray Data's callbacks into its scheduling loop (`custom_execution_callback_classes`)."""
    from ray.data._internal.execution.execution_callback import ExecutionCallback

    return ExecutionCallback


def drop_data_statistics() -> None:
    """Where there is no dashboard, send nothing from this process to Ray Data's actor of statistics, which
    only a dashboard asks: a process more, 0.8 CPU-s at each start and 1 % of a core."""
    from ray._private import worker
    from ray.data._internal import stats

    if not worker.get_dashboard_url():
        for name in (
            "update_execution_metrics",
            "update_iteration_metrics",
            "register_dataset_to_stats_actor",
        ):
            setattr(stats._StatsManager, name, staticmethod(lambda *_, **__: None))
        stats._StatsManager.gen_dataset_id_from_stats_actor = staticmethod(lambda: uuid.uuid4().hex)


def block_refs(dataset: Any) -> Iterator[Any]:
    """References to the blocks of a Ray data set as they are made. The public iterators copy blocks."""
    for bundle in dataset.iter_internal_ref_bundles():
        yield from bundle.block_refs


Print = Callable[..., None]
"""Ray's printer of lines that workers wrote: a mapping with "lines" and more, and ignore_prefix."""


def replace_printer(made_from: Callable[[Print], Print]) -> None:
    """Print lines of workers and of Ray itself in this driver by what is made from Ray's own printer. Call
    before `ray.init`; once is enough."""
    from ray._private import worker

    if not hasattr(worker.print_to_stdstream, "is_replaced"):
        printer = made_from(worker.print_to_stdstream)
        printer.is_replaced = True  # type: ignore[attr-defined]
        worker.print_to_stdstream = printer


def quiet_data_progress() -> None:
    """No progress lines of Ray Data in the terminal; their logger is named by a private module."""
    from ray.data._internal import progress

    logging.getLogger("ray.data").setLevel(logging.WARNING)
    logging.getLogger(progress.__name__).setLevel(logging.ERROR)
