"""A stage from data set to metrics in one process and in two, whole and resumed."""

from __future__ import annotations

import itertools
import os
import time
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch
import torch.distributed as dist

from plinth.checkpoint import save_load as checkpoint
from plinth.checkpoint import store
from plinth.checkpoint.config import CheckpointConfig
from plinth.data.assemble import sample_key
from plinth.data.config import OnBadShard
from plinth.data.shards import RowGroupReader
from plinth.data.sources import OpenSource, open_sources
from plinth.engine import process
from plinth.engine.config import Precision, ZeroConfig
from plinth.errors import NonFiniteError, PlinthError, TakenOverError
from plinth.observe import incidents
from plinth.observe.config import GuardConfig, OnBadStep
from plinth.observe.step_lines import read_lines
from plinth.storage import Storage
from plinth.storage.lock import FENCE_KEY
from plinth.train import attempt, observers
from plinth.train.control import Control
from plinth.train.loop import run_stage
from plinth.train.resolve import ResolvedStage
from tests.helpers.ranks import run_ranks
from tests.helpers.toy.run import StageOfNan, toy_run
from tests.helpers.toy.stage import ToyStage

pytestmark = pytest.mark.slow


def train(run: ResolvedStage) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """On all ranks: what the loop returned, and what it reported on the way."""
    reported: list[dict[str, Any]] = []

    class Told(Control):
        def report(self, summary: dict[str, Any]) -> None:
            reported.append(summary)

    started, told = process.start(threads=1), Told()
    with attempt.begin(started, run.storage.child("logs-of-test"), run.run_id, told, 60.0) as this:
        return run_stage(run, started, told, this).summary, reported


def ids_of(source: OpenSource) -> list[str]:
    """Every sample of a data set."""
    reader = RowGroupReader(source.storage)
    return [
        name
        for shard in source.manifest.shards
        for group in range(len(shard.row_group_rows))
        for name in reader.read(shard, group, ["sample_id"]).column("sample_id").to_pylist()
    ]


def weights(run: ResolvedStage) -> dict[str, torch.Tensor]:
    return checkpoint.read_full(run.checkpoints, run.scratch)


def lines(run: ResolvedStage, *keys: str) -> list[tuple[Any, ...]]:
    return [tuple(line[key] for key in keys) for line in read_lines(run.storage)]


def straight(folder: Path, **changes: Any) -> ResolvedStage:
    """A run of twelve steps without interruption at one rank."""
    run = toy_run(folder, **changes)
    run_ranks(1, train, run)
    return run


def test_a_stage_leaves_checkpoints_metrics_and_tensorboard(tmp_path: Path) -> None:
    run = toy_run(tmp_path)
    ((last, reported),) = run_ranks(1, train, run)
    assert [r["step"] for r in reported] == [4, 8, 12]
    losses = [loss for (loss,) in lines(run, "loss")]
    assert reported[-1]["loss"] == pytest.approx(np.mean(losses[8:]))
    assert last["step"] == 11
    assert set(last) == {"step", "loss", "lr", "grad_norm", "view", "local"}
    assert [i.step for i in store.list_checkpoints(run.checkpoints)] == [8, 12]
    found = lines(run, "step", "epoch", "step_in_epoch")
    assert found == [(step, step // 6, step % 6) for step in range(12)]
    detailed = [line["step"] for line in read_lines(run.storage) if "student_max" in line["logs"]]
    assert detailed == [0, 3, 6, 9]
    assert [p.name for p in (tmp_path / "run" / "toy" / "tensorboard").iterdir()]
    assert store.read_state(run.checkpoints)["notes"]["cursor"] == {"epoch": 2, "step": 0}
    assert list(run.scratch.iterdir()) == []


def test_a_stage_that_is_done_is_not_trained_again(tmp_path: Path) -> None:
    run = straight(tmp_path)
    before = written(tmp_path)
    assert run_ranks(1, train, run) == [({}, [])]
    assert written(tmp_path) == before


def written(folder: Path) -> dict[Path, int]:
    """When each file was written, but for the logs of the attempts."""
    found = {p: p.stat().st_mtime_ns for p in folder.rglob("*") if p.is_file()}
    return {path: time for path, time in found.items() if "logs" not in path.parts}


@pytest.mark.parametrize(
    "zero",
    [ZeroConfig(stage=stage, precision=precision) for stage in (1, 2, 3) for precision in Precision],
    ids=lambda zero: f"{zero.stage}-{zero.precision.value}",
)
def test_resumed_at_other_world_sizes_it_ends_the_same(tmp_path: Path, zero: ZeroConfig) -> None:
    """Cut in the middle of an epoch, behind a checkpoint, and go on with another number of ranks."""
    whole = straight(tmp_path / "whole", zero=zero)
    run = toy_run(tmp_path / "cut", zero=zero)
    cuts = [(2, 5), (4, 9), (1, 12)]
    for world_size, until in cuts:
        stopped = replace(run, build_stage=StopAfter(until)) if until < 12 else run
        run_ranks(world_size, train_until_stopped, stopped)
    assert lines(run, "step", "digest") == lines(whole, "step", "digest")
    assert lines(run, "loss") == lines(whole, "loss")
    expected = weights(whole)
    for name, tensor in weights(run).items():
        assert torch.equal(tensor, expected[name]), name


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


def train_until_stopped(run: ResolvedStage) -> None:
    """On all ranks."""
    try:
        train(run)
    except Stopped:
        return


def test_the_second_stage_starts_from_the_first(tmp_path: Path) -> None:
    first = straight(tmp_path)
    second = toy_run(
        tmp_path, name="second", storage=Storage.from_uri(tmp_path / "second"), weights_from=first.storage,
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


def train_nan(run: ResolvedStage) -> str:
    """On all ranks: the error."""
    try:
        train(replace(run, build_stage=lambda sources: StageOfNan()))
    except NonFiniteError as error:
        return str(error)
    return ""


def train_poisoned(run: ResolvedStage, bad: frozenset[str]) -> str:
    """On all ranks: a run in which some samples give features that are not finite."""
    try:
        train(replace(run, build_stage=lambda sources: PoisonedStage(bad)))
    except NonFiniteError as error:
        return str(error)
    return ""


def train_and_close_slowly(run: ResolvedStage, bad: frozenset[str]) -> str:
    """`train_poisoned`; fails where a rank looks for lines while rank 0 still closes their writer."""
    close, recover = observers.Observers._close_writer, observers.recover_lines
    closed, looks = Path(f"{run.storage.uri}-closed"), itertools.count(1)

    def slowly(self: observers.Observers) -> None:
        if dist.get_rank() == 0:
            time.sleep(0.2)
        close(self)
        if dist.get_rank() == 0:
            with closed.open("a") as lines:
                lines.write("x")

    def after(*arguments: Any) -> None:
        assert closed.exists()
        assert len(closed.read_text()) >= next(looks)
        recover(*arguments)

    with (
        mock.patch.object(observers.Observers, "_close_writer", slowly),
        mock.patch.object(observers, "recover_lines", after),
    ):
        return train_poisoned(run, bad)


class PoisonedStage(ToyStage):
    """As if `y` of some samples had been stored broken."""

    def __init__(self, bad: frozenset[str]) -> None:
        super().__init__()
        self.bad = torch.tensor([sample_key(name) for name in bad])

    def forward(self, batch: Any, features_only: bool = False) -> Any:
        is_bad = torch.isin(batch["sample_key"], self.bad) & batch["sample_valid"]
        y = torch.where(is_bad[:, None, None], torch.nan, batch["y"])
        return super().forward({**batch, "y": y}, features_only)


def test_no_rank_looks_into_the_folder_of_a_writer_that_another_closes(tmp_path: Path) -> None:
    run = replace(toy_run(tmp_path, steps=4), guard=GuardConfig(max_rollbacks=4))
    ids = sorted(t for s in open_sources(run.data, run.storage_options) for t in ids_of(s))
    assert run_ranks(2, train_and_close_slowly, run, frozenset({ids[3]})) == ["", ""]


def test_poisoned_samples_are_left_out_and_nothing_else(tmp_path: Path) -> None:
    """Found at two ranks in the running process, and the same at one rank that never met them."""
    data = toy_run(tmp_path / "rolled back", steps=12)
    ids = sorted(t for s in open_sources(data.data, data.storage_options) for t in ids_of(s))
    bad = frozenset({ids[3], ids[20]})
    run = replace(data, guard=GuardConfig(max_rollbacks=4))
    assert run_ranks(2, train_poisoned, run, bad) == ["", ""]
    found = incidents.read_all(run.storage)
    assert {i for incident in found for i in incident.sample_ids} == bad
    assert all(not incident.whole_batch and incident.action == "rolled back" for incident in found)
    assert [place["sample_id"] for place in found[0].locations] == found[0].sample_ids
    assert "shard" in str(found[0].locations[0])
    assert [line["step"] for line in read_lines(run.storage)] == list(range(12))

    clean = toy_run(tmp_path / "told", steps=12)
    for incident in found:  # the same knowledge from the start: nothing is rolled back
        incidents.write(clean.storage, incident)
    assert run_ranks(1, train_poisoned, clean, bad) == [""]
    assert len(incidents.read_all(clean.storage)) == len(found)
    assert lines(clean, "step", "digest") == lines(run, "step", "digest")
    expected = weights(clean)
    for name, tensor in weights(run).items():
        torch.testing.assert_close(tensor, expected[name], rtol=0, atol=1e-6, msg=name)


def train_nan_with_a_late_rank(run: ResolvedStage) -> str:
    """On all ranks, of which the second one takes its time to look at storage: how the stage ended."""
    read_all = incidents.read_all

    def late(storage: Storage) -> list[incidents.Incident]:
        time.sleep(0.3 if os.environ["RANK"] == "1" else 0.0)
        return read_all(storage)

    incidents.read_all = late
    return train_nan(run)


def test_all_ranks_count_the_same_rollbacks(tmp_path: Path) -> None:
    run = toy_run(tmp_path, guard=GuardConfig(max_rollbacks=2))
    said = run_ranks(2, train_nan_with_a_late_rank, run)
    assert all("rolled back 2 times before" in of_rank for of_rank in said), said
    assert [i.action for i in incidents.read_all(run.storage)] == ["rolled back", "rolled back", "stopped"]


def test_without_rollbacks_the_first_bad_step_ends_the_run(tmp_path: Path) -> None:
    run = toy_run(tmp_path, guard=GuardConfig(on_bad_step=OnBadStep.stop))
    assert "The loss of step 2 is not finite" in run_ranks(1, train_nan, run)[0]
    assert incidents.read_all(run.storage) == []


def test_samples_of_a_damaged_shard_are_skipped_and_recorded(tmp_path: Path) -> None:
    run = toy_run(tmp_path)
    shard = sorted((tmp_path / "data" / "shards").iterdir())[-1]
    data = bytearray(shard.read_bytes())
    data[40] ^= 255  # inside the first row group
    shard.write_bytes(data)
    data = replace(run.data, on_bad_shard=OnBadShard.skip, max_bad_row_groups=4)
    skipping = toy_run(tmp_path, data=data)
    run_ranks(2, train, skipping)
    skipped = [text for line in read_lines(run.storage) for text in line["skipped"]]
    assert skipped
    assert all(shard.name in text for text in skipped)
    assert [line["step"] for line in read_lines(run.storage)] == list(range(12))


def train_spiky(run: ResolvedStage) -> None:
    """On all ranks: the global batch at one place in the order gives an absurd loss."""
    train(replace(run, build_stage=lambda sources: SpikyStage()))


class SpikyStage(ToyStage):
    """Any batch that holds the first sample of step 9 is trouble."""

    def contrast(self, features: Any) -> Any:
        contrast = super().contrast(features)
        self.calls = getattr(self, "calls", 0) + 1
        factor = 50.0 if self.calls == 10 else 1.0  # after the rollback the count has begun anew
        return replace(contrast, total=contrast.total * factor)


def test_a_spike_is_taken_back_and_its_batch_left_out(tmp_path: Path) -> None:
    guard = GuardConfig(spike_sigmas=20.0, spike_window=8)
    run = toy_run(tmp_path, guard=guard)
    run_ranks(1, train_spiky, run)
    (incident,) = incidents.read_all(run.storage)
    assert (incident.step, incident.whole_batch, len(incident.sample_ids)) == (9, True, 8)
    assert incident.recent_losses[-1] < (incident.loss or 0)
    places = lines(run, "step", "epoch", "step_in_epoch")
    assert places[8:] == [(8, 1, 2), (9, 1, 4), (10, 1, 5), (11, 2, 0)], "one place of the order is left out"


def train_then_stop(run: ResolvedStage, at: int) -> Any:
    """On all ranks: told to stop after some steps, by rank 0 alone."""
    started = process.start(threads=1)

    class StopsAt(Control):
        asked = 0

        def stop_wanted(self) -> bool:
            self.asked += 1
            return started.world.rank == 0 and self.asked > at

    told = StopsAt()
    with attempt.begin(started, run.storage.child("logs-of-test"), run.run_id, told, 60.0) as this:
        return run_stage(run, started, told, this).is_stopped


def test_told_to_stop_it_saves_on_all_ranks_and_goes_on_later(tmp_path: Path) -> None:
    whole = straight(tmp_path / "whole")
    run = toy_run(tmp_path / "stopped")
    assert run_ranks(2, train_then_stop, run, 5) == [True, True]
    assert store.latest(run.checkpoints) == 6
    run_ranks(2, train, run)
    assert lines(run, "step", "digest") == lines(whole, "step", "digest")


def test_a_run_that_fails_leaves_its_metrics(tmp_path: Path) -> None:
    run = toy_run(tmp_path)
    assert "The loss of step 2 is not finite" in run_ranks(1, train_nan, run)[0]
    assert [line["step"] for line in read_lines(run.storage)] == [0, 1]
    assert store.latest(run.checkpoints) is None


def train_taken_over(run: ResolvedStage) -> str:
    """On all ranks: the error."""
    try:
        train(run)
    except TakenOverError as error:
        return str(error)
    return ""


@pytest.mark.parametrize("world_size", [1, 2])
def test_run_that_another_process_has_taken_over_ends_and_leaves_what_that_one_wrote(
    tmp_path: Path, world_size: int
) -> None:
    run = toy_run(tmp_path, lock_token="first")
    folder = run.storage.child("logs-of-test")
    folder.write(FENCE_KEY, b'{"token": "second", "holder": "ann on node-2, process 5"}')
    run.storage.write("metrics.jsonl", b'{"step": 0, "of": "the other"}\n')
    for error in run_ranks(world_size, train_taken_over, run):
        assert "was taken over by ann on node-2, process 5" in error
    assert store.latest(run.checkpoints) is None
    assert run.storage.read("metrics.jsonl") == b'{"step": 0, "of": "the other"}\n'
    run_ranks(world_size, train, replace(run, lock_token="second"))
    assert store.latest(run.checkpoints) == 12
