"""The size of a run changes while it trains: several raylets on one machine, one taken away and another
added. Real Ray Train, real process groups; the result is that of a run that nothing happened to."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from plinth.checkpoint import save_load as checkpoint
from plinth.checkpoint import store
from plinth.checkpoint.config import CheckpointConfig
from plinth.launch.config import FitConfig, Workers
from plinth.launch.fit import fit
from plinth.observe.step_lines import read_lines
from plinth.storage import Storage
from plinth.train.outcome import StageEnd
from plinth.train.resolve import ResolvedStage
from tests.helpers.toy.run import build_slow, toy_run
from tests.integration.conftest import Nodes

pytestmark = pytest.mark.slow
STEPS = 120
TIMEOUT_S = 240.0


def sizes(run: ResolvedStage) -> list[tuple[int, int]]:
    """(step, number of workers) of the steps in storage."""
    return [(line["step"], line["world_size"]) for line in read_lines(run.storage)]


def until(is_true: Callable[[], bool], trainer: threading.Thread, what: str) -> None:
    deadline = time.monotonic() + TIMEOUT_S
    while not is_true():
        assert trainer.is_alive(), f"{what}: the run ended before"
        assert time.monotonic() < deadline, what
        time.sleep(0.2)


def test_run_shrinks_and_grows_with_the_cluster_without_loss(nodes: Nodes, tmp_path: Path) -> None:
    whole = toy_run(tmp_path / "whole", steps=STEPS, data=long_data(tmp_path / "whole"))
    fit(FitConfig(workers=Workers(0, 0)), [whole], Storage.from_uri(tmp_path / "whole" / "run"))

    run = toy_run(
        tmp_path / "elastic", steps=STEPS, build_stage=build_slow, data=long_data(tmp_path / "elastic"),
        checkpoint=CheckpointConfig(every_steps=5, keep_last=0),
    )  # fmt: skip
    config = FitConfig(
        workers=Workers(1, 4), cpus_per_worker=1.0, start_timeout_s=20.0, resize_check_s=2.0, max_failures=3
    )
    started = nodes.add(2)
    ends: list[StageEnd] = []
    trainer = threading.Thread(
        target=lambda: ends.append(fit(config, [run], Storage.from_uri(tmp_path / "elastic" / "run")))
    )
    trainer.start()
    until(lambda: (store.latest(run.checkpoints) or 0) >= 10, trainer, "two workers reach step 10")
    nodes.remove(started[1])
    until(lambda: 1 in [n for _, n in sizes(run)], trainer, "one worker goes on")
    nodes.add(3)  # room for four
    until(lambda: 4 in [n for _, n in sizes(run)], trainer, "it grows to four")
    trainer.join(TIMEOUT_S)
    assert ends, "the run did not end"

    seen = [n for _, n in sizes(run)]
    changed_at = [i for i, (n, before) in enumerate(zip(seen, [0, *seen], strict=False)) if n != before]
    changes = [seen[i] for i in changed_at]
    assert changes in ([2, 1, 4], [2, 1, 2, 4]), "nodes come one after the other: it may grow in two steps"
    assert [step for step, _ in sizes(run)] == list(range(STEPS))
    assert all(i % 5 == 0 for i in changed_at[2:]), "it grew at a checkpoint"
    lines, expected = read_lines(run.storage), read_lines(whole.storage)
    assert [line["digest"] for line in lines] == [line["digest"] for line in expected]
    assert [line["loss"] for line in lines] == [line["loss"] for line in expected]
    same = checkpoint.read_full(whole.checkpoints, whole.scratch)
    for name, tensor in checkpoint.read_full(run.checkpoints, run.scratch).items():
        assert torch.equal(tensor, same[name]), name


def test_preemption_notice_saves_before_the_deadline(nodes: Nodes, tmp_path: Path) -> None:
    """Ray says when a node will be taken away: nothing is lost but the time that the move takes."""
    import ray
    from ray.core.generated import autoscaler_pb2

    run = toy_run(
        tmp_path, steps=STEPS, build_stage=build_slow, data=long_data(tmp_path),
        checkpoint=CheckpointConfig(every_steps=1000, keep_last=0),
    )  # fmt: skip
    config = FitConfig(
        workers=Workers(1, 2), cpus_per_worker=1.0, start_timeout_s=20.0, resize_check_s=2.0,
        max_failures=0, max_preemptions=1,
    )  # fmt: skip
    started = nodes.add(2)
    ends: list[StageEnd] = []
    trainer = threading.Thread(
        target=lambda: ends.append(fit(config, [run], Storage.from_uri(tmp_path / "run")))
    )
    trainer.start()
    until(lambda: bool(list(tmp_path.glob("run/ledger/*.json"))), trainer, "training begins")
    time.sleep(3.0)
    assert store.latest(run.checkpoints) is None
    accepted, why = ray._private.worker._global_node.get_gcs_client().drain_node(
        started[1].node_id,
        autoscaler_pb2.DrainNodeReason.Value("DRAIN_NODE_REASON_PREEMPTION"),
        "the spot instance is reclaimed",
        int(1000 * (time.time() + 12)),
    )
    assert accepted, why
    until(lambda: store.latest(run.checkpoints) is not None, trainer, "it saves before the deadline")
    saved = store.latest(run.checkpoints)
    until(lambda: 1 in [n for _, n in sizes(run)] or not trainer.is_alive(), trainer, "it goes on")
    nodes.remove(started[1])
    trainer.join(TIMEOUT_S)
    assert ends, "the run did not end: the preemption was counted as a failure"
    seen = sizes(run)
    assert [step for step, _ in seen] == list(range(STEPS))
    assert [n for _, n in seen] == [2] * (saved or 0) + [1] * (STEPS - (saved or 0)), "no step was lost"


def long_data(folder: Path) -> Any:
    """The toy data, whose order repeats epoch after epoch."""
    return toy_run(folder).data
