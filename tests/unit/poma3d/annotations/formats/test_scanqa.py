"""ScanQA: answers as listed, test files without any."""

from __future__ import annotations

from pathlib import Path

import pytest

from poma3d.annotations.read import read
from tests.helpers.annotations.layouts import scanqa_row, write_json


def test_answers_are_kept_as_listed(tmp_path: Path) -> None:
    rows = [scanqa_row(0, "2", "2"), scanqa_row(1, "brown", "dark brown")]
    found = read("scanqa", [write_json(tmp_path / "ScanQA_v1.0_val.json", rows)])
    assert [row.answers for row in found.questions] == [("2", "2"), ("brown", "dark brown")]
    assert [row.question_id for row in found.questions] == ["val-scene0000-0", "val-scene0001-0"]
    assert found.oddities["repeated answers"].count == 1
    assert found.counts == {"color": 2}
    assert not found.problems


def test_the_test_files_have_no_answers_and_ids_of_val(tmp_path: Path) -> None:
    rows = [
        {k: v for k, v in scanqa_row(n).items() if k in ("scene_id", "question_id", "question")}
        for n in (0, 1)
    ]
    found = read("scanqa", [write_json(tmp_path / "ScanQA_v1.0_test_w_obj.json", rows)])
    assert [row.answers for row in found.questions] == [(), ()]
    assert found.oddities["no answers"].count == 2
    assert found.oddities["ids of another split"].count == 2
    assert not found.problems


@pytest.mark.parametrize(
    ("changed", "says", "kept"),
    [
        ({"answers": []}, "a row without an answer", True),
        ({"answers": ["brown", " "]}, "an answer is empty", False),
        ({"answers": "brown"}, "no list of texts", False),
        ({"answers": [2]}, "no list of texts", False),
        ({"question": None}, "question is no text", False),
        ({"question_id": "val-scene0000-0"}, "stands in row 1 already", False),
    ],
)
def test_bad_rows_are_named(tmp_path: Path, changed: dict[str, object], says: str, kept: bool) -> None:
    path = write_json(tmp_path / "ScanQA_v1.0_val.json", [scanqa_row(0), scanqa_row(1, **changed)])
    found = read("scanqa", [path])
    [problem] = found.problems
    assert says in problem.reason
    assert problem.row.startswith("row 2")
    assert problem.kept is kept
    assert len(found.rows) == 1 + kept


def test_odd_texts(tmp_path: Path) -> None:
    questions = ["What’s it?", " What is  it?", "WHAT IS IT?"]
    rows = [scanqa_row(number, question=text) for number, text in enumerate(questions)]
    found = read("scanqa", [write_json(tmp_path / "a.json", rows)])
    assert [row.question for row in found.questions] == questions
    assert {"not ASCII", "untrimmed text", "double blanks", "all capitals"} <= set(found.oddities)
