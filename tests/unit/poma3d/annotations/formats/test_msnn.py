"""MSNN in both layouts: the wrap-around, the typo, and where the agent faces."""

from __future__ import annotations

from pathlib import Path

import pytest

from poma3d.annotations.directions import EIGHT, FOUR, direction_class, direction_of
from poma3d.annotations.read import read
from tests.helpers.annotations.layouts import msnn_converted, msnn_sample, write_json


def test_as_released(tmp_path: Path) -> None:
    content = {
        "scene0000_00": {
            "0": msnn_sample([4, "move forward"], [8, "move forward"]),
            "1": msnn_sample([1, "turn left"], [1, "turn to foward left"]),
        },
        "scene0001_00": {"0": msnn_sample([3, "turn right"], [6, "turn right"], scan_id="scene0001_00")},
    }
    path = write_json(tmp_path / "msnn_scannet.json", content)
    four, eight = read("msnn", [path]), read("msnn", [path], directions=8)
    assert [row.choice for row in four.questions] == [0, 1, 3]
    assert [row.choice for row in eight.questions] == [0, 1, 6]
    assert [row.question_id for row in four.questions] == [
        "scene0000_00/0",
        "scene0000_00/1",
        "scene0001_00/0",
    ]
    assert four.oddities["wrap-around"].count == eight.oddities["wrap-around"].count == 1
    assert four.oddities["numbers as text"].count == 3
    assert eight.oddities["misspelt directions"].count == 1
    assert "misspelt directions" not in four.oddities
    row = four.questions[0]
    assert row.parts == ("There is a desk ahead.", "I want to reach the bed.")
    assert row.question == "What action should I take next step?"
    assert row.frame == "msnn"
    assert not four.problems
    assert not eight.problems


def test_as_converted(tmp_path: Path) -> None:
    found = read("msnn", msnn_converted(tmp_path, "turn right", "move forward"))
    assert [row.choice for row in found.questions] == [3, 0]
    assert [row.question_id for row in found.questions] == ["0", "1"]
    assert [row.position for row in found.questions] == [None, None]


def test_eight_directions_are_none_of_four(tmp_path: Path) -> None:
    files = msnn_converted(tmp_path, "turn right", "turn to back left")
    found = read("msnn", files)
    assert [problem.reason for problem in found.problems] == ["'turn to back left' is none of 4 directions"]
    assert len(read("msnn", files, directions=8).rows) == 2


@pytest.mark.parametrize(
    ("changed", "says", "kept"),
    [
        ({"action": {"four_direction": [5, "move forward"]}}, "not among 0 to 4", False),
        ({"action": {"four_direction": ["1", "turn left"]}}, "no list of integers", False),
        ({"action": {"four_direction": "turn left"}}, "must be a number and a text", False),
        ({"action": {}}, "no four_direction", False),
        ({"scan_id": "scene0007_00"}, 'scan_id is "scene0007_00"', False),
        ({"interaction": ""}, "interaction is empty", False),
        ({"orientation": [0, 0, 0, 2]}, "norm is 2", True),
        ({"orientation": [1, 0, 0]}, "four numbers", True),  # MSQA's facing vector
    ],
)
def test_bad_rows_are_named(tmp_path: Path, changed: dict[str, object], says: str, kept: bool) -> None:
    good, bad = (msnn_sample([1, "turn left"], [2, "turn left"], **each) for each in ({}, changed))
    found = read("msnn", [write_json(tmp_path / "a.json", {"scene0000_00": {"0": good, "1": bad}})])
    [problem] = found.problems
    assert says in problem.reason
    assert problem.row == "scan scene0000_00, item 1"
    assert problem.kept is kept
    assert len(found.rows) == 1 + kept


def test_a_text_of_another_direction_is_odd(tmp_path: Path) -> None:
    content = {"scene0000_00": {"0": msnn_sample([1, "turn right"], [2, "turn left"])}}
    found = read("msnn", [write_json(tmp_path / "a.json", content)])
    assert found.questions[0].choice == 1
    assert found.oddities["text of another direction"].count == 1


@pytest.mark.parametrize("texts", [FOUR, EIGHT])
def test_classes_and_texts_agree(texts: tuple[str, ...]) -> None:
    count = len(texts)
    assert [direction_of(text, count) for text in texts] == list(range(count))
    assert [direction_class(number, count) for number in range(count + 1)] == [*range(count), 0]
    for number in (-1, count + 1):
        with pytest.raises(ValueError, match="is not among"):
            direction_class(number, count)


def test_the_right_spelling_finds_the_class_of_the_published_typo() -> None:
    assert direction_of("Turn to forward  left", 8) == direction_of("turn to foward left", 8) == 1
    assert direction_of("turn to forward right", 8) == 7
    assert direction_of("turn to forward left", 4) is None
