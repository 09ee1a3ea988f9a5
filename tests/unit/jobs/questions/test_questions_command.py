"""`poma questions` writes a file that heads read, the same again, and a tower that knows its words."""

from __future__ import annotations

from pathlib import Path

import pytest

from jobs.cli import main
from poma3d.annotations import rooms
from poma3d.heads.config import TextConfig
from poma3d.heads.text import Words, load_tower


def test_file_and_tower(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["questions", str(folder / "rooms"), "--tower", str(folder / "tower"), "--types", "count", "room"]
    assert main(words) == 0
    file = folder / "rooms/questions.jsonl"
    first = file.read_bytes()
    questions = rooms.read([file]).questions
    assert {question.question_type for question in questions} == {"count", "room"}
    assert f"{len(questions)} questions" in capsys.readouterr().out
    assert main(words) == 0
    assert file.read_bytes() == first
    text = TextConfig(source=str(folder / "tower"))
    tokens, cut = Words(text).encode([question.question for question in questions])
    unknown = 2
    assert not any(unknown in ids for ids in tokens)
    assert cut == 0
    assert load_tower(text).vocabulary > max(max(ids) for ids in tokens)


def test_what_is_no_set_of_rooms_is_one_line(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["questions", str(folder / "teacher")]) == 2
    assert main(["questions", str(folder / "rooms"), "--per-type", "0"]) == 2
    (folder / "mine").mkdir()
    capsys.readouterr()
    assert main(["questions", str(folder / "rooms"), "--tower", str(folder / "mine")]) == 2
    assert "Name another folder" in capsys.readouterr().err
