"""Questions about procedural rooms, in a format of this project: JSON lines, a question each.

    {"scene_id": "room-0-0000007", "question_id": "room-0-0000007-3", "question": "how many chairs are
    there?",
     "answers": ["four"], "situations": [], "question_type": "count",
     "position": [2.1, 0.8, 0.0], "orientation": [0.0, 0.0, 0.38, 0.92]}

Position in metres in the scene's frame, orientation as a quaternion (x, y, z, w) that turns +x to where the
agent looks; both are null where the question does not depend on where somebody stands.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from poma3d.annotations.names import ROOMS
from poma3d.annotations.rows import Annotations, Problem, Question

KIND = ROOMS
FRAME = "world"
TEXTS = ("scene_id", "question_id", "question", "question_type")
LISTS = ("answers", "situations")
POSE = (("position", 3), ("orientation", 4))
UNIT_TOLERANCE = 1e-3


@dataclass(frozen=True)
class _BadRow(Exception):
    reason: str


def read(files: Sequence[Path]) -> Annotations:
    """The questions of some files.

    Raises:
        ValueError: a file that cannot be read, or without a single good row.
    """
    found = Annotations(KIND)
    for path in files:
        before = len(found.rows)
        try:
            lines = path.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise ValueError(f"{path.name} cannot be read: {error}") from None
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            try:
                row = _question(line)
            except _BadRow as bad:
                found.problems.append(Problem(path.name, f"line {number}", bad.reason))
                continue
            found.rows.append(row)
            found.counts[row.question_type] += 1
        if len(found.rows) == before:
            why = found.problems[-1].reason if found.problems else "it is empty"
            raise ValueError(f"{path.name} has no question of the kind {KIND}: {why}")
    return found


def write(questions: Iterable[Question]) -> str:
    """The file's content; the inverse of `read`."""
    return "".join(json.dumps(_row(question)) + "\n" for question in questions)


def _row(question: Question) -> dict[str, Any]:
    row: dict[str, Any] = {name: getattr(question, name) for name in TEXTS}
    row |= {name: list(getattr(question, name)) for name in LISTS}
    return row | {name: None if (v := getattr(question, name)) is None else list(v) for name, _ in POSE}


def _question(line: str) -> Question:
    try:
        row = json.loads(line)
    except ValueError as error:
        raise _BadRow(f"not JSON: {error}") from None
    if not isinstance(row, dict):
        raise _BadRow("not an object")
    texts = {name: _text(row, name) for name in TEXTS}
    lists = {name: _texts(row, name) for name in LISTS}
    if not lists["answers"]:
        raise _BadRow("answers is empty")
    pose = {name: _numbers(row, name, count) for name, count in POSE}
    turn = pose["orientation"]
    if turn is not None and abs(sum(x * x for x in turn) - 1) > UNIT_TOLERANCE:
        raise _BadRow(f"orientation {list(turn)} is no unit quaternion")
    return Question(**texts, **lists, **pose, frame=FRAME if turn is not None else "")  # type: ignore[arg-type]


def _text(row: dict[str, Any], name: str) -> str:
    value = row.get(name)
    if not isinstance(value, str) or not value.strip():
        raise _BadRow(f"{name} is {value!r}, expected a text")
    return value


def _texts(row: dict[str, Any], name: str) -> tuple[str, ...]:
    value = row.get(name)
    if not isinstance(value, list) or not all(isinstance(text, str) and text.strip() for text in value):
        raise _BadRow(f"{name} is {value!r}, expected a list of texts")
    return tuple(value)


def _numbers(row: dict[str, Any], name: str, count: int) -> tuple[float, ...] | None:
    value = row.get(name)
    if value is None:
        return None
    if not isinstance(value, list) or len(value) != count:
        raise _BadRow(f"{name} is {value!r}, expected {count} numbers or null")
    try:
        return tuple(float(number) for number in value)
    except (TypeError, ValueError):
        raise _BadRow(f"{name} is {value!r}, expected {count} numbers or null") from None
