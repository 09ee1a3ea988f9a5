"""SQA3D's two files: joined by id, every surprise of the real files kept or named."""

from __future__ import annotations

from pathlib import Path

import pytest

from poma3d.annotations.read import read
from poma3d.annotations.vocabulary import read_vocabulary
from tests.helpers.annotations.layouts import (
    FIRST_ID,
    SQA3D_ROWS,
    sqa3d,
    sqa3d_answer,
    sqa3d_question,
    write_json,
    write_sqa3d,
)

needs_real_rows = pytest.mark.skipif(not SQA3D_ROWS.is_dir(), reason="the real rows are not beside the tree")


def test_joined_by_id_whatever_the_order(tmp_path: Path) -> None:
    numbers = range(3)
    answers = [sqa3d_answer(number, f"answer {number}") for number in reversed(numbers)]
    found = read("sqa3d", write_sqa3d(tmp_path, [sqa3d_question(n) for n in numbers], answers))
    assert [row.answers for row in found.questions] == [(f"answer {number}",) for number in numbers]
    assert [row.question_id for row in found.questions] == [str(FIRST_ID + n) for n in numbers]
    assert not found.problems
    assert found.oddities["ids beyond int32"].count == 3
    row = found.questions[0]
    assert row.situations == ("I am sitting on the bed.", "I lie in bed.", "I just woke up in bed.")
    assert row.question_type == "what"
    assert row.position == (0.5, -1.0, 0.0)
    assert row.frame == "sqa3d"


def test_ids_are_kept_whatever_they_are(tmp_path: Path) -> None:
    ids = ["220602000322", "²", "a/b", 7]
    asked = [sqa3d_question(0, question_id=each) for each in ids]
    found = read("sqa3d", write_sqa3d(tmp_path, asked, [sqa3d_answer(0, question_id=each) for each in ids]))
    assert [row.question_id for row in found.questions] == [*ids[:3], "7"]
    assert "ids beyond int32" not in found.oddities


def test_keys_of_a_rotation_are_read_by_name(tmp_path: Path) -> None:
    rotation = {"_w": 0.6, "_z": 0.8, "_y": 0, "_x": 0}  # the documentation's order is not the files'
    found = read("sqa3d", write_sqa3d(tmp_path, [sqa3d_question(0)], [sqa3d_answer(0, rotation=rotation)]))
    assert found.questions[0].orientation == (0.0, 0.0, 0.8, 0.6)


@pytest.mark.parametrize("alternatives", [[], ["a."], ["a.", "b."], ["a.", "b.", "c.", "d."]])
def test_any_number_of_alternatives(tmp_path: Path, alternatives: list[str]) -> None:
    question = sqa3d_question(0, alternative_situation=alternatives)
    found = read("sqa3d", write_sqa3d(tmp_path, [question], [sqa3d_answer(0)]))
    assert found.questions[0].situations == (question["situation"], *alternatives)
    assert ("not two alternatives" in found.oddities) == (len(alternatives) != 2)


def test_texts_are_joined_with_the_joiner_that_is_asked_for(tmp_path: Path) -> None:
    row = read("sqa3d", sqa3d(tmp_path, 1)).questions[0]
    assert row.asked("")[0] == "I am sitting on the bed.What is in front of me?"
    assert row.asked(" ")[1] == "I lie in bed. What is in front of me?"
    assert len(row.asked("")) == 3


def test_a_test_set_without_annotations(tmp_path: Path) -> None:
    found = read("sqa3d", write_sqa3d(tmp_path, [sqa3d_question(0)], None))
    assert found.questions[0].answers == ()
    assert not found.problems
    assert found.oddities["no answers"].count == 1


def test_oddities_that_are_kept(tmp_path: Path) -> None:
    said = [{"answer": "TV"}, {"answer": "screen"}]
    bare = {key: value for key, value in sqa3d_answer(1).items() if key not in ("position", "rotation")}
    questions = [sqa3d_question(0, situation="I sit"), sqa3d_question(1)]
    found = read("sqa3d", write_sqa3d(tmp_path, questions, [sqa3d_answer(0, answers=said), bare]))
    assert [row.answers for row in found.questions] == [("TV", "screen"), ("desk",)]
    assert found.questions[1].position is None
    assert not found.problems
    odd = {"situation without a full stop", "several answers", "upper-case answers", "no pose"}
    assert odd <= set(found.oddities)


def test_contradictory_rows_are_both_kept(tmp_path: Path) -> None:
    questions = [sqa3d_question(0), sqa3d_question(1, scene_id="scene0000_00")]
    answers = [sqa3d_answer(0, "backward"), sqa3d_answer(1, "brown", scene_id="scene0000_00")]
    found = read("sqa3d", write_sqa3d(tmp_path, questions, answers))
    assert [row.answers for row in found.questions] == [("backward",), ("brown",)]
    assert found.oddities["equal rows"].count == 1
    assert found.oddities["contradictory rows"].count == 1


def test_poses_that_are_odd_but_right(tmp_path: Path) -> None:
    turned = {"_x": 0, "_y": 0, "_z": 0.6, "_w": -0.8}
    tilted = {"_x": 0.6, "_y": 0, "_z": 0, "_w": 0.8}
    high = {"x": 0, "y": 0, "z": 0.12}
    answers = [
        sqa3d_answer(0, rotation=turned),
        sqa3d_answer(1, rotation=tilted),
        sqa3d_answer(2, position=high),
    ]
    found = read("sqa3d", write_sqa3d(tmp_path, [sqa3d_question(n) for n in range(3)], answers))
    assert all(row.position for row in found.questions)
    counts = {
        name: found.oddities[name].count for name in ("negative w", "rotation not about z", "z is not 0")
    }
    assert counts == {"negative w": 1, "rotation not about z": 1, "z is not 0": 1}


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"rotation": {"_x": 0, "_y": 0, "_z": 0.5, "_w": 0.5}}, "norm is 0.7071"),
        ({"rotation": {"_x": 0, "_y": 0, "_z": 0}}, "no _w or w"),
        ({"rotation": [0, 0, 1]}, "four numbers"),
        ({"position": {"x": 0, "y": "1", "z": 0}}, "position is no number"),
        ({"position": {"x": 1e400, "y": 0, "z": 0}}, "not finite"),
    ],
)
def test_a_bad_pose_is_named_and_its_question_kept(
    tmp_path: Path, changed: dict[str, object], says: str
) -> None:
    rows = [sqa3d_answer(0), sqa3d_answer(1, **changed)]
    found = read("sqa3d", write_sqa3d(tmp_path, [sqa3d_question(0), sqa3d_question(1)], rows))
    [problem] = found.problems
    assert says in problem.reason
    assert problem.kept
    assert problem.row == f"row 2 (id {FIRST_ID + 1})"
    assert problem.file.endswith("sqa_annotations_val_scannetv2.json")
    assert found.questions[1].position is None
    assert found.questions[1].answers == ("desk",)


@pytest.mark.parametrize(
    ("changed", "says", "kept"),
    [
        ({"answers": []}, "a row without an answer", True),
        ({"answers": [{"answer": "  "}]}, "answer is empty", True),
        ({"answers": "desk"}, "no list", True),
        ({"scene_id": "scene0009_00"}, "asked in scene0001_00", False),
        ({"question_id": 2.206e11}, "must be a text or an integer", False),
        ({"question_id": True}, "must be a text or an integer", False),
    ],
)
def test_a_bad_annotation_is_named(tmp_path: Path, changed: dict[str, object], says: str, kept: bool) -> None:
    rows = [sqa3d_answer(0), sqa3d_answer(1, **changed)]
    found = read("sqa3d", write_sqa3d(tmp_path, [sqa3d_question(0), sqa3d_question(1)], rows))
    problem = found.problems[0]
    assert says in problem.reason
    assert "row 2" in problem.row
    assert problem.kept is kept
    assert all(row.answers == () for row in found.questions[1:])


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"question": ""}, "question is empty"),
        ({"question": 7}, "question is no text"),
        ({"situation": None}, "situation is no text"),
        ({"alternative_situation": "one"}, "no list of texts"),
        ({"scene_id": "  "}, "scene_id is empty"),
    ],
)
def test_a_bad_question_is_left_out_and_named(tmp_path: Path, changed: dict[str, object], says: str) -> None:
    questions = [sqa3d_question(0), sqa3d_question(1, **changed)]
    found = read("sqa3d", write_sqa3d(tmp_path, questions, [sqa3d_answer(0), sqa3d_answer(1)]))
    assert len(found.rows) == 1
    assert says in found.problems[0].reason
    assert found.problems[0].row == f"row 2 (id {FIRST_ID + 1})"


def test_rows_that_are_no_objects_and_ids_that_stand_twice(tmp_path: Path) -> None:
    questions = [sqa3d_question(0), sqa3d_question(0), "question", {"question": "no id"}]
    found = read("sqa3d", write_sqa3d(tmp_path, questions, [sqa3d_answer(0)]))
    assert len(found.rows) == 1
    reasons = [problem.reason for problem in found.problems]
    assert reasons == ["the id stands in row 1 already", 'row is no object: "question"', "no question_id"]


def test_ids_on_one_side_only(tmp_path: Path) -> None:
    questions = [sqa3d_question(0), sqa3d_question(1)]
    found = read("sqa3d", write_sqa3d(tmp_path, questions, [sqa3d_answer(0), sqa3d_answer(2)]))
    assert [problem.reason for problem in found.problems] == [
        "no annotation has this id: a row without an answer",
        "no question has this id",
    ]
    assert [row.answers for row in found.questions] == [("desk",), ()]


def test_annotations_of_another_split_are_refused(tmp_path: Path) -> None:
    asked = write_sqa3d(tmp_path, [sqa3d_question(0)], None, "val")
    (tmp_path / "other").mkdir()
    answered = write_sqa3d(tmp_path / "other", [sqa3d_question(5)], [sqa3d_answer(5)], "test")
    with pytest.raises(ValueError, match="annotations of another split or data set"):
        read("sqa3d", [*asked, answered[1]])


def test_annotations_alone_have_no_questions(tmp_path: Path) -> None:
    path = write_json(tmp_path / "a.json", {"annotations": [sqa3d_answer(0)]})
    with pytest.raises(ValueError, match="without SQA3D's questions, there are no rows"):
        read("sqa3d", [path])


@needs_real_rows
def test_real_rows() -> None:
    files = sorted(SQA3D_ROWS.glob("v1_balanced_*.json"))
    found = read("sqa3d", files)
    assert len(found.rows) == 71
    assert not found.problems
    assert found.oddities["z is not 0"].count == 15
    assert max(len(row.situations) for row in found.questions) == 5
    assert all(row.orientation for row in found.questions)
    vocabulary = read_vocabulary(SQA3D_ROWS / "answer_dict.json")
    assert len(vocabulary) == 706
    assert sum(not any(a in vocabulary for a in row.answers) for row in found.questions) == 19
