"""Real Ray Train: two workers, a lost worker, errors of workers, too few resources. One Ray for all tests."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch

from plinth.checkpoint import evaluations, store
from plinth.checkpoint import save_load as checkpoint
from plinth.checkpoint.evaluations import Evaluated
from plinth.errors import ConfigError, DataError, NonFiniteError
from plinth.launch.beside import NICENESS, BesideJob, RayTasks
from plinth.launch.check import check
from plinth.launch.config import BesideConfig, FitConfig, Workers
from plinth.launch.fit import fit, launch
from plinth.observe.config import GuardConfig
from plinth.observe.failures import by_attempt, first_cause, read_failures
from plinth.observe.step_lines import read_lines
from plinth.ray_internals.train_failures import worker_errors
from plinth.storage import Storage
from plinth.train.outcome import StageEnd
from plinth.train.resolve import ResolvedStage
from tests.helpers.toy.run import (
    build_bug,
    build_dying,
    build_nan,
    build_stopped,
    build_stuck,
    endless,
    found_of,
    toy_run,
)

pytestmark = pytest.mark.slow
CONFIG = FitConfig(workers=Workers(2, 2), cpus_per_worker=0.5, max_failures=1)


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    import ray

    ray.init(
        address="local", num_cpus=2, include_dashboard=True, dashboard_host="127.0.0.1", log_to_driver=False
    )
    yield
    ray.shutdown()


@pytest.fixture(scope="module")
def straight(cluster: None, tmp_path_factory: pytest.TempPathFactory) -> tuple[ResolvedStage, StageEnd]:
    """Two stages without interruption on two workers: the first, and what `fit` returned."""
    folder = tmp_path_factory.mktemp("straight")
    run = toy_run(folder)
    storage = Storage.from_uri(folder / "run" / "second")
    second = toy_run(folder, name="second", storage=storage, weights_from=run.storage, steps=4)
    return run, fit(CONFIG, [run, second], Storage.from_uri(folder / "run"))


def test_alone_no_autoscaler_is_told(straight: tuple[ResolvedStage, StageEnd]) -> None:
    import ray

    with pytest.raises(ValueError, match="AutoscalingCoordinator"):
        ray.get_actor("AutoscalingCoordinator", namespace="AutoscalingCoordinator")


def weights(run: ResolvedStage) -> dict[str, torch.Tensor]:
    return checkpoint.read_full(run.checkpoints, run.scratch)


def test_two_stages_on_two_workers(straight: tuple[ResolvedStage, StageEnd]) -> None:
    run, last = straight
    assert last.summary["step"] == 3
    assert store.latest(run.checkpoints) == 12
    assert store.read_state(run.checkpoints)["written_by"]["world_size"] == 2
    second = Storage.from_uri(Path(run.storage.uri).parent / "second")
    assert store.latest(second.child("checkpoints")) == 4
    assert len(read_lines(second)) == 4


def test_lost_worker_does_not_change_the_result(
    straight: tuple[ResolvedStage, StageEnd], tmp_path: Path
) -> None:
    whole, _ = straight
    marker = tmp_path / "died"
    run = toy_run(tmp_path, build_stage=partial(build_dying, marker))
    last = fit(CONFIG, [run], Storage.from_uri(tmp_path / "run"))
    assert marker.exists(), "the worker was to be killed"
    assert last.summary["step"] == 11
    expected = weights(whole)
    for name, tensor in weights(run).items():
        assert torch.equal(tensor, expected[name]), name
    steps = [(line["step"], line["digest"], line["loss"]) for line in read_lines(run.storage)]
    assert steps == [(line["step"], line["digest"], line["loss"]) for line in read_lines(whole.storage)]


@pytest.mark.parametrize(
    ("build_stage", "hang_after_s", "said"),
    [
        (build_stopped, 600.0, r"gave no sign of life for \d+ s, so it was ended .*; before, "),
        (build_stuck, 8.0, r"was ended: for \d+ s takes step 6 .*, the others wait for it"),
    ],
    ids=["stopped", "stuck"],
)
def test_a_rank_that_hangs_is_named_and_ended_and_the_result_is_the_same(
    straight: tuple[ResolvedStage, StageEnd], tmp_path: Path, build_stage: Any, hang_after_s: float, said: str
) -> None:
    whole, _ = straight
    marker, storage = tmp_path / "hung", Storage.from_uri(tmp_path / "run")
    guard = GuardConfig(hang_after_s=hang_after_s)
    run = toy_run(tmp_path, build_stage=partial(build_stage, marker), guard=guard)
    last = fit(replace(CONFIG, silent_after_s=8.0), [run], storage)
    assert marker.exists(), "the worker was to hang"
    assert last.summary["step"] == 11
    ((_, failures),) = by_attempt(read_failures(storage)).items()
    cause = first_cause(failures)
    assert cause.startswith("rank 1 on ")
    assert re.search(said, cause), cause
    expected = weights(whole)
    for name, tensor in weights(run).items():
        assert torch.equal(tensor, expected[name]), name


def test_evaluation_beside_the_training_is_a_task_and_changes_no_bit(
    straight: tuple[ResolvedStage, StageEnd], tmp_path: Path
) -> None:
    whole, _ = straight
    run, marker = toy_run(tmp_path), tmp_path / "evaluated"
    run = replace(run, evaluated=Evaluated("rooms", 4, run.total_steps, keep_waiting=3))
    storage = Storage.from_uri(tmp_path / "run")
    beside = BesideJob(BesideConfig(num_cpus=1.0, look_every_s=0.1), partial(found_of, marker))
    launch(check(CONFIG, [run]), storage, beside=beside)
    assert {one.step: one.numbers for one in evaluations.read(run.checkpoints)} == {
        step: {"R@1-1": step / 100} for step in (4, 8, 12)
    }
    said = [line.split() for line in marker.read_text().splitlines()]
    assert sorted(int(step) for _, step, *_ in said) == [4, 8, 12]
    assert len({pid for _, _, pid, *_ in said}) == 3, "no process that was nice becomes a worker's"
    assert min(int(nice) for *_, nice in said) >= NICENESS
    expected = weights(whole)
    for name, tensor in weights(run).items():
        assert torch.equal(tensor, expected[name]), name


def test_an_evaluation_is_killed_at_any_moment_and_the_driver_lives(cluster: None, tmp_path: Path) -> None:
    """Before its process is there, while it evaluates, and once it has ended."""
    marker, blocked = tmp_path / "evaluated", tmp_path / "blocked"
    tasks = RayTasks(BesideJob(BesideConfig(num_cpus=1.0), partial(found_of, marker)))
    tasks.start("toy", 4)
    tasks.cancel()
    stuck = RayTasks(BesideJob(BesideConfig(num_cpus=1.0), partial(endless, blocked)))
    stuck.start("toy", 4)
    assert came(lambda: blocked.exists() and blocked.read_text().endswith("\n")), "it evaluates"
    stuck.cancel()
    assert came(lambda: not psutil.pid_exists(int(blocked.read_text()))), "its process is gone"
    tasks.start("toy", 8)
    assert came(lambda: marker.exists() and " 8 " in marker.read_text()), "the next is not in its way"
    tasks.cancel()
    tasks.start("toy", 12)
    assert came(lambda: (found := tasks.result()) is not None and found["R@1-1"] == 0.12)
    assert " 4 " not in marker.read_text(), "what was killed before its process was there never evaluated"


def came(condition: Callable[[], bool], limit_s: float = 60.0) -> bool:
    """Whether it comes in time."""
    end = time.monotonic() + limit_s
    while not (found := condition()) and time.monotonic() < end:
        time.sleep(0.1)
    return found


def test_error_of_all_workers_is_raised_and_not_retried(cluster: None, tmp_path: Path) -> None:
    notes = tmp_path / "attempts"
    run = toy_run(tmp_path, build_stage=partial(build_nan, notes))
    with pytest.raises(NonFiniteError, match="The loss of step 2 is not finite"):
        fit(CONFIG, [run], Storage.from_uri(tmp_path / "run"))
    assert len(notes.read_text().splitlines()) == 2 * 4, "on each worker once, and after three rollbacks"


def test_error_of_one_worker_is_raised(cluster: None, tmp_path: Path) -> None:
    run = toy_run(tmp_path)
    shard = sorted((tmp_path / "data" / "shards").iterdir())[-1]
    shard.write_bytes(shard.read_bytes()[:100])
    with pytest.raises(DataError, match=shard.name):
        fit(replace(CONFIG, max_failures=0), [run], Storage.from_uri(tmp_path / "run"))


def test_bug_keeps_rays_error_with_the_workers_errors(cluster: None, tmp_path: Path) -> None:
    """The shape of Ray's error, which `explain_failures` is given in unit tests."""
    import ray.train

    run = toy_run(tmp_path, build_stage=build_bug)
    with pytest.raises(ray.train.TrainingFailedError) as raised:
        fit(replace(CONFIG, max_failures=0), [run], Storage.from_uri(tmp_path / "run"))
    errors = worker_errors(raised.value)
    assert errors
    assert set(errors) <= {0, 1}
    assert any(type(e) is RuntimeError and str(e) == "a bug in the stage" for e in errors.values())


def test_too_few_resources_for_the_workers_are_named(cluster: None, tmp_path: Path) -> None:
    config = replace(CONFIG, cpus_per_worker=3.0, max_failures=0, start_timeout_s=2.0)
    with pytest.raises(ConfigError, match="2 workers need 6 CPU; the cluster has 2 CPU"):
        fit(config, [toy_run(tmp_path)], Storage.from_uri(tmp_path / "run"))
