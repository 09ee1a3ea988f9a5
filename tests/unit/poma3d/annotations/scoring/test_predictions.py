"""Files of predictions: a bad line refuses the file, by its number."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from poma3d.annotations.scoring.predictions import read_answers, read_locations, refuse_strangers
from tests.helpers.annotations.layouts import write_lines


def test_single_answers_and_lists(tmp_path: Path) -> None:
    rows = [
        {"question_id": 220602000322, "answer": "two"},
        {"question_id": "00007", "answers": ["a", "b"]},
        {"question_id": "x", "answer": ""},
    ]
    found = read_answers(write_lines(tmp_path / "p.jsonl", rows))
    assert list(found) == ["220602000322", "00007", "x"]
    assert found["220602000322"].answers == ("two",)
    assert found["00007"].answers == ("a", "b")
    assert [each.listed for each in found.values()] == [False, True, False]


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("{", "not JSON"),
        ('"two"', "no JSON object"),
        ({"answer": "two"}, "no question_id or situation_id"),
        ({"question_id": 2.206e11, "answer": "two"}, "must be a text or an integer"),
        ({"question_id": 1}, "no answer or answers"),
        ({"question_id": 1, "answer": 2}, "answer is no text"),
        ({"question_id": 1, "answer": None}, "answer is no text"),
        ({"question_id": 1, "answers": []}, "answers is empty"),
        ({"question_id": 1, "answers": "two"}, "no list of texts"),
        ({"question_id": 1, "answer": "a", "answers": ["a"]}, "both answer and answers"),
        ({"question_id": 0, "answer": "b"}, "the id 0 stands in line 1 already"),
    ],
)
def test_a_bad_line_refuses_the_file(tmp_path: Path, line: Any, says: str) -> None:
    path = write_lines(tmp_path / "p.jsonl", [{"question_id": 0, "answer": "a"}, line])
    with pytest.raises(ValueError, match=r"p\.jsonl, line 2: ") as caught:
        read_answers(path)
    assert says in str(caught.value)


def test_no_predictions(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no predictions; expected lines such as"):
        read_answers(write_lines(tmp_path / "p.jsonl", []))
    with pytest.raises(ValueError, match="cannot be read"):
        read_answers(tmp_path / "nothing.jsonl")


def test_locations(tmp_path: Path) -> None:
    rows = [
        {"situation_id": 1, "position": [1, 2, 3], "rotation": {"_w": 1, "_x": 0, "_y": 0, "_z": 0}},
        {"question_id": 2, "positions": [[1, 2, 3]] * 3, "rotations": [[0, 0, 0, 1]]},
    ]
    found = read_locations(write_lines(tmp_path / "p.jsonl", rows))
    assert found["1"].rotations == ((0.0, 0.0, 0.0, 1.0),)
    assert len(found["2"].positions) == 3


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"rotation": [0, 0, 0, 2]}, "norm is 2"),
        ({"positions": [[1, 2, 3]] * 4}, "4 positions; the metric takes 3 at most"),
        ({"position": [1, 2]}, "three numbers"),
        ({"position": [1, 2, float("nan")]}, "not finite"),
        ({"positions": {}}, "no list"),
    ],
)
def test_bad_locations(tmp_path: Path, changed: dict[str, Any], says: str) -> None:
    row = {"situation_id": 1, "position": [1, 2, 3], "rotation": [0, 0, 0, 1], **changed}
    with pytest.raises(ValueError, match="line 1") as caught:
        read_locations(write_lines(tmp_path / "p.jsonl", [row]))
    assert says in str(caught.value)


def test_ids_of_other_questions_are_refused() -> None:
    path = Path("p.jsonl")
    refuse_strangers(path, ["1"], ["1", "2"])
    with pytest.raises(ValueError, match="another data set or split: none of the 2 ids, such as 8"):
        refuse_strangers(path, ["8", "9"], ["1", "2"])
    with pytest.raises(ValueError, match=r"1 of 2 ids are not in the annotations, the first is 9$"):
        refuse_strangers(path, ["1", "9"], ["1", "2"])
    with pytest.raises(ValueError, match="Leading zeros are lost"):
        refuse_strangers(path, ["7"], ["00007"])
