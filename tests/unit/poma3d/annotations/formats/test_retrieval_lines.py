"""JSON lines for retrieval and view grounding, as they stand; what the public loader loses is counted."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from poma3d.annotations.read import read
from tests.helpers.annotations.layouts import write_lines


def row(text: str = "the bed", **changed: object) -> dict[str, object]:
    return {"scan_id": "scene0000_00", "utterance": text, "view_ground_truth": [3, 1], **changed}


def test_either_pair_of_keys(tmp_path: Path) -> None:
    rows = [row(), {"scene_id": "scene0001_00", "description": " two  blanks "}]
    found = read("retrieval", [write_lines(tmp_path / "a.jsonl", rows)])
    assert [(each.scene_id, each.text, each.views) for each in found.utterances] == [
        ("scene0000_00", "the bed", (3, 1)),
        ("scene0001_00", " two  blanks ", ()),
    ]
    assert found.oddities["rows without views"].count == 1


def test_rows_that_the_public_loader_loses_are_read(tmp_path: Path) -> None:
    texts = ["the “kitchen” table", "the bed’s foot", "a NaN sign", "one, ] two", 'a "straight" one']
    lines = [json.dumps(row(text), ensure_ascii=False) for text in texts]
    found = read("retrieval", [write_lines(tmp_path / "a.jsonl", lines)])
    assert [each.text for each in found.utterances] == texts
    assert found.oddities["lost by the public loader"].count == 1
    assert found.oddities["changed by the public loader"].count == 2


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ('{"scan_id": "a", ', "not JSON"),
        ("[1, 2]", "no JSON object"),
        ('{"scan_id": "a", "scan_id": "b", "utterance": "x"}', "'scan_id' twice"),
        ('{"scan_id": "a"}', "no utterance or description"),
        (row(view_ground_truth=[-1]), "negative index"),
        (row(view_ground_truth=[1.5]), "no list of integers"),
        (row(view_ground_truth=[True]), "no list of integers"),
    ],
)
def test_bad_lines_are_named(tmp_path: Path, line: object, says: str) -> None:
    found = read("retrieval", [write_lines(tmp_path / "a.jsonl", [row(), "", line])])
    [problem] = found.problems
    assert says in problem.reason
    assert problem.row == "line 3"
    assert len(found.rows) == 1


def test_lines_end_at_line_breaks_alone(tmp_path: Path) -> None:
    line = json.dumps(row("a\u2028b"), ensure_ascii=False)
    found = read("retrieval", [write_lines(tmp_path / "a.jsonl", [line])])
    assert found.utterances[0].text == "a\u2028b"
