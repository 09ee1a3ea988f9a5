"""Room types from a file of labels."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from jobs.evaluate.benchmark.result import BenchmarkResult
from jobs.evaluate.benchmark.room_types import ZERO_SHOT, room_types
from jobs.evaluate.measure import MODEL
from plinth.errors import DataError
from poma3d.evaluate.bootstrap import Estimate
from poma3d.evaluate.config import BootstrapConfig
from poma3d.evaluate.zero_shot.config import RoomTypeConfig
from tests.helpers.view.benchmarks import encode, features, scenes

NAMES = [f"scene{i:04d}_00" for i in range(9)]
KINDS = ["kitchen_0", "kitchen_0", "kitchen_0", "bed 1", "bed 1", "bed 1", "bed 1", "office 2", "attic 3"]


def ask(path: Path, labels: Any, axes: list[int], **changes: Any) -> BenchmarkResult:
    (path / "types.json").write_text(json.dumps(labels))
    values: dict[str, Any] = {
        "labels": str(path / "types.json"),
        "shots": [1, 2, 50],
        "draws": 3,
        "bootstrap": BootstrapConfig(draws=20),
    }
    made = scenes(*NAMES)
    found = features(made, [[axis] * 4 for axis in axes])
    (result,) = room_types(RoomTypeConfig(**values | changes), made, found, encode)
    return result


def value(result: BenchmarkResult, column: str) -> float:
    found = result.figures[MODEL][column]
    assert isinstance(found, Estimate)
    return found.value


def test_zero_and_few_shot(tmp_path: Path) -> None:
    labels = dict(zip(NAMES, KINDS, strict=True)) | {"elsewhere": "kitchen 0"}
    result = ask(tmp_path, labels, [0, 0, 1, 1, 1, 1, 1, 2, 3])
    assert value(result, ZERO_SHOT) == pytest.approx(8 / 9)
    assert result.references["chance"][ZERO_SHOT] == 0.25
    assert result.references["the most common type"][ZERO_SHOT] == pytest.approx(4 / 9)
    assert result.counts["labelled scenes that are missing"] == 1
    assert result.counts["types scored 1-shot"] == 2, "office and attic have one room each"
    assert "50-shot" not in result.figures[MODEL], "nothing to learn from"
    assert set(result.figures[MODEL]) == {ZERO_SHOT, "1-shot", "2-shot"}


def test_a_constant_encoder_knows_no_type(tmp_path: Path) -> None:
    result = ask(tmp_path, dict(zip(NAMES, KINDS, strict=True)), [7] * 9)
    assert value(result, ZERO_SHOT) == 0.0
    assert value(result, "1-shot") == 0.0


@pytest.mark.parametrize(
    ("labels", "word"),
    [([1], "no object"), ({"scene0000_00": ""}, "scene0000_00"), ({"x": "a", "y": "b"}, r"0 types")],
)
def test_labels_that_cannot_be_used_are_one_line(tmp_path: Path, labels: Any, word: str) -> None:
    with pytest.raises(DataError, match=word):
        ask(tmp_path, labels, [0] * 9)
