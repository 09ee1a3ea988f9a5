"""Lines of metrics in parts: a checkpoint copies the last part alone, and a resume finds all lines once."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from plinth.observe.step_lines import LINES_KEY, PARTS_FOLDER, StepLines, read_lines, recover_lines
from plinth.storage import Storage
from plinth.world import World

PART_BYTES = 400
EVERY = 5


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    return Storage.from_uri(tmp_path / "run")


def line(step: int, loss: float = 1.0) -> str:
    return json.dumps({"step": step, "loss": loss, "of": "x" * 20}) + "\n"


def trained(storage: Storage, local: Path, steps: Sequence[int], loss: float = 1.0) -> StepLines:
    """Lines of these steps, copied at every `EVERY`th."""
    lines = StepLines(storage, local, steps[0], PART_BYTES)
    for step in steps:
        lines.add(line(step, loss))
        if (step + 1) % EVERY == 0:
            lines.flush()
            lines.sync()
    return lines


def parts(storage: Storage) -> dict[str, bytes]:
    return {key: storage.read(key) for key, _ in storage.list(PARTS_FOLDER)}


def test_full_parts_are_written_once_and_the_last_one_stays_small(storage: Storage, tmp_path: Path) -> None:
    lines = trained(storage, tmp_path / "local", range(40))
    before = parts(storage)
    assert len(before) == 4, "each at the checkpoint that found it full"
    assert storage.size(LINES_KEY) <= PART_BYTES * 2
    for key in before:
        storage.write(key, before[key].replace(b"1.0", b"2.0"))
    for step in range(40, 45):
        lines.add(line(step))
    lines.flush()
    lines.sync()
    assert [one["step"] for one in read_lines(storage)] == list(range(45))
    assert all(b"2.0" in parts(storage)[key] for key in before), "what is full is not written again"


@pytest.mark.parametrize("first", [0, 5, 17, 20, 39])
def test_a_resume_keeps_the_lines_before_its_step_and_drops_the_rest(
    storage: Storage, tmp_path: Path, first: int
) -> None:
    trained(storage, tmp_path / "died", range(40))
    trained(storage, tmp_path / "local", range(first, 45), loss=3.0)
    found = read_lines(storage)
    assert [one["step"] for one in found] == list(range(45))
    assert [one["loss"] for one in found] == [1.0] * first + [3.0] * (45 - first)


def test_a_kill_between_the_copies_of_a_full_part_and_of_the_last_one_loses_and_doubles_nothing(
    storage: Storage, tmp_path: Path
) -> None:
    trained(storage, tmp_path / "local", range(15))
    whole, last = read_lines(storage), storage.read(LINES_KEY)
    storage.write(f"{PARTS_FOLDER}/{len(parts(storage)):06}.jsonl", last)  # and metrics.jsonl is as it was
    assert read_lines(storage) == whole


def test_lines_that_a_dead_process_left_on_the_disk_are_found(storage: Storage, tmp_path: Path) -> None:
    lines = trained(storage, tmp_path / "local", range(22))
    lines.flush()
    assert [one["step"] for one in read_lines(storage)] == list(range(20))
    recover_lines(World(0, 1), storage, tmp_path / "local")
    assert [one["step"] for one in read_lines(storage)] == list(range(22))
