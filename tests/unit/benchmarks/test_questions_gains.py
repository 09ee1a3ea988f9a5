"""`benchmarks.questions`: what a head gains over a control is counted question by question."""

from __future__ import annotations

import json
from pathlib import Path

from benchmarks.questions.gains import gains
from plinth.storage import Storage
from poma3d.annotations.rows import Question

ASKED = [Question(f"room-{i // 2}", f"q{i}", "?", ("yes",)) for i in range(8)]


def run(folder: Path, right: list[bool]) -> Storage:
    storage = Storage.from_uri(folder)
    lines = [
        json.dumps({"question_id": question.question_id, "answers": ["yes" if is_right else "no", "perhaps"]})
        for question, is_right in zip(ASKED, right, strict=True)
    ]
    storage.write("predictions/val-last.jsonl", "\n".join(lines).encode())
    return storage


def test_a_gain_is_paired(tmp_path: Path) -> None:
    half = [True, False] * 4
    runs = {
        ("encoder", 0): run(tmp_path / "a", [True] * 8),
        ("encoder", 1): run(tmp_path / "b", half),
        ("untrained", 0): run(tmp_path / "c", half),
        ("untrained", 1): run(tmp_path / "d", [False] * 8),
    }
    # In every room one question more at each seed: no room differs from another, so the interval is a point.
    assert gains(runs, ASKED, "val") == ["encoder over untrained, 2 seeds: +50.0 points [+50.0, +50.0]"]
