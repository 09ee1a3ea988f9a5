"""A damaged last checkpoint of a stage: the missing steps are trained again, and the result is the same."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from plinth.checkpoint import save_load as checkpoint
from plinth.checkpoint import store
from plinth.engine import process
from plinth.errors import CheckpointError
from plinth.observe.step_lines import read_lines
from plinth.storage import Storage
from plinth.train import attempt
from plinth.train.control import Control
from plinth.train.loop import run_stage
from plinth.train.resolve import ResolvedStage
from tests.helpers.ranks import RankError, run_ranks
from tests.helpers.toy.run import toy_run

pytestmark = pytest.mark.slow
STEPS = 12


def two_stages(folder: Path) -> list[ResolvedStage]:
    """A warm-up, and a main stage of four steps from its weights."""
    warmup = toy_run(folder)
    main = toy_run(
        folder, name="main", storage=Storage.from_uri(folder / "run" / "main"), weights_from=warmup.storage,
        steps=4, seed=8,
    )  # fmt: skip
    return [warmup, main]


def train(stages: list[ResolvedStage], first: int, until: int) -> None:
    """On all ranks: the stages from one to another, as a worker trains them."""
    started, control = process.start(threads=1), Control()
    storage = stages[0].storage.child("logs-of-test")
    with attempt.begin(started, storage, "", control, 60.0) as this:
        for number in range(first, until):
            run_stage(stages[number], started, control, this, stages[number + 1 :])


def damage(stage: ResolvedStage, step: int) -> Path:
    """Flip a byte of a checkpoint's weights; returns the file."""
    folder = Path(stage.checkpoints.uri) / store.folder_name(step)
    path = next(folder.glob("*.safetensors"))
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    return path


def tensors(stage: ResolvedStage) -> dict[str, torch.Tensor]:
    return checkpoint.read_full(stage.checkpoints, stage.scratch, stage.total_steps)


def same(stages: list[ResolvedStage], others: list[ResolvedStage]) -> bool:
    """Whether the last checkpoints and the steps' lines are equal, bit by bit."""
    for a, b in zip(stages, others, strict=True):
        if [(x["digest"], x["loss"]) for x in read_lines(a.storage)] != [
            (x["digest"], x["loss"]) for x in read_lines(b.storage)
        ]:
            return False
        mine, theirs = tensors(a), tensors(b)
        if mine.keys() != theirs.keys() or not all(torch.equal(mine[k], theirs[k]) for k in mine):
            return False
    return True


@pytest.fixture
def whole(tmp_path: Path) -> list[ResolvedStage]:
    """Both stages, without interruption."""
    stages = two_stages(tmp_path / "whole")
    run_ranks(1, train, stages, 0, 2)
    return stages


@pytest.mark.parametrize("world_size", [1, 2])
def test_damaged_end_of_the_warm_up_is_trained_again_before_main_starts(
    whole: list[ResolvedStage], tmp_path: Path, world_size: int
) -> None:
    stages = two_stages(tmp_path / "damaged")
    run_ranks(world_size, train, stages, 0, 1)
    damage(stages[0], STEPS)
    run_ranks(world_size, train, stages, 0, 2)
    assert same(stages, whole)
    folder = Path(stages[0].checkpoints.uri) / store.folder_name(STEPS)
    assert (folder / store.DAMAGED_KEY).exists(), "the damaged one was taken out of use"
    assert (folder / store.COMMIT_KEY).exists(), "and the step saved again"


@pytest.mark.parametrize("number", [0, 1])
def test_finished_run_with_a_damaged_last_checkpoint_mends_it(
    whole: list[ResolvedStage], tmp_path: Path, number: int
) -> None:
    stages = two_stages(tmp_path / "damaged")
    stages[1] = replace(stages[1], checkpoint=replace(stages[1].checkpoint, every_steps=2))
    run_ranks(1, train, stages, 0, 2)
    assert same(stages, whole)
    damage(stages[number], stages[number].total_steps)
    with pytest.raises(CheckpointError, match="is not what was written"):
        tensors(stages[number])
    run_ranks(1, train, stages, 0, 2)
    assert same(stages, whole)


def test_main_never_starts_from_an_older_checkpoint_than_the_last(tmp_path: Path) -> None:
    """Also where nobody looked at the warm-up before, as with `start` from another run."""
    stages = two_stages(tmp_path)
    run_ranks(1, train, stages, 0, 1)
    path = damage(stages[0], STEPS)
    with pytest.raises(RankError) as caught:
        run_ranks(1, train, stages, 1, 2)
    assert isinstance(caught.value.cause, CheckpointError)
    assert f"the last checkpoint is damaged: {path.parent.name}/{path.name}" in caught.value.cause.problem
    assert store.latest(stages[1].checkpoints) is None


def test_end_of_the_warm_up_is_not_downloaded_while_main_is_under_way(tmp_path: Path) -> None:
    stages = two_stages(tmp_path)
    stages[1] = replace(stages[1], checkpoint=replace(stages[1].checkpoint, every_steps=2))
    run_ranks(1, train, stages, 0, 2)
    (Path(stages[1].checkpoints.uri) / store.folder_name(4) / store.COMMIT_KEY).unlink()
    damage(stages[0], STEPS)
    before = store.list_checkpoints(stages[0].checkpoints)
    run_ranks(1, train, stages, 0, 2)
    assert store.list_checkpoints(stages[0].checkpoints) == before
    assert store.latest(stages[1].checkpoints) == stages[1].total_steps
