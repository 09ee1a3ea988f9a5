"""View grounding: the first view or any of the list, rows without a list skipped and counted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from jobs.evaluate.benchmark.grounding import grounding
from jobs.evaluate.benchmark.result import BenchmarkResult
from jobs.evaluate.measure import MODEL
from plinth.errors import DataError
from poma3d.evaluate.bootstrap import Estimate
from poma3d.evaluate.config import BootstrapConfig
from poma3d.evaluate.zero_shot.config import GroundingConfig
from tests.helpers.view.benchmarks import encode, features, json_lines, scenes


def ask(
    path: Path, rows: list[tuple[str, str, Any]], at: list[list[int]] | None = None
) -> list[BenchmarkResult]:
    lines = [
        {"scan_id": scene, "utterance": text, **({} if views is None else {"view_ground_truth": views})}
        for scene, text, views in rows
    ]
    made = scenes("a", "b")
    config = GroundingConfig([json_lines(path / "g.jsonl", lines)], [1, 2], BootstrapConfig(draws=20))
    return grounding(config, "benchmark.grounding[0]", made, features(made, at or [[0, 1, 2, 3]] * 2), encode)


def value(result: BenchmarkResult, column: str) -> float:
    found = result.figures[MODEL][column]
    assert isinstance(found, Estimate)
    return found.value


def test_only_the_first_view_counts_or_any(tmp_path: Path) -> None:
    first, any_of = ask(tmp_path, [("a", "text 2", [1, 2]), ("b", "text 3", [3])])
    assert (value(first, "R@1"), value(any_of, "R@1")) == (0.5, 1.0)
    assert first.references["chance"]["R@1"] == pytest.approx(0.25)
    assert any_of.references["chance"]["R@1"] == pytest.approx((0.5 + 0.25) / 2)


def test_rows_that_cannot_be_ranked_are_skipped_and_counted(tmp_path: Path) -> None:
    rows = [
        ("a", "text 2", [2]),
        ("a", "text 2", []),
        ("a", "text 2", None),
        ("b", "text 1", [4, 9]),
        ("c", "text 1", [0]),
    ]
    first, _ = ask(tmp_path, rows)
    assert first.counts == {
        "rows ranked": 1,
        "skipped without a list": 2,
        "skipped with indices of no view": 1,
        "of scenes that are missing": 1,
    }
    assert value(first, "R@1") == 1.0, "skipped, not wrong"


def test_the_first_index_that_is_a_view_counts(tmp_path: Path) -> None:
    first, _ = ask(tmp_path, [("a", "text 2", [7, 2, 1])])
    assert value(first, "R@1") == 1.0


def test_views_that_tie_count_against_us(tmp_path: Path) -> None:
    first, any_of = ask(tmp_path, [("a", "text 5", [0, 1])], [[5, 5, 5, 0]] * 2)
    assert (value(first, "R@1"), value(first, "R@2")) == (0.0, 0.0), "third of three"
    assert (value(any_of, "R@1"), value(any_of, "R@2")) == (0.0, 1.0)


def test_a_file_with_no_row_to_rank_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="2 skipped without a list"):
        ask(tmp_path, [("a", "text 2", None), ("b", "text 2", [])])
