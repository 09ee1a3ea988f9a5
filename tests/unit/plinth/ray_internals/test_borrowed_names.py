"""Ray's private names are where `plinth.ray_internals` expects them; nobody else uses them."""

from __future__ import annotations

import ast
import inspect
import re
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from plinth import ray_internals
from plinth.ray_internals.core import TOKEN_LOGGER, started_here
from plinth.ray_internals.train import REQUESTS_LOGGER

ROOT = Path(__file__).parents[4]
FOLDER = Path(ray_internals.__file__).parent
TRAIN = "ray.train.v2._internal"
BORROWED = [
    "ray._private.services:canonicalize_bootstrap_address",
    "ray._private.state:state.get_draining_nodes",
    f"{TRAIN}.execution.context:__file__",
    f"{TRAIN}.execution.context:get_train_context",
    f"{TRAIN}.execution.context:TrainContext.__dataclass_fields__.preemption_context",
    f"{TRAIN}.execution.preemption:PreemptionContext.__dataclass_fields__.preemption_info",
    "ray.train.v2.api.preemption:PreemptionInfo.__dataclass_fields__.deadline_ms",
    f"{TRAIN}.constants:WORKER_GROUP_START_TIMEOUT_S_ENV_VAR",
    f"{TRAIN}.constants:RAY_WARN_BLOCKING_GET_INSIDE_ASYNC_ENV_VAR",
    f"{TRAIN}.constants:HEALTH_CHECK_INTERVAL_S_ENV_VAR",
    f"{TRAIN}.constants:ENABLE_PREEMPTION_WATCHER_ENV_VAR",
    f"{TRAIN}.constants:ENABLE_NCCL_HANG_DETECTOR_ENV_VAR",
    f"{TRAIN}.constants:NCCL_RAS_ACTION_ENV_VAR",
    f"{TRAIN}.constants:NCCL_RAS_ACTION_FAIL",
    f"{TRAIN}.constants:get_env_vars_to_propagate",
    f"{TRAIN}.exceptions:WorkerGroupStartupTimeoutError",
    f"{TRAIN}.util:UserExceptionWithTraceback",
    f"{TRAIN}.execution.scaling_policy:ElasticScalingPolicy._count_possible_workers",
    f"{TRAIN}.execution.scaling_policy:ElasticScalingPolicy.make_decision_for_non_running_worker_group",
    f"{TRAIN}.execution.scaling_policy:ElasticScalingPolicy.make_decision_for_running_worker_group",
    f"{TRAIN}.execution.scaling_policy:FixedScalingPolicy.after_controller_start",
    f"{TRAIN}.execution.scaling_policy:FixedScalingPolicy._maybe_send_resource_request",
    f"{TRAIN}.execution.scaling_policy:NoopDecision",
    f"{TRAIN}.execution.scaling_policy:ResizeDecision.__dataclass_fields__.num_workers",
    f"{TRAIN}.execution.controller:TrainController.worker_group_cls",
    f"{TRAIN}.execution.controller:TrainController.run",
    f"{TRAIN}.execution.controller:TrainController.get_result",
    f"{TRAIN}.execution.worker_group:DefaultPlacementGroupHandle.shutdown",
    f"{TRAIN}.execution.worker_group:WorkerGroup._create_placement_group",
    f"{TRAIN}.execution.worker_group:WorkerGroup._create_workers",
    f"{TRAIN}.execution.worker_group:WorkerGroup._start",
    f"{TRAIN}.execution.worker_group:WorkerGroup._start_impl",
    f"{TRAIN}.execution.worker_group:WorkerGroup._get_worker_runtime_env",
    f"{TRAIN}.execution.worker_group:WorkerGroup._clear_state",
    f"{TRAIN}.execution.worker_group:WorkerGroup.has_started",
    f"{TRAIN}.execution.worker_group.state:WorkerGroupState.shutdown",
    f"{TRAIN}.exceptions:WorkerHealthCheckFailedError",
    f"{TRAIN}.exceptions:WorkerGroupStartupFailedError",
    f"{TRAIN}.callbacks:DatasetsCallback",
    f"{TRAIN}.callbacks.placement_group_callback:PlacementGroupCleanerCallback",
    "ray.train.backend:Backend.on_start",
    "ray.train.backend:Backend.on_shutdown",
    "ray.train.backend:Backend.share_cuda_visible_devices",
    "ray.train.backend:BackendConfig.backend_cls",
    f"{TRAIN}.execution.worker_group.execution_group:ExecutionGroup.execute",
    f"{TRAIN}.execution.worker_group.execution_group:ExecutionGroup.execute_async",
    f"{TRAIN}.execution.worker_group.execution_group:ExecutionGroup.execute_single",
    "ray.train.v2.api.data_parallel_trainer:DataParallelTrainer._create_default_callbacks",
    "ray.train.v2.api.data_parallel_trainer:DataParallelTrainer._initialize_and_run_controller",
    "ray.train.v2.api.data_parallel_trainer:DataParallelTrainer._register_sigint_handler",
    "ray.tune.schedulers:PopulationBasedTraining._get_new_config",
    "ray.data:Dataset.iter_internal_ref_bundles",
    "ray.data:DataContext.__dataclass_fields__.custom_execution_callback_classes",
    "ray.data:DataContext.__dataclass_fields__.execution_no_progress_timeout_s",
    "ray.data._internal.progress:__name__",
    "ray.data._internal.stats:_StatsManager.update_execution_metrics",
    "ray.data._internal.stats:_StatsManager.update_iteration_metrics",
    "ray.data._internal.stats:_StatsManager.register_dataset_to_stats_actor",
    "ray.data._internal.stats:_StatsManager.gen_dataset_id_from_stats_actor",
    "ray._private.worker:get_dashboard_url",
    "ray._private.worker:print_to_stdstream",
    "ray._private.node:Node.is_head",
    "ray._private.ray_constants:ENABLE_RAY_CLUSTER",
    "ray._private.node:Node.dead_processes",
    "ray.tune.execution.class_cache:DEFAULT_ENV_VARS",
    "ray.tune.execution.class_cache:ENV_VARS_TO_PROPAGATE",
    f"{TOKEN_LOGGER}:logger",
    f"{REQUESTS_LOGGER}:logger",
    "ray.data._internal.execution.execution_callback:ExecutionCallback.on_execution_step",
]
"""module:attributes of all that Ray does not promise to keep."""


def find(name: str) -> Any:
    module, _, path = name.partition(":")
    found: Any = import_module(module)
    for part in path.split("."):
        found = found[part] if isinstance(found, dict) else getattr(found, part)
    return found


@pytest.mark.parametrize("name", BORROWED)
def test_ray_still_has(name: str) -> None:
    try:
        assert find(name) is not None
    except (ImportError, AttributeError, KeyError) as error:
        pytest.fail(f"Ray no longer has {name}, which plinth.ray_internals borrows: {error!r}")


def test_whether_this_process_started_its_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    assert hasattr(import_module("ray._private.worker"), "_global_node")
    for node, expected in ((None, False), (SimpleNamespace(is_head=lambda: True), True)):
        monkeypatch.setattr("ray._private.worker._global_node", node)
        assert started_here() is expected


def test_signatures_of_replaced_methods() -> None:
    """Keywords that our replacements read or pass on."""
    workers = inspect.signature(find(f"{TRAIN}.execution.worker_group:WorkerGroup._create_workers"))
    assert list(workers.parameters)[:2] == ["self", "num_workers"]
    assert "placement_group_bundle_indices" in workers.parameters
    config = inspect.signature(find("ray.tune.schedulers:PopulationBasedTraining._get_new_config"))
    assert list(config.parameters) == ["self", "trial", "trial_to_clone"]


def test_every_private_import_is_in_the_table() -> None:
    known = {entry.partition(":")[0] + ":" + re.split(r"[:.]", entry)[-1] for entry in BORROWED}
    known |= {f"{module}:{path.split('.')[0]}" for module, _, path in (e.partition(":") for e in BORROWED)}
    known |= {
        f"{m.rpartition('.')[0]}:{m.rpartition('.')[2]}" for m in (e.partition(":")[0] for e in BORROWED)
    }
    sources = [path.read_text() for path in FOLDER.glob("*.py")]
    assert len(sources) > 1
    for node in (node for source in sources for node in ast.walk(ast.parse(source))):
        if isinstance(node, ast.ImportFrom) and node.module and "._" in node.module:
            for alias in node.names:
                assert f"{node.module}:{alias.name}" in known, f"{node.module}:{alias.name} has no test"


def test_no_other_file_uses_private_names_of_ray() -> None:
    private = re.compile(r"\bray(\.\w+)*\._\w+")
    for folder in ("platform", "jobs", "poma3d"):
        for path in (ROOT / folder).rglob("*.py"):
            if path.parent != FOLDER:
                found = private.search(path.read_text())
                assert found is None, f"{path.relative_to(ROOT)} uses {found and found[0]}"
