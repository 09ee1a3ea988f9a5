"""What can be found before anything starts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from plinth.checkpoint import store as checkpoint_store
from plinth.data.config import DataConfig, SourceConfig
from plinth.engine.config import Precision, ZeroConfig
from plinth.errors import CheckpointError, ConfigError, DataError, PlinthError
from plinth.train import stage_run
from plinth.train.stage_run import preflight, refuse_changes
from tests.helpers.toy.run import toy_run


def test_a_good_run_passes_and_leaves_nothing(tmp_path: Path) -> None:
    run = toy_run(tmp_path)
    preflight(run, world_size=2)
    assert run.storage.list() == []


@pytest.mark.parametrize(
    ("world_size", "changes", "kind", "message"),
    [
        (8, {}, ConfigError, "8 workers are more than the 4 lanes"),
        (3, {}, ConfigError, r"3 workers do not divide lanes 4.*Use one of \[1, 2, 4\]"),
        (1, {"global_batch_size": 10}, ConfigError, "global_batch_size 10 is not a multiple of lanes 4"),
        (1, {"steps": 2}, ConfigError, "warmup_steps 2 is not less than the stage's 2 steps"),
        (1, {"epochs": 1.0}, ConfigError, r"toy\.epochs is 1\.0 and toy\.steps is 12"),
        (1, {"steps": None}, ConfigError, r"toy\.epochs is None and toy\.steps is None"),
        (1, {"steps": 0}, ConfigError, "toy has 0 steps"),
        (1, {"zero": ZeroConfig(stage=0, precision=Precision.bf16)}, ConfigError, "bf16 with zero.stage 0"),
        (1, {"data": DataConfig(sources=[SourceConfig(uri="/nowhere")], lanes=4)}, DataError, "/nowhere"),
    ],
)
def test_mistakes_are_found(
    tmp_path: Path, world_size: int, changes: dict[str, Any], kind: type[PlinthError], message: str
) -> None:
    with pytest.raises(kind, match=message):
        preflight(toy_run(tmp_path, **changes), world_size)


def test_epochs_may_be_a_fraction(tmp_path: Path) -> None:
    run = toy_run(tmp_path, steps=None, epochs=1.5)
    plan = stage_run.plan_of(run)
    assert plan.steps_per_epoch == 6
    assert stage_run.stage_steps(run, plan) == 9


SAVED = {"config": {"optim": {"lr": 0.1}, "seed": 1}, "data": "d1", "cursor": {}}


def test_only_a_changed_job_is_refused_with_its_keys() -> None:
    now = {"config": {"optim": {"lr": 0.1}, "seed": 1}, "data": "d1"}
    refuse_changes(SAVED, now)
    now["config"] = {"optim": {"lr": 0.2}, "seed": 1}
    with pytest.raises(CheckpointError, match=r"optim\.lr was 0\.1 and is 0\.2\. Go back"):
        refuse_changes(SAVED, now)


def test_changed_data_is_refused() -> None:
    with pytest.raises(CheckpointError, match="data sets have changed"):
        refuse_changes(SAVED, {**SAVED, "data": "d2"})


def commit_by_hand(run: stage_run.StageRun, notes: dict[str, Any]) -> None:
    checkpoint_store.commit(run.checkpoints, 4, {}, {"step": 4, "notes": notes}, token="t")


def test_preflight_compares_with_the_last_checkpoint(tmp_path: Path) -> None:
    run = toy_run(tmp_path)
    data = stage_run.plan_of(run).fingerprint
    commit_by_hand(run, {"config": run.config, "data": data})
    preflight(run, 1)
    changed = toy_run(tmp_path, config={"optim": {"lr": 1.0}})
    with pytest.raises(CheckpointError, match=r"optim\.lr was 0\.005 and is 1\.0"):
        preflight(changed, 1)
    with pytest.raises(CheckpointError, match="data sets have changed"):
        preflight(toy_run(tmp_path, seed=4), 1)  # another order


def test_the_caller_may_allow_changes(tmp_path: Path) -> None:
    seen = []
    run = toy_run(tmp_path, config={"new": 1}, check_resume=lambda saved, now: seen.append((saved, now)))
    commit_by_hand(run, {"config": {"old": 1}, "data": "x"})
    preflight(run, 1)
    assert seen[0][0]["config"] == {"old": 1}
    assert seen[0][1]["config"] == {"new": 1}
