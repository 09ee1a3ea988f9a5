"""Consumers of the streaming benchmark: processes told to go, an epoch cut and resumed, what is counted."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from benchmarks.streaming.cut import Cut, cut_and_resume
from benchmarks.streaming.measure import CpuClock, ReadPath, Row
from benchmarks.streaming.report import numbers, table
from benchmarks.streaming.workers import Group, WorkerError

CONSUMER = '''
from benchmarks.streaming.workers import serve

class Counting:
    """Samples 0 to 23 in batches of 4 / consumers; with `keeps`, its state is how many it has seen in all."""

    def __init__(self, config):
        self.config, self.start = config, 0

    def batches(self):
        print("a library that prints")
        n, rank = self.config["consumers"], self.config["rank"]
        for first in range(self.start + rank, 24, 4):
            self.start = first - rank + 4
            yield [str(i) for i in range(first, first - rank + 4, n)]

    def ids(self, batch):
        return batch

    def state(self):
        return self.start if self.config["keeps"] else None

    def load(self, state):
        if self.config["fails"]:
            raise ValueError("another number of consumers")
        self.start = state

serve(lambda config: lambda: Counting(config))
'''
IDS = [str(i) for i in range(24)]


def path(keeps: bool = True, fails: bool = False) -> ReadPath:
    def drop() -> None:
        pass

    start: Callable[[int], Group] = partial(
        Group, [sys.executable, "-c", CONSUMER], {"keeps": keeps, "fails": fails}
    )
    return ReadPath(start, 1.0, list, drop)


def test_consumers_share_an_epoch() -> None:
    with path().start(2) as group:
        group.wait_until_ready()
        answers = group.ask(do="part", batches=None, state=None)
    assert sorted(int(x) for answer in answers for x in answer["ids"]) == list(range(24))


def test_an_epoch_is_timed() -> None:
    with path().start(1) as group:
        group.wait_until_ready()
        [answer] = group.ask(do="epoch")
    assert answer["batches"] == 6
    assert answer["first_s"] > 0


@pytest.mark.parametrize(("before", "after"), [(1, 2), (2, 1)])
def test_a_state_gives_each_sample_once(before: int, after: int) -> None:
    assert cut_and_resume(path(), IDS, 4, before, after) == Cut(before, after, 24, 0, 0, has_state=True)


def test_without_a_state_the_first_third_is_seen_twice() -> None:
    assert cut_and_resume(path(keeps=False), IDS, 4, 1, 2) == Cut(1, 2, 16, 8, 0, has_state=False)


def test_a_refused_state_is_said() -> None:
    cut = cut_and_resume(path(fails=True), IDS, 4, 1, 2)
    assert cut.failed == "ValueError: another number of consumers"


def test_a_consumer_that_ends_is_an_error_with_its_log() -> None:
    with (
        Group([sys.executable, "-c", "raise SystemExit('no such library')"], {}, 1) as group,
        pytest.raises(WorkerError, match="no such library"),
    ):
        group.wait_until_ready()


def test_cpu_of_children_that_have_ended_counts(tmp_path: Path) -> None:
    clock = CpuClock()
    before = clock.read()
    code = "import time\nwhile time.process_time() < 0.12: pass"
    with Group([sys.executable, "-c", code], {}, 1):
        pass
    assert clock.read() - before > 0.1  # the kernel counts in ticks


def test_numbers_are_medians_and_ratios() -> None:
    rows = {
        "bare pyarrow": Row(100, [1.0, 2.0, 9.0], [0.1, 0.2, 0.9], [0.5, 0.5, 0.5]),
        "ray": Row(100, [4.0, 4.0, 4.0], [0.3, 0.3, 0.3], [1.0, 2.0, 3.0]),
    }
    found = numbers(
        rows, "bare pyarrow", {"bare pyarrow": 2048.0, "ray": 1024.0}, {"bare pyarrow": 0.0, "ray": 512.0}
    )
    assert found["ray"] == {
        "views_per_s": 25.0, "ratio": 0.5, "cpu_s_per_1000": 3.0, "first_s": 2.0,
        "slowest": 25.0, "fastest": 25.0, "bytes_per_view": 1024.0,
        "cached_bytes_per_view": 512.0,
    }  # fmt: skip
    assert "| ray | 25 | 0.50 | 25 to 25 | 3.000 | 2.00 | 1.0 | 0.5 |" in table(found)
