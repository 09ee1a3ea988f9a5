"""A stage from data set to metrics in one process and in two, whole and resumed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from plinth.errors import NonFiniteError, PlinthError
from plinth.storage import Storage
from plinth.train import checkpoint, process
from plinth.train.checkpoint_config import CheckpointConfig
from plinth.train.control import Control
from plinth.train.loop import run_stage
from plinth.train.metrics import read_lines
from plinth.train.stage_run import StageRun
from plinth.train.zero import Precision, ZeroConfig
from tests.helpers.ranks import run_ranks
from tests.helpers.toy import ToyStage
from tests.helpers.toy_run import StageOfNan, toy_run

pytestmark = pytest.mark.slow


def train(run: StageRun) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """On all ranks: what the loop returned, and what it reported on the way."""
    reported: list[dict[str, Any]] = []

    class Told(Control):
        def report(self, summary: dict[str, Any]) -> None:
            reported.append(summary)

    return run_stage(run, process.start(threads=1), Told()).summary, reported


def weights(run: StageRun) -> dict[str, torch.Tensor]:
    return checkpoint.read_full(run.checkpoints, run.scratch)


def lines(run: StageRun, *keys: str) -> list[tuple[Any, ...]]:
    return [tuple(line[key] for key in keys) for line in read_lines(run.storage)]


def straight(folder: Path, **changes: Any) -> StageRun:
    """A run of twelve steps without interruption at one rank."""
    run = toy_run(folder, **changes)
    run_ranks(1, train, run)
    return run


def test_a_stage_leaves_checkpoints_metrics_and_tensorboard(tmp_path: Path) -> None:
    run = toy_run(tmp_path)
    ((last, reported),) = run_ranks(1, train, run)
    assert [r["step"] for r in reported] == [3, 7, 11]
    assert last == reported[-1]
    assert set(last) == {"step", "loss", "lr", "grad_norm", "view", "local"}
    assert [i.step for i in checkpoint.list_checkpoints(run.checkpoints)] == [8, 12]
    found = lines(run, "step", "epoch", "step_in_epoch")
    assert found == [(step, step // 6, step % 6) for step in range(12)]
    detailed = [line["step"] for line in read_lines(run.storage) if "student_max" in line["logs"]]
    assert detailed == [0, 3, 6, 9]
    assert [p.name for p in (tmp_path / "run" / "toy" / "tensorboard").iterdir()]
    assert checkpoint.read_state(run.checkpoints)["notes"]["cursor"] == {"epoch": 2, "step": 0}
    assert list(run.scratch.iterdir()) == []


def test_a_stage_that_is_done_is_not_trained_again(tmp_path: Path) -> None:
    run = straight(tmp_path)
    before = {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*") if p.is_file()}
    assert run_ranks(1, train, run) == [({}, [])]
    assert {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*") if p.is_file()} == before


@pytest.mark.parametrize("zero", [ZeroConfig(stage=2), ZeroConfig(stage=3, precision=Precision.bf16)])
def test_resumed_at_other_world_sizes_it_ends_the_same(tmp_path: Path, zero: ZeroConfig) -> None:
    """Cut in the middle of an epoch, behind a checkpoint, and go on with another number of ranks."""
    whole = straight(tmp_path / "whole", zero=zero)
    run = toy_run(tmp_path / "cut", zero=zero)
    cuts = [(2, 5), (4, 9), (1, 12)]
    for world_size, until in cuts:
        stopped = replace(run, build_stage=StopAfter(until)) if until < 12 else run
        run_ranks(world_size, train_until_stopped, stopped)
    assert lines(run, "step", "digest") == lines(whole, "step", "digest")
    tolerance = 1e-6 if zero.precision is Precision.fp32 else 0
    losses = [line[0] for line in lines(run, "loss")]
    assert losses == pytest.approx([line[0] for line in lines(whole, "loss")], abs=1e-6)
    expected = weights(whole)
    for name, tensor in weights(run).items():
        torch.testing.assert_close(tensor, expected[name], rtol=0, atol=tolerance, msg=name)


class Stopped(PlinthError):
    """The test's cut."""


class StopAfter:
    """A `build_stage` whose stage raises at step `until`, on all ranks, before anything is applied."""

    def __init__(self, until: int) -> None:
        self.until = until

    def __call__(self, sources: Any) -> Any:
        until = self.until

        class Cut(ToyStage):
            def ema_momentum(self, progress: float) -> float:
                if round(progress * 11) == until:
                    raise Stopped("cut")
                return super().ema_momentum(progress)

        return Cut()


def train_until_stopped(run: StageRun) -> None:
    """On all ranks."""
    try:
        train(run)
    except Stopped:
        return


def test_the_second_stage_starts_from_the_first(tmp_path: Path) -> None:
    first = straight(tmp_path)
    second = replace(
        first, name="second", storage=Storage.from_uri(tmp_path / "second"), weights_from=first.storage,
        steps=4, checkpoint=CheckpointConfig(every_steps=1, keep_last=0), seed=8,
    )  # fmt: skip
    second.optim.warmup_steps = 3
    second.optim.lr = 1e-30  # so that the first checkpoint shows what it started from
    run_ranks(1, train, second)
    began = checkpoint.read_full(second.checkpoints, second.scratch, step=1)
    for name, tensor in weights(first).items():
        if not name.startswith("target."):
            torch.testing.assert_close(began[name], tensor, rtol=0, atol=1e-12)
    torch.testing.assert_close(began["target.patch.weight"], began["encoder.patch.weight"])


def train_nan(run: StageRun) -> str:
    """On all ranks: the error."""
    try:
        train(replace(run, build_stage=lambda sources: StageOfNan()))
    except NonFiniteError as error:
        return str(error)
    return ""


def test_a_run_that_fails_leaves_its_metrics(tmp_path: Path) -> None:
    run = toy_run(tmp_path)
    assert "The loss of step 2 is not finite" in run_ranks(1, train_nan, run)[0]
    assert [line["step"] for line in read_lines(run.storage)] == [0, 1]
    assert checkpoint.latest(run.checkpoints) is None
