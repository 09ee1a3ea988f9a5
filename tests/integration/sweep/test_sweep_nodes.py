"""A sweep on a cluster that grows and then loses a node: new room is used, trials that lose theirs go on
elsewhere."""

from __future__ import annotations

from pathlib import Path

import pytest

from plinth.observe.step_lines import read_lines
from plinth.storage import Storage
from plinth.sweep.config import SchedulerKind
from plinth.sweep.records import Status
from tests.helpers.toy.sweep import EVERY, LR, STEPS, Watched, driver, reserved, toy_config
from tests.integration.conftest import Nodes

pytestmark = pytest.mark.slow


def test_sweep_follows_the_cluster_as_it_grows_and_shrinks(nodes: Nodes, tmp_path: Path) -> None:
    nodes.add()  # a node has room for two trials
    go_on = tmp_path / "go-on"
    watched = Watched(driver(tmp_path, toy_config(SchedulerKind.none), hold=go_on))
    sweep = watched.sweep
    watched.until(lambda: watched.reported() == {"000", "001"}, "two trials train")
    assert (len(reserved()), sweep.concurrent()) == (2, 2)

    (added,) = nodes.add()
    watched.until(lambda: len(watched.reported()) == len(LR), "the others use the new node")
    assert (len(reserved()), sweep.concurrent()) == (4, 4)
    before = {t.record.name: t.history.reports for t in watched.trials()}

    nodes.remove(added)
    watched.until(lambda: (len(reserved()), sweep.concurrent()) == (2, 2), "its trials have lost their room")
    go_on.touch()
    watched.end()
    trials = watched.trials()
    assert [t.record.status for t in trials] == [Status.finished] * len(LR)
    for trial in trials:
        said = before[trial.record.name]
        assert trial.history.reports[: len(said)] == said, "what was reported before counts"
        assert [r.step for r in trial.history.reports] == list(range(EVERY, STEPS + 1, EVERY))
    assert len({digests(sweep.storage, t.record.name) for t in trials}) == 1, "the same batches in all"
    assert not reserved()


def digests(storage: Storage, name: str) -> tuple[str, ...]:
    lines = read_lines(storage.child(f"trials/{name}/toy"))
    assert [line["step"] for line in lines] == list(range(STEPS))
    return tuple(line["digest"] for line in lines)
