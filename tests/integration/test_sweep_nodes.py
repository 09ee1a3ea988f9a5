"""A sweep on a cluster that grows and then loses a node: new room is used, trials that lose theirs go on
elsewhere."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import ray

from plinth.storage import Storage
from plinth.sweep.config import SchedulerKind
from plinth.sweep.driver import SweepDriver
from plinth.sweep.records import Status, read_trials
from plinth.train.metrics import read_lines
from tests.helpers.toy_sweep import LR, STEPS, driver, toy_config
from tests.integration.conftest import Nodes

pytestmark = pytest.mark.slow
PATIENCE_S = 300


class Watched:
    """A sweep in a thread of its own, and what can be seen of it from outside."""

    def __init__(self, sweep: SweepDriver) -> None:
        self.sweep = sweep
        self.thread = threading.Thread(target=sweep.run, daemon=True)
        self.thread.start()

    def until(self, is_true: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + PATIENCE_S
        while not is_true():
            assert self.thread.is_alive(), f"{what}: the sweep ended before"
            assert time.monotonic() < deadline, what
            time.sleep(0.1)

    def reported(self) -> set[str]:
        """Names of the trials that have got so far."""
        return {t.record.name for t in read_trials(self.sweep.storage) if t.said.reports}

    def reserved(self) -> int:
        """How many trials hold resources."""
        groups = ray.util.placement_group_table().values()
        return sum(group["state"] == "CREATED" for group in groups)


def test_it_follows_the_cluster_both_ways(nodes: Nodes, tmp_path: Path) -> None:
    nodes.add()  # a node has room for two trials
    go_on = tmp_path / "go-on"
    watched = Watched(driver(tmp_path, toy_config(SchedulerKind.none), hold=go_on))
    sweep = watched.sweep
    watched.until(lambda: watched.reported() == {"000", "001"}, "two trials train")
    assert (watched.reserved(), sweep.concurrent()) == (2, 2)

    (added,) = nodes.add()
    watched.until(lambda: len(watched.reported()) == len(LR), "the others use the new node")
    assert (watched.reserved(), sweep.concurrent()) == (4, 4)
    before = {t.record.name: t.said.reports for t in read_trials(sweep.storage)}

    nodes.remove(added)
    watched.until(
        lambda: (watched.reserved(), sweep.concurrent()) == (2, 2), "its trials have lost their room"
    )
    assert watched.thread.is_alive()
    go_on.touch()
    watched.thread.join(PATIENCE_S)
    assert not watched.thread.is_alive()
    trials = read_trials(sweep.storage)
    assert [t.record.status for t in trials] == [Status.finished] * len(LR)
    for trial in trials:
        said = before[trial.record.name]
        assert trial.said.reports[: len(said)] == said, "what was reported before counts"
    assert len({digests(sweep.storage, t.record.name) for t in trials}) == 1, "the same batches in all"
    assert watched.reserved() == 0


def digests(storage: Storage, name: str) -> tuple[str, ...]:
    lines = read_lines(storage.child(f"trials/{name}/toy"))
    assert [line["step"] for line in lines] == list(range(STEPS))
    return tuple(line["digest"] for line in lines)
