"""A stage is resolved once, and the workers notice when that no longer holds."""

from __future__ import annotations

import pickle
from dataclasses import FrozenInstanceError, replace
from pathlib import Path
from typing import Any

import pytest

from plinth.data import manifest
from plinth.data.config import DataConfig, SourceConfig
from plinth.data.sources import check_unchanged
from plinth.engine import process
from plinth.errors import CheckpointError, ConfigError, DataError, PlinthError
from plinth.storage import Storage
from plinth.train import attempt
from plinth.train.control import Control
from plinth.train.loop import run_stage
from plinth.train.resolve import refuse_changes, resolve
from tests.helpers.datasets import make_data_set
from tests.helpers.ranks import run_ranks
from tests.helpers.toy.run import ROWS, SHAPES, toy_run, toy_spec


def train(stage: Any) -> str:
    """On a rank: the message of the error that the stage ends with, or nothing."""
    started = process.start(threads=1)
    control = Control()
    with attempt.begin(started, Storage.from_uri(stage.storage.uri), "", control, 30.0) as this:
        try:
            run_stage(stage, started, control, this)
        except PlinthError as error:
            return str(error)
    return ""


@pytest.mark.slow
def test_data_set_changed_between_driver_and_worker_is_refused(tmp_path: Path) -> None:
    stage = toy_run(tmp_path)
    make_data_set(tmp_path / "data", (*ROWS, 5), shapes=SHAPES)  # built again, with more samples
    (message,) = run_ranks(1, train, stage)
    assert f"{tmp_path}/data was built again while the run was under way" in message
    assert not stage.checkpoints.list(), "not a step was trained"


def test_unchanged_data_sets_pass_and_changed_ones_are_named(tmp_path: Path) -> None:
    stage = toy_run(tmp_path)
    check_unchanged(pickle.loads(pickle.dumps(stage)).mixture.sources)
    make_data_set(tmp_path / "data", ROWS[::-1], shapes=SHAPES)
    with pytest.raises(DataError, match="data was built again"):
        check_unchanged(stage.mixture.sources)


def test_version_that_was_asked_for_stays_whatever_is_added(tmp_path: Path) -> None:
    toy_run(tmp_path)
    data = Storage.from_uri(tmp_path / "data")
    first = manifest.load(data)
    manifest.commit(data.child(manifest.version_folder(1)), first)
    stage = toy_run(
        tmp_path, data=replace(toy_spec(tmp_path).data, sources=[SourceConfig(f"{tmp_path}/data#1")])
    )
    make_data_set(tmp_path / "data", (*ROWS, 5), shapes=SHAPES)
    check_unchanged(stage.mixture.sources)
    assert [source.manifest.rows for source in stage.mixture.sources] == [first.rows]
    assert manifest.load(data).rows == first.rows + 5, "the newest has more"


@pytest.mark.parametrize(
    ("changes", "kind", "message"),
    [
        ({"epochs": 1.0}, ConfigError, r"toy\.epochs is 1\.0 and toy\.steps is 12"),
        ({"steps": None}, ConfigError, r"toy\.epochs is None and toy\.steps is None"),
        ({"steps": 0}, ConfigError, "toy has 0 steps"),
        ({"data": DataConfig(sources=[SourceConfig(uri="/nowhere")], lanes=4)}, DataError, "/nowhere"),
        ({"data": DataConfig(lanes=4)}, ConfigError, "data.sources is empty"),
    ],
)
def test_mistakes_are_found(
    tmp_path: Path, changes: dict[str, Any], kind: type[PlinthError], message: str
) -> None:
    with pytest.raises(kind, match=message):
        resolve(toy_spec(tmp_path, **changes))


def test_epochs_may_be_a_fraction(tmp_path: Path) -> None:
    stage = toy_run(tmp_path, steps=None, epochs=1.5)
    assert stage.plan.steps_per_epoch == 6
    assert stage.total_steps == 9


def test_resolved_stage_is_frozen_and_survives_pickling(tmp_path: Path) -> None:
    stage = toy_run(tmp_path)
    with pytest.raises(FrozenInstanceError):
        stage.seed = 4  # type: ignore[misc]
    for change in ({"seed": 4}, {"steps": 3}, {"global_batch_size": 16}, {"data": DataConfig(lanes=2)}):
        with pytest.raises(ValueError, match="change its StageSpec"):
            replace(stage, **change)
    there = pickle.loads(pickle.dumps(stage))
    assert there.notes == stage.notes
    assert there.mixture.sources[0].manifest == stage.mixture.sources[0].manifest
    assert there.total_steps == stage.total_steps


SAVED = {"config": {"optim": {"lr": 0.1}, "seed": 1}, "data": "d1", "cursor": {}}


def test_changed_job_is_refused_with_its_keys() -> None:
    now = {"config": {"optim": {"lr": 0.1}, "seed": 1}, "data": "d1"}
    refuse_changes(SAVED, now)
    now["config"] = {"optim": {"lr": 0.2}, "seed": 1}
    with pytest.raises(CheckpointError, match=r"optim\.lr was 0\.1 and is 0\.2\. Go back"):
        refuse_changes(SAVED, now)


def test_changed_data_is_refused() -> None:
    with pytest.raises(CheckpointError, match="data sets have changed"):
        refuse_changes(SAVED, {**SAVED, "data": "d2"})
