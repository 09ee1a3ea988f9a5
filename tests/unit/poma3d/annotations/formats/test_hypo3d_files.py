"""Hypo3D in both layouts."""

from __future__ import annotations

from pathlib import Path

import pytest

from poma3d.annotations.read import read
from tests.helpers.annotations.layouts import hypo3d_converted, hypo3d_released, write_json, write_table


def test_as_released_with_orientations(tmp_path: Path) -> None:
    table = [
        {"scene_id": "scene0000_00", "Front": "desk", "Back": "", "Left": "bed", "Right": "nan"},
        {"scene_id": "", "Front": "", "Back": "", "Left": "", "Right": ""},
    ]
    files = [
        write_json(tmp_path / "contextvqa.json", hypo3d_released()),
        write_table(tmp_path / "axis.csv", table),
    ]
    found = read("hypo3d", files)
    assert [row.question_id for row in found.questions] == ["00000", "00001", "00002"]
    orientation = (
        "The desk was located at the front of the scene. The bed was located at the left of the scene."
    )
    first, second, third = found.questions
    assert first.parts == (orientation, "The lamp was moved to the door.")
    assert first.situations == (f"{orientation} The lamp was moved to the door.",)
    assert first.asked("") == (f"{orientation}The lamp was moved to the door.Where is lamp 0 now?",)
    assert second.question_type == "Scale Direction"
    assert second.change_type == "Movement Change"
    assert third.parts == ("The rug was removed.",)
    assert found.counts == {"Direction": 2, "Scale": 1, "Semantic": 1}
    assert not found.problems
    assert {name: each.count for name, each in found.oddities.items()} == {
        "several types": 1, "3RScan scenes": 1, "no orientation": 1,
    }  # fmt: skip


def test_as_converted(tmp_path: Path) -> None:
    [row] = read("hypo3d", hypo3d_converted(tmp_path)).questions
    assert row.question_id == "00007"
    assert row.answers == ("back left",)
    assert row.parts == ("The desk was located at the front of the scene.", "The lamp was moved.")


def test_ids_that_lost_their_zeros_are_odd(tmp_path: Path) -> None:
    content = hypo3d_released()
    content["scene0000_00"][0]["questions_answers"][0]["question_id"] = 0
    found = read("hypo3d", [write_json(tmp_path / "a.json", content)])
    assert found.oddities["ids that are numbers"].count == 1


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"answer": ""}, "a row without an answer"),
        ({"question": " "}, "question is empty"),
        ({"question_id": "00001"}, "stands in scene scene0000_00, change 1, question 2"),
        ({"question_type": 3}, "question_type is no text"),
    ],
)
def test_bad_rows_are_named(tmp_path: Path, changed: dict[str, object], says: str) -> None:
    content = hypo3d_released()
    [uuid] = [scene for scene in content if not scene.startswith("scene")]
    content[uuid][0]["questions_answers"][0].update(changed)
    found = read("hypo3d", [write_json(tmp_path / "a.json", content)])
    [problem] = found.problems
    assert says in problem.reason
    assert problem.row.startswith(f"scene {uuid}, change 1, question 1")


def test_a_change_without_questions(tmp_path: Path) -> None:
    content = {**hypo3d_released(), "scene0005_00": [{"context_change": "Nothing."}], "scene0006_00": "x"}
    found = read("hypo3d", [write_json(tmp_path / "a.json", content)])
    assert len(found.rows) == 3
    assert [problem.row for problem in found.problems] == [
        "scene scene0005_00, change 1",
        "scene scene0006_00, change 1",
    ]


def test_a_spreadsheet_is_to_be_saved_as_csv(tmp_path: Path) -> None:
    (tmp_path / "Axis Definition.xlsx").write_bytes(b"PK")
    with pytest.raises(ValueError, match="save it as CSV"):
        read("hypo3d", [tmp_path / "Axis Definition.xlsx"])
