"""ScanRefer: ids are text, rows are not grouped."""

from __future__ import annotations

from pathlib import Path

import pytest

from poma3d.annotations.read import read
from tests.helpers.annotations.layouts import scanrefer_row, write_json

A, B = "scene0000_00", "scene0001_00"


def test_file_order_is_kept_and_scenes_apart_are_odd(tmp_path: Path) -> None:
    rows = [
        scanrefer_row(A, "3", "0"),
        scanrefer_row(B, "1", "0", description="the  bed."),
        scanrefer_row(A, "2", "0"),
    ]
    found = read("scanrefer", [write_json(tmp_path / "ScanRefer_filtered_val.json", rows)])
    assert [(row.scene_id, row.object_id) for row in found.utterances] == [(A, "3"), (B, "1"), (A, "2")]
    assert found.utterances[1].text == "the  bed."
    assert found.utterances[0].object_name == "trash can"
    assert {name: each.count for name, each in found.oddities.items()} == {
        "double blanks": 1, "scenes apart": 1, "repeated texts": 1, "unlike the published split": 1,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"description": ""}, "description is empty"),
        ({"object_id": None}, "object_id must be a text or an integer"),
        ({"object_id": "3"}, "stands in row 1 already"),
    ],
)
def test_bad_rows_are_named(tmp_path: Path, changed: dict[str, object], says: str) -> None:
    rows = [scanrefer_row(A, "3", "0"), scanrefer_row(A, "4", "0", **changed)]
    found = read("scanrefer", [write_json(tmp_path / "a.json", rows)])
    [problem] = found.problems
    assert says in problem.reason
    assert problem.row.startswith("row 2")


def test_ids_that_are_numbers_and_lists_as_text_are_odd(tmp_path: Path) -> None:
    rows = [scanrefer_row(A, "3", "0", object_id=3, token="['this']")]
    found = read("scanrefer", [write_json(tmp_path / "a.json", rows)])
    assert found.utterances[0].object_id == "3"
    assert {"ids that are numbers", "lists as text"} <= set(found.oddities)
