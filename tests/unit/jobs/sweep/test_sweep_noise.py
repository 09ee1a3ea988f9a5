"""Whether two trials can be told apart: intervals of their last numbers."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest

from jobs.sweep.noise import BETTER, LEADER, NOISE, OTHER_LENGTH, UNKNOWN, WORSE, Judged, judge
from jobs.sweep.page import write_page
from jobs.sweep.state import read_state
from plinth.storage import Storage
from plinth.sweep.records import Report, TrialRecord
from tests.helpers.run_folder import NOW
from tests.helpers.sweep_folder import LR, sweep, trial


def reports(
    *values: float, samples: int = 320, intervals: dict[str, list[float]] | None = None
) -> list[Report]:
    """The last at `samples`."""
    first = samples - 32 * (len(values) - 1)
    found = [
        Report("main", (first + 32 * i) // 32, first + 32 * i, 1.0, {"view": v}) for i, v in enumerate(values)
    ]
    return [*found[:-1], replace(found[-1], intervals=intervals or {})]


def judged(storage: Storage) -> list[Judged]:
    state = read_state(storage)
    return judge(state, storage, state.ranked)


def test_a_difference_within_an_interval_is_noise(tmp_path: Path) -> None:
    storage = sweep(tmp_path, 5)
    near, far = {"view": [0.9, 1.3]}, {"view": [1.5, 1.7]}
    trial(storage, TrialRecord(0, {LR: 1e-3}), reports(0.5, 1.2, intervals={"view": [1.1, 1.25]}))
    trial(storage, TrialRecord(1, {LR: 1e-3}), reports(1.21, intervals=near))
    trial(storage, TrialRecord(2, {LR: 1e-3}), reports(1.6, intervals=far))
    trial(storage, TrialRecord(3, {LR: 1e-3}), reports(1.05, intervals={"view": [1.04, 1.06]}))
    trial(storage, TrialRecord(4, {LR: 1e-3}), reports(1.2, samples=64, intervals=near))
    found = judged(storage)
    assert [each.verdict for each in found] == [LEADER, BETTER, OTHER_LENGTH, NOISE, WORSE]
    assert found[0] == Judged("1.2000 [1.1000, 1.2500]", "0.5000 at 288 samples", LEADER), (
        "its best was not its last"
    )
    write_page(storage, NOW)
    text = storage.read("index.html").decode()
    assert "trial 001 cannot be told from trial 000" in " ".join(text.split())


def test_the_interval_of_a_loss_is_that_of_the_steps_it_is_a_mean_of(tmp_path: Path) -> None:
    storage = sweep(tmp_path, 3)
    folder = trial(
        storage, TrialRecord(0, {LR: 1e-3}), [Report("main", n, 32 * n, 1.0, {"view": 2.0}) for n in (2, 6)]
    )
    values = [9.0, 9.0, 1.0, 3.0, 1.0, 3.0, 9.0]
    lines = [{"step": i, "loss": 0.0, "terms": {"view": value}} for i, value in enumerate(values)]
    folder.write("main/metrics.jsonl", "".join(json.dumps(line) + "\n" for line in lines).encode())
    trial(storage, TrialRecord(1, {LR: 1e-3}), reports(3.5, samples=192))
    shorter = trial(
        storage,
        TrialRecord(2, {LR: 1e-3}),
        [Report("main", n, 32 * n, 1.0, {"view": v}) for n, v in ((2, 4.0), (5, 4.5))],
    )
    shorter.write("main/metrics.jsonl", folder.read("main/metrics.jsonl"))
    first, second, third = judged(storage)
    value, _, interval = first.last.partition(" ")
    assert value == "2.0000"
    half = 1.959964 * math.sqrt(4 / 3) / 2  # the standard error of 1, 3, 1, 3
    assert json.loads(interval) == pytest.approx([2 - half, 2 + half], abs=1e-4)
    assert second == Judged("3.5000", "3.5000", WORSE), "without lines there is no interval"
    assert third == Judged("4.5000", "4.0000 at 64 samples", OTHER_LENGTH), "its lines would say nothing"


def test_without_an_interval_nothing_is_said(tmp_path: Path) -> None:
    storage = sweep(tmp_path, 2)
    for i in range(2):
        trial(storage, TrialRecord(i, {LR: 1e-3}), reports(1.0 + i))
    assert [each.verdict for each in judged(storage)] == [LEADER, UNKNOWN]
