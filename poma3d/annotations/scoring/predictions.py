"""Files of predictions: JSON lines.

    {"question_id": ..., "answer": "two"}                                          one answer
    {"question_id": ..., "answers": ["two", "three"]}                              the best first
    {"question_id": ..., "positions": [[x, y, z]], "rotations": [[x, y, z, w]]}    localisation, up to three

An id is a text or an integer. Unlike a bad row of annotations, a bad prediction refuses the file: a score of
the others would look like a score of all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from poma3d.annotations.formats import fields
from poma3d.annotations.formats.files import Record, json_lines
from poma3d.annotations.notes import BadRow
from poma3d.annotations.rows import Quaternion, Vector
from poma3d.annotations.scoring.localisation import MOST_GUESSES

EXAMPLE = '{"question_id": 1, "answer": "two"}'
ID_NAMES = ("question_id", "situation_id")
Prediction = TypeVar("Prediction")


@dataclass(frozen=True)
class Answered:
    """Answers to one question, the best first."""

    answers: tuple[str, ...]
    listed: bool
    """Whether the file gives a list, not a single answer."""
    where: str
    """File and line."""


@dataclass(frozen=True)
class Located:
    """Guesses of one camera."""

    positions: tuple[Vector, ...]
    rotations: tuple[Quaternion, ...]


def read_answers(path: Path) -> dict[str, Answered]:
    """Predicted answers by id.

    Raises:
        ValueError: a line is no prediction, an id stands there twice, or there is none.
    """
    return _read(path, _answered)


def read_locations(path: Path) -> dict[str, Located]:
    """Predicted cameras by id.

    Raises:
        ValueError: as `read_answers`; also more than three guesses, or a quaternion that is none.
    """
    return _read(path, _located)


def refuse_strangers(path: Path, given: Iterable[str], known: Iterable[str]) -> None:
    """Refuse predictions for other questions.

    Raises:
        ValueError: some ids are not among those of the annotations.
    """
    ids, there = list(given), set(known)
    strangers = [key for key in ids if key not in there]
    if not strangers:
        return
    shorter = {key.lstrip("0") for key in there}
    hint = ". Leading zeros are lost: write ids as text" if strangers[0] in shorter - there else ""
    if len(strangers) == len(ids):
        raise ValueError(
            f"{path}: predictions for another data set or split: none of the {len(ids)} ids, such as "
            f"{strangers[0]}, is in the annotations, where the first is {next(iter(known), '')}{hint}"
        )
    raise ValueError(
        f"{path}: {len(strangers)} of {len(ids)} ids are not in the annotations, the first is "
        f"{strangers[0]}{hint}"
    )


def _read(path: Path, parse: Callable[[Record, str], Prediction]) -> dict[str, Prediction]:
    found: dict[str, Prediction] = {}
    lines: dict[str, int] = {}
    for line, row in json_lines(path):
        try:
            if isinstance(row, BadRow):
                raise row
            key = fields.identifier(row, *ID_NAMES)
            if key in lines:
                raise BadRow(f"the id {key} stands in line {lines[key]} already")
            lines[key] = line
            found[key] = parse(row, f"{path}, line {line}")
        except BadRow as error:
            raise ValueError(f"{path}, line {line}: {error}") from None
    if not found:
        raise ValueError(
            f'{path}: no predictions; expected lines such as {{"question_id": 1, "answer": "two"}}'
        )
    return found


def _answered(row: Record, where: str) -> Answered:
    if "answer" in row and "answers" in row:
        raise BadRow("both answer and answers; give one")
    if "answers" in row:
        answers = fields.texts(row["answers"], "answers")
        if not answers:
            raise BadRow("answers is empty; leave the row out")
        return Answered(tuple(answers), True, where)
    answer = fields.present(row, "answer", "answers")
    if not isinstance(answer, str):
        raise BadRow(f"answer is no text: {fields.shown(answer)}")
    return Answered((answer,), False, where)


def _located(row: Record, where: str) -> Located:
    positions = _guesses(row, "position")
    rotations = _guesses(row, "rotation")
    return Located(
        tuple(fields.vector(each, "position") for each in positions),
        tuple(fields.quaternion(each, "rotation") for each in rotations),
    )


def _guesses(row: Record, name: str) -> list[object]:
    """The guesses under `positions`, or the one under `position`."""
    guesses = row[f"{name}s"] if f"{name}s" in row else [fields.present(row, name, f"{name}s")]
    if not isinstance(guesses, list):
        raise BadRow(f"{name}s is no list: {fields.shown(guesses)}")
    if len(guesses) > MOST_GUESSES:
        raise BadRow(f"{len(guesses)} {name}s; the metric takes {MOST_GUESSES} at most")
    return guesses
