"""What a page needs of a long run is bounded: points in memory, and requests to the storage."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from jobs.runs import curves
from jobs.runs.curves import CURVE_POINTS, RECENT_STEPS, joined, part_of, read_steps, stage_curves
from jobs.runs.page import write_page
from plinth.observe import incidents
from plinth.observe.failures import VANISHED, Failure
from plinth.observe.incidents import Incident
from plinth.observe.ledger import FAILED, Mark, Record
from plinth.observe.once import Once
from plinth.observe.step_lines import LINES_KEY, PARTS_FOLDER, read_lines
from plinth.storage import Storage
from tests.helpers.run_folder import NOW, failures, killed_run, records

LOSS = ("loss", "total")


def lines(steps: range, loss: float | None = None) -> list[dict[str, Any]]:
    """Metrics of which the loss is the step, if it is not given."""
    return [
        {
            "step": step, "loss": float(step) if loss is None else loss, "terms": {"view": 1.0, "scene": 2.0},
            "logs": {"rank": 3.0}, "grad_norm": 1.0, "samples": 8, "step_s": 2.0, "checkpoint_s": 0.0,
            "data_wait_s": 0.5, "world_size": 2,
        }
        for step in steps
    ]  # fmt: skip


def write(storage: Storage, key: str, found: list[dict[str, Any]]) -> None:
    storage.write(key, "".join(json.dumps(line) + "\n" for line in found).encode())


def long_stage(folder: Path, parts: int, each: int = 100) -> Storage:
    """Full parts and one that is not."""
    storage = Storage.from_uri(folder / "main")
    for part in range(parts):
        write(storage, f"{PARTS_FOLDER}/{part:06}.jsonl", lines(range(part * each, (part + 1) * each)))
    write(storage, LINES_KEY, lines(range(parts * each, parts * each + 7)))
    return storage


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often each key is read."""
    counts: Counter[str] = Counter()
    read = Storage.read

    def counting(self: Storage, key: str) -> bytes:
        counts[f"{self.uri}/{key}"] += 1
        return read(self, key)

    monkeypatch.setattr(Storage, "read", counting)
    return counts


def test_each_part_of_a_long_run_leaves_a_few_points(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(curves, "PART_POINTS", 16)
    steps = read_steps(long_stage(tmp_path, parts=60))
    assert {points.shape for points in steps.points.values()} == {(3, 60 * 16 + 7)}
    assert steps.count == 6007
    assert [line["step"] for line in steps.recent] == list(range(6007 - RECENT_STEPS, 6007))
    of, values, counts = steps.points[LOSS]
    assert counts.sum() == 6007, "each step is in one of them"
    assert np.average(values, weights=counts) == pytest.approx(np.mean(np.arange(6007)))
    for curve in stage_curves("main", steps):
        for x, y in curve.series.values():
            assert len(x) == len(y) == CURVE_POINTS
            assert x == sorted(x)
    assert np.all(np.diff(of) > 0)


def test_a_run_of_one_part_is_drawn_from_every_step(tmp_path: Path) -> None:
    storage = Storage.from_uri(tmp_path / "main")
    write(storage, LINES_KEY, lines(range(5000)))
    steps = read_steps(storage)
    assert steps.points[LOSS][1].tolist() == [line["loss"] for line in read_lines(storage)]
    (curve,) = [one for one in stage_curves("main", steps) if one.title == "main: loss"]
    assert list(curve.series) == ["total", "view", "scene"]
    assert curve.series["total"][1][0] == np.mean(range(13)), "5,000 of 400 points: the first are of 13 steps"


def test_of_a_step_in_two_parts_the_later_one_counts(tmp_path: Path) -> None:
    """A kill between the two writes of a checkpoint leaves a full part whose end is in the last one, too."""
    storage = Storage.from_uri(tmp_path / "main")
    write(storage, f"{PARTS_FOLDER}/000000.jsonl", lines(range(100), loss=1.0))
    write(storage, LINES_KEY, lines(range(90, 95), loss=2.0))
    steps = read_steps(storage)
    assert steps.points[LOSS][1].tolist() == [1.0] * 90 + [2.0] * 5
    assert steps.count == 95


def test_a_stage_without_lines_has_no_curves(tmp_path: Path) -> None:
    steps = read_steps(Storage.from_uri(tmp_path / "none"))
    assert (steps.count, stage_curves("main", steps)) == (0, [])
    assert joined([part_of([])]).recent == []


def test_a_quantity_that_comes_late_or_has_no_number_is_no_harm() -> None:
    first, second = lines(range(3)), lines(range(3, 6))
    for line in second:
        line["logs"] = {"late": None if line["step"] == 3 else 1.0}
    steps = joined([part_of(first), part_of(second)])
    assert steps.points["logs", "rank"][0].tolist() == [0, 1, 2]
    assert steps.points["logs", "late"][0].tolist() == [4, 5]


def run(folder: Path, attempts: int, ranks: int = 3) -> Storage:
    """A run that went on after as many deaths of all ranks, with an incident each."""
    storage = killed_run(folder)
    found = []
    for number in range(attempts):
        attempt, began = f"b{number:02}", NOW - 2000 + number
        marks = [Mark(70 + number), Mark(71 + number, 1, 0, 0)]
        found.append(Record(attempt, "main", 2, 2, began, began + 1, 10, None, FAILED, 0.1, marks=marks))
        failures(storage, [Failure(attempt, r, "h", 1, began, VANISHED, step=70) for r in range(ranks - 1)])
        batch = json.dumps({"step": 70, "stage": "main", "time": began}).encode()
        storage.write(f"logs/{attempt}-rank{ranks - 1}.batches", batch)
        incidents.write(storage.child("main"), Incident("spike", 80 + number, 0, 0, True, [], []))
    records(storage, found)
    return storage


def test_the_page_of_a_running_run_reads_what_is_written_once_only_once(
    tmp_path: Path, asked: Counter[str]
) -> None:
    again = []
    for attempts in (2, 12):
        storage, once = run(tmp_path / str(attempts), attempts), Once()
        asked.clear()
        write_page(storage, NOW, once=once)
        first = Counter({key.removeprefix(f"{storage.uri}/"): times for key, times in asked.items()})
        kinds = ("logs/", "main/incidents/", "ledger/")
        of_logs = [key for key in first if key.startswith(kinds[:2])]
        assert len(of_logs) == 3 + 4 * attempts, "two failures, one incident; each attempt: three and one"
        assert {times for key, times in first.items() if key.startswith(kinds)} == {1}
        asked.clear()
        write_page(storage, NOW, once=once)
        assert not [key for key in asked if "/logs/" in key or "/incidents/" in key]
        again.append(asked.total())
    assert again[0] == again[1], "what is asked again does not grow with the attempts"


def test_full_parts_of_the_metrics_are_read_once(tmp_path: Path, asked: Counter[str]) -> None:
    storage, once = long_stage(tmp_path, parts=3), Once()
    expected = read_steps(storage)
    asked.clear()
    for _ in range(3):
        found = read_steps(storage, once)
    assert all(np.array_equal(found.points[name], points) for name, points in expected.points.items())
    assert sorted(asked.values()) == [1, 1, 1, 3]
    storage.delete(f"{PARTS_FOLDER}/000002.jsonl")
    assert read_steps(storage, once).points[LOSS].shape[1] == 207, "what is gone is forgotten"
