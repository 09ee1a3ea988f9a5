"""Who holds the others up: from lines, and with a rank that is really slow."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from plinth.checkpoint.config import CheckpointConfig
from plinth.data.assemble import LocalBatch
from plinth.data.batches import Batches
from plinth.engine import process
from plinth.observe.config import MetricsConfig
from plinth.observe.step_lines import read_lines
from plinth.observe.stragglers import COMPUTE, DATA_WAIT, ForwardClock, RankTimes, find_straggler
from plinth.train import attempt
from plinth.train.control import Control
from plinth.train.loop import run_stage
from plinth.train.resolve import ResolvedStage
from tests.helpers.ranks import run_ranks
from tests.helpers.toy.run import toy_run
from tests.helpers.toy.stage import ToyStage

HOSTS = [["node-a", 2], ["node-b", 2]]


def line(waits: Sequence[float], computes: Sequence[float], hosts: Any = HOSTS) -> dict[str, Any]:
    ranks = {"data_wait_s": list(waits), "compute_s": list(computes), "hosts": hosts}
    return {"step": 0, "step_s": 1.0, "ranks": ranks}


EVEN = line([0.01] * 4, [0.3, 0.31, 0.3, 0.29])


@pytest.mark.parametrize(
    ("lines", "sentence"),
    [
        ([], ""),
        ([EVEN], ""),
        ([{"step": 0, "step_s": 1.0}], ""),
        ([line([0.0], [0.5], [["node-a", 1]])], ""),
        (
            [line([0.01] * 4, [0.3, 0.3, 0.3, 0.6])] * 3,
            "rank 3 on node-b is slow: it takes 0.60 s per step for its forward passes, the others 0.30 s "
            "(a step is 1.00 s)",
        ),
        (
            [line([0.0, 0.4, 0.02, 0.02], [0.3, 0.3, 0.3, 0.35])],
            "rank 1 on node-a is slow: it waits 0.40 s per step for its data, the others 0.02 s "
            "(a step is 1.00 s)",
        ),
        ([line([0.01] * 4, [0.3, 0.3, 0.3, 9.0]), EVEN, EVEN], ""),  # once is no habit
        ([line([0.01] * 4, [0.6, 0.3], [["gone", 2]]), EVEN], ""),  # another group of workers
        ([line([0.01] * 4, [0.3, 0.3, 0.3, 0.38])], ""),  # too little of the step
    ],
)
def test_straggler_sentence(lines: list[dict[str, Any]], sentence: str) -> None:
    found = find_straggler(lines)
    assert (found.sentence if found else "") == sentence


def test_several_slow_ranks_are_counted() -> None:
    hosts = [["node-a", 3], ["node-b", 2]]
    found = find_straggler([line([0.0] * 5, [0.3, 0.3, 0.3, 0.7, 0.6], hosts)])
    assert found is not None
    assert (found.rank, found.host, found.more) == (3, "node-b", 1)


def test_lines_hold_means_since_the_last_and_leave_the_first_step_out() -> None:
    times = RankTimes(["a", "a", "b"])
    times.add({DATA_WAIT: [9.0] * 3, COMPUTE: [9.0] * 3})
    assert times.take() == {}
    times.add({DATA_WAIT: [0.0, 0.0, 0.25], COMPUTE: [0.5] * 3})
    times.add({DATA_WAIT: [0.0, 0.5, 0.75], COMPUTE: [0.5] * 3})
    assert times.take() == {
        "data_wait_s": [0.0, 0.25, 0.5], "compute_s": [0.5] * 3, "hosts": [["a", 2], ["b", 1]],
    }  # fmt: skip
    assert times.take() == {}


def test_forward_clock_counts_forward_passes_only() -> None:
    class Sleepy(torch.nn.Module):
        def forward(self, x: float) -> float:
            time.sleep(x)
            return x

    stage = Sleepy()
    clock = ForwardClock(stage, torch.device("cpu"))
    began = time.perf_counter()
    stage(0.02)
    time.sleep(0.2)
    stage(0.02)
    assert 0.04 <= clock.take_s() <= time.perf_counter() - began - 0.2
    assert clock.take_s() == 0
    clock.close()
    stage(0.01)
    assert clock.take_s() == 0


class SlowOnRank1(ToyStage):
    """A rank on a machine that is slower than the others."""

    def forward(self, batch: Any, features_only: bool = False) -> Any:
        time.sleep(0.2 if os.environ["RANK"] == "1" else 0.0)
        return super().forward(batch, features_only)


@contextmanager
def slow_reading() -> Iterator[None]:
    """A rank whose storage is far away."""
    take = Batches.__next__

    def late(self: Batches) -> LocalBatch:
        began = time.perf_counter()
        time.sleep(0.5 if os.environ["RANK"] == "0" else 0.0)
        batch = take(self)
        batch.wait_s = time.perf_counter() - began
        return batch

    Batches.__next__ = late  # type: ignore[method-assign]
    try:
        yield
    finally:
        Batches.__next__ = take  # type: ignore[method-assign]


def train(run: ResolvedStage) -> None:
    """On all ranks."""
    started, control = process.start(threads=1), Control()
    with attempt.begin(started, run.storage.child("logs-of-test"), run.run_id, control, 60.0) as this:
        run_stage(run, started, control, this)


@pytest.mark.slow
def test_slow_rank_is_named_by_straggler(tmp_path: Path) -> None:
    run = toy_run(
        tmp_path,
        steps=6,
        checkpoint=CheckpointConfig(every_steps=6),
        metrics=MetricsConfig(details_every_steps=2),
    )
    run_ranks(2, train_slow, run, "compute")
    run_ranks(2, train_slow, replace(run, name="far", storage=run.storage.child("far")), "data")
    slow, far = (find_straggler(read_lines(s)) for s in (run.storage, run.storage.child("far")))
    assert slow is not None
    assert (slow.rank, slow.measure) == (1, COMPUTE)
    assert far is not None
    assert (far.rank, far.measure) == (0, DATA_WAIT)


def train_slow(run: ResolvedStage, what: str) -> None:
    """On all ranks: one of them slow in its forward passes, or in reading."""
    if what == "compute":
        train(replace(run, build_stage=lambda sources: SlowOnRank1()))
    else:
        with slow_reading():
            train(run)
