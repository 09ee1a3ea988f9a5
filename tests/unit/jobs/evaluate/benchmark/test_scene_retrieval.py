"""Scene retrieval from files: the bank, the chunks, what vanishes, ties, rooms, batch means."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from jobs.evaluate.benchmark.result import BenchmarkResult
from jobs.evaluate.benchmark.scenes import scene_retrieval
from jobs.evaluate.measure import MODEL, Features
from plinth.errors import DataError
from poma3d.evaluate.bootstrap import Estimate
from poma3d.evaluate.config import BootstrapConfig
from poma3d.evaluate.zero_shot.config import LastChunk, Protocol, SceneRetrievalConfig
from tests.helpers.view.benchmarks import encode, features, json_lines, scenes

DRAWS = BootstrapConfig(draws=20)


def said(*rows: tuple[str, str]) -> list[dict[str, Any]]:
    return [{"scan_id": scene, "utterance": text} for scene, text in rows]


def ask(
    path: Path, rows: list[dict[str, Any]], names: list[str], at: list[list[int]], **changes: Any
) -> list[BenchmarkResult]:
    files = [json_lines(path / "sr3d_retrieval.jsonl", rows)]
    values: dict[str, Any] = {"files": files, "utterances": [1], "best": [1, 2], "bootstrap": DRAWS}
    made = scenes(*names)
    return scene_retrieval(
        SceneRetrievalConfig(**values | changes), "benchmark.retrieval[0]", made, features(made, at), encode
    )


def value(result: BenchmarkResult, column: str, row: str = MODEL) -> float:
    found = result.figures[row][column]
    return found.value if isinstance(found, Estimate) else found


def test_the_bank_is_the_scenes_that_own_a_query(tmp_path: Path) -> None:
    """`c` says nothing: as a distractor it would win every query of axis 5. `d` is not in the data set."""
    rows = said(("a", "text 5"), ("b", "text 1"), ("d", "text 7"))
    at = [[5, 0, 0, 0], [1] * 4, [5] * 4]
    by_scan, _ = ask(tmp_path, rows, ["a", "b", "c"], at)
    assert by_scan.counts["scans in the bank"] == 2
    assert by_scan.counts["queries of scans that the data set lacks"] == 1
    assert by_scan.counts["queries"] == 2
    assert value(by_scan, "R@1") == 1.0
    (ours,) = ask(tmp_path, rows, ["a", "b", "c"], at, protocol=Protocol.ours)
    assert ours.counts["scans in the gallery"] == 3
    assert value(ours, "R@1") == 0.5, "our gallery has the silent scene too"


@pytest.mark.parametrize(("last", "queries", "short"), [(LastChunk.keep, 2, 1), (LastChunk.drop, 1, 0)])
def test_the_last_chunk_is_kept_or_dropped_as_it_is_said(
    tmp_path: Path, last: LastChunk, queries: int, short: int
) -> None:
    rows = said(*(("a", f"text {i}") for i in (1, 1, 1, 1, 1, 6)))
    result, _ = ask(tmp_path, rows, ["a", "b"], [[1] * 4, [6] * 4], utterances=[5], last_chunk=last)
    assert result.counts["queries"] == queries
    assert result.counts["of them of fewer utterances"] == short
    assert result.protocol["last chunk"] == last.value


def test_exact_and_batch_means_stand_side_by_side(tmp_path: Path) -> None:
    """Ten queries with hits 2 of 4, 2 of 4, 2 of 2: 60 %, printed by the public code as 66.7 %."""
    hits = [1, 1, 0, 0, 1, 0, 1, 0, 1, 1]
    rows = said(*(("a", "text 0" if hit else "text 1") for hit in hits), ("b", "text 2"))
    result, _ = ask(tmp_path, rows[:10] + said(("b", "text 1")), ["a", "b"], [[0] * 4, [1] * 4], batch_mean=4)
    assert value(result, "R@1") == pytest.approx(7 / 11)
    assert value(result, "R@1", f"{MODEL}, mean of batches of 4") == pytest.approx((0.5 + 0.5 + 1.0) / 3)
    without, _ = ask(tmp_path, rows, ["a", "b"], [[0] * 4, [1] * 4], batch_mean=0)
    assert list(without.figures) == [MODEL]


def test_a_constant_encoder_finds_nothing_here_and_chance_in_our_protocol(tmp_path: Path) -> None:
    names = ["a", "b", "c", "d"]
    rows = said(*((name, f"text {i}") for i, name in enumerate(names)))
    result, _ = ask(tmp_path, rows, names, [[7] * 4] * 4)
    assert value(result, "R@1") == 0.0
    assert value(result, "MRR") == pytest.approx(0.25)
    assert result.references["chance"]["R@1"] == 0.25
    (ours,) = ask(tmp_path, rows, names, [[7] * 4] * 4, protocol=Protocol.ours)
    assert value(ours, "R@1") == pytest.approx(0.25)


def test_rescans_are_one_room_and_repeated_texts_have_a_ceiling(tmp_path: Path) -> None:
    rows = said(
        ("scene0001_00", "text 1"),
        ("scene0001_01", "text 1"),
        ("scene0002_00", "text 1"),
        ("scene0002_00", "text 3"),
    )
    names = ["scene0001_00", "scene0001_01", "scene0002_00"]
    by_scan, by_room = ask(tmp_path, rows, names, [[1] * 4, [1] * 4, [3] * 4])
    assert by_scan.references["ceiling of repeated texts"]["R@1"] == pytest.approx(2 / 4)
    assert by_room.references["ceiling of repeated texts"]["R@1"] == pytest.approx(3 / 4)
    assert value(by_scan, "R@1") == pytest.approx(1 / 4), "two scans tie for one text, the third cannot win"
    assert value(by_room, "R@1") == pytest.approx(3 / 4)
    assert by_room.references["chance"]["R@1"] == 0.5
    assert by_room.counts["rooms in the bank"] == 2


def test_a_scene_is_its_first_views(tmp_path: Path) -> None:
    rows = said(("a", "text 1"), ("b", "text 2"))
    at = [[1, 2, 2, 2], [2, 1, 1, 1]]
    first, _ = ask(tmp_path, rows, ["a", "b"], at, views=1)
    everything, _ = ask(tmp_path, rows, ["a", "b"], at, views=0)
    assert (value(first, "R@1"), value(everything, "R@1")) == (1.0, 0.0)


def test_scene_features_are_normalised_means_of_normalised_views(tmp_path: Path) -> None:
    made = scenes("a", "b")
    raw = np.zeros((2, 4, 8), np.float32)
    raw[0, 0, 1], raw[0, 1:, 2] = 100.0, 1.0  # unnormalised, the first view would win
    raw[1, :, 1] = 0.5
    files = [json_lines(tmp_path / "x.jsonl", said(("a", "text 2"), ("b", "text 1")))]
    config = SceneRetrievalConfig(files=files, utterances=[1], best=[1], bootstrap=DRAWS)
    result, _ = scene_retrieval(config, "k", made, Features({MODEL: raw}, np.ones((2, 4))), encode)
    assert value(result, "R@1") == 1.0


def test_parts_of_a_scan_are_one_scene(tmp_path: Path) -> None:
    result, _ = ask(
        tmp_path,
        said(("a", "text 1"), ("b", "text 2")),
        ["a/000", "a/001", "b/000"],
        [[0] * 4, [1] * 4, [2] * 4],
    )
    assert result.counts["scans in the bank"] == 2
    assert value(result, "R@1") == 1.0


def test_files_of_another_data_set_are_one_line(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="none of the 1 scenes"):
        ask(tmp_path, said(("elsewhere", "text 1")), ["a"], [[0] * 4])


def test_the_table_says_its_protocol(tmp_path: Path) -> None:
    result, _ = ask(tmp_path, said(("a", "text 1"), ("b", "text 2")), ["a", "b"], [[1] * 4, [2] * 4])
    table = result.table()
    assert [row.name for row in table.rows] == [
        "chance",
        "ceiling of repeated texts",
        MODEL,
        f"{MODEL}, mean of batches of 16",
    ]
    assert "uniscene3d" in table.note
    assert "against us" in table.note
    assert "sr3d_retrieval.jsonl" in table.title
    assert result.to_dict()["protocol"]["views"] == "first 32"
