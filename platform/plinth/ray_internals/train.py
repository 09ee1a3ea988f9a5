"""Private names of Ray Train: its trainer, controller and worker group."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Mapping
from typing import Any

from plinth.ray_internals.core import started_here

REQUESTS_LOGGER = "ray.train.v2._internal.execution.scaling_policy.autoscaling_coordinator_client"
"""A logger that `plinth.observe.terminal` listens to."""
LOOK_EVERY_S, FEW_WORKERS = 0.5, 64
"""How often Ray Train looks at so many workers, or fewer."""
DRIVER_BUNDLE = 0
"""Bundle of a trial's placement group that holds the trial itself; the workers have the bundles after it."""


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


def fixed_policy() -> Any:
    """Ray Train's policy for a fixed number of workers, without the actor that tells an autoscaler of them:
    a Ray of one node has none, and an actor is a process more."""
    from ray.train.v2._internal.execution.scaling_policy import FixedScalingPolicy

    class Policy(FixedScalingPolicy):
        def after_controller_start(self, train_run_context: Any) -> None:
            """Register nothing."""

        def _maybe_send_resource_request(self) -> None:
            """Ask for nothing."""

    return Policy


def make_trainer(
    policy: Callable[[Any], Any], group: Any, is_alone: bool, *arguments: Any, **settings: Any
) -> Any:
    """Ray Train's trainer with private methods replaced, and the actor that runs it as `controller`.

    Args:
        policy: makes the scaling policy from the ScalingConfig, where its number of workers is a range.
        group: placement group to run controller and workers in (see `_run_controller`); None for Ray's own.
        is_alone: no node will be added or taken away (`plinth.ray_internals.core.is_alone`).
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
            elif is_alone:
                controller["scaling_policy"] = fixed_policy()(self.scaling_config)
            workers = self.scaling_config.max_workers
            return _run_controller(group, is_alone, workers, controller, self._register_sigint_handler)

        def _register_sigint_handler(self, controller: Any) -> None:
            """Ray's would discard what is not saved yet: see `plinth.train.control.on_stop_signals`."""
            self.controller = controller

    return Trainer(*arguments, **settings)


def _run_controller(
    group: Any, is_alone: bool, workers: int, settings: dict[str, Any], tell: Callable[[Any], None]
) -> Any:
    """What a trainer does with its controller, with workers that `worker_group` makes.

    Args:
        group: to run controller and workers in; None runs the controller on this node, and its workers in a
            group that Ray Train reserves for them.
        is_alone: no notice of a node that goes can come.
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
    if is_alone:  # a watch is a process more
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
