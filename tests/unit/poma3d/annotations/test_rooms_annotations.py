"""The project's own format of questions about rooms."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from poma3d.annotations import rooms
from poma3d.annotations.rows import Question

ROW: dict[str, Any] = {
    "scene_id": "room-0-0000001", "question_id": "room-0-0000001-0", "question": "is there a bed?",
    "answers": ["yes"], "situations": [], "question_type": "existence",
    "position": [1.0, 2.0, 0.0], "orientation": [0.0, 0.0, 0.6, 0.8],
}  # fmt: skip


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    questions = [
        Question(
            "room-0-1", "a", "how many?", ("two",), ("Here.",), "count", (1.0, 2.0, 0.0),
            (0.0, 0.0, 0.6, 0.8), "world",
        ),
        Question("room-0-1", "b", "which room?", ("kitchen", "kitchenette"), question_type="room"),
    ]  # fmt: skip
    file = tmp_path / "questions.jsonl"
    file.write_text(rooms.write(questions))
    found = rooms.read([file])
    assert found.questions == questions
    assert found.counts == {"count": 1, "room": 1}
    assert not found.problems


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"orientation": [0.0, 0.0, 0.6, 0.9]}, "no unit quaternion"),
        ({"orientation": [0.0, 1.0]}, "orientation"),
        ({"position": ["a", 0, 0]}, "position"),
        ({"answers": []}, "answers is empty"),
        ({"answers": "yes"}, "answers"),
        ({"question": " "}, "question is"),
        ({"scene_id": 5}, "scene_id"),
    ],
)
def test_a_bad_row_is_named_and_the_others_kept(tmp_path: Path, changes: dict[str, Any], says: str) -> None:
    file = tmp_path / "questions.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in (ROW, {**ROW, **changes})))
    found = rooms.read([file])
    assert len(found.rows) == 1
    assert [problem.row for problem in found.problems] == ["line 2"]
    assert says in found.problems[0].reason


@pytest.mark.parametrize("content", ["", "{", "[1]", '{"scene_id": "x"}', "\xff"])
def test_a_file_of_another_kind_is_refused(tmp_path: Path, content: str) -> None:
    file = tmp_path / "questions.jsonl"
    file.write_bytes(content.encode("latin-1"))
    with pytest.raises(ValueError, match=r"questions\.jsonl"):
        rooms.read([file])
