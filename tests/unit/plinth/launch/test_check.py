"""What can be found before anything starts."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from plinth.checkpoint import store as checkpoint_store
from plinth.engine.config import Precision, ZeroConfig
from plinth.errors import CheckpointError, ConfigError, PlinthError
from plinth.launch.check import check, possible_sizes
from plinth.launch.config import FitConfig, Workers
from plinth.train.resolve import ResolvedStage
from tests.helpers.toy.run import toy_run


def workers(count: int) -> FitConfig:
    return FitConfig(workers=Workers(count, count))


def test_good_run_passes_and_leaves_nothing(tmp_path: Path) -> None:
    stage = toy_run(tmp_path)
    checked = check(FitConfig(workers=Workers(1, 4)), [stage])
    assert checked.sizes == (1, 2, 4)
    assert stage.storage.list() == []


@pytest.mark.parametrize(
    ("count", "changes", "kind", "message"),
    [
        (8, {}, ConfigError, "8 workers are more than the 4 lanes"),
        (3, {}, ConfigError, r"3 workers do not divide lanes 4.*Use one of \[1, 2, 4\]"),
        (1, {"global_batch_size": 10}, ConfigError, "global_batch_size 10 is not a multiple of lanes 4"),
        (1, {"steps": 2}, ConfigError, "warmup_steps 2 is not less than the stage's 2 steps"),
        (1, {"zero": ZeroConfig(stage=0, precision=Precision.bf16)}, ConfigError, "bf16 with zero.stage 0"),
    ],
)
def test_mistakes_are_found(
    tmp_path: Path, count: int, changes: dict[str, Any], kind: type[PlinthError], message: str
) -> None:
    with pytest.raises(kind, match=message):
        check(workers(count), [toy_run(tmp_path, **changes)])


def test_possible_sizes_divide_lanes_and_micro_batches_of_all_stages(tmp_path: Path) -> None:
    stage = toy_run(tmp_path)  # 4 lanes, 4 micro-batches
    assert possible_sizes([stage], 1, 4) == [1, 2, 4]
    assert possible_sizes([stage], 2, 7) == [2, 4]
    assert possible_sizes([stage, replace(stage, micro_batch_size=4)], 1, 4) == [1, 2]
    with pytest.raises(ConfigError, match=r"from 5 to 7 .*Possible are \[1, 2, 4\]"):
        possible_sizes([stage], 5, 7)


def commit_by_hand(stage: ResolvedStage, notes: dict[str, Any]) -> None:
    checkpoint_store.commit(stage.checkpoints, 4, {}, {"step": 4, "notes": notes}, token="t")


def test_run_is_compared_with_its_last_checkpoint(tmp_path: Path) -> None:
    stage = toy_run(tmp_path)
    commit_by_hand(stage, stage.notes)
    check(workers(1), [stage])
    with pytest.raises(CheckpointError, match=r"optim\.lr was 0\.005 and is 1\.0"):
        check(workers(1), [toy_run(tmp_path, config={"optim": {"lr": 1.0}})])
    with pytest.raises(CheckpointError, match="data sets have changed"):
        check(workers(1), [toy_run(tmp_path, seed=4)])  # another order


def test_caller_may_allow_changes(tmp_path: Path) -> None:
    seen = []
    stage = toy_run(tmp_path, config={"new": 1}, check_resume=lambda saved, now: seen.append((saved, now)))
    commit_by_hand(stage, {"config": {"old": 1}, "data": "x"})
    check(workers(1), [stage])
    assert seen[0][0]["config"] == {"old": 1}
    assert seen[0][1]["config"] == {"new": 1}
