"""Hypo3D in two layouts.

As released, with the table of orientations (a CSV with scene_id, Front, Back, Left, Right) beside it:

    {scene_id: [{context_change, change_type, questions_answers[{question, answer, question_type,
    question_id}]}]}

as converted for classification:

    questions[]    scene_id, question_id, context_change, orientation, question
    annotations[]  scene_id, question_id, answers[{answer}]

Ids are five digits with leading zeros, as text. Scenes are ScanNet's and 3RScan's.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from poma3d.annotations.formats import fields
from poma3d.annotations.formats.files import Record, read_table
from poma3d.annotations.formats.joined import (
    Keyed,
    Place,
    by_id,
    listed_answers,
    note_strangers,
    numbered,
    refuse_strangers,
    rows_under,
)
from poma3d.annotations.formats.parts import Opened, Part
from poma3d.annotations.notes import BadRow, Notes
from poma3d.annotations.rows import Annotations, Question

DIRECTIONS = ("Front", "Back", "Left", "Right")
"""Columns of the table, in the order in which its sentences stand."""
ABSENT = ("", "nan", "none", "n/a", "-")
SCANNET = "scene"
"""How ids of ScanNet's scenes begin; the others are 3RScan's."""


def read_hypo3d(files: Sequence[Opened]) -> Annotations:
    """The questions; a situation is the scene's orientation and the change."""
    notes = Notes("hypo3d")
    orientations = _orientations([each for each in files if each.part is Part.HYPO3D_ORIENTATIONS], notes)
    released = [(each.path, _flat(each.content)) for each in files if each.part is Part.HYPO3D]
    asked = by_id(released, _id, notes)
    for key, (row, place) in asked.items():
        orientation = orientations.get(row["scene_id"], "")
        if orientations and not orientation:
            notes.odd("no orientation", f"{place[0]}, scene {row['scene_id']}")
        _add(key, row, orientation, row, place, notes)
    converted = _ids(files, Part.HYPO3D_QUESTIONS, "questions", notes)
    answered = _ids(files, Part.HYPO3D_ANSWERS, "annotations", notes)
    refuse_strangers(converted, answered, "annotations")
    for key, (row, place) in converted.items():
        answer_row = answered[key][0] if key in answered else None
        _add(key, row, row.get("orientation", ""), answer_row, place, notes, answered=bool(answered))
    note_strangers(converted, answered, notes)
    return notes.annotations


def _id(row: Record) -> str:
    return fields.identifier(row, "question_id")


def _ids(files: Sequence[Opened], part: Part, key: str, notes: Notes) -> Keyed:
    parts = [(each.path, numbered(rows_under(each.content, key))) for each in files if each.part is part]
    return by_id(parts, _id, notes)


def _flat(content: Record) -> Iterator[tuple[str, Any]]:
    """The questions of the released layout, each with its scene and change."""
    for scene_id, changes in content.items():
        for number, change in enumerate(changes if isinstance(changes, list) else [changes], 1):
            name = f"scene {scene_id}, change {number}"
            questions = change.get("questions_answers") if isinstance(change, dict) else None
            if not isinstance(questions, list):
                yield name, None
                continue
            above = {k: v for k, v in change.items() if k != "questions_answers"}
            for index, question in enumerate(questions, 1):
                own = question if isinstance(question, dict) else {}
                yield f"{name}, question {index}", {**above, **own, "scene_id": scene_id}


def _orientations(files: Iterable[Opened], notes: Notes) -> dict[str, str]:
    """Scene -> its sentence, "The desk was located at the front of the scene."; several are joined by a
    blank."""
    found: dict[str, str] = {}
    for each in files:
        for line, row in read_table(each.path, ("scene_id", *DIRECTIONS)):
            if isinstance(row, BadRow):
                notes.problem(each.path, f"line {line}", row)
            elif row["scene_id"].strip():
                cells = [(name, row[name].strip()) for name in DIRECTIONS]
                found[row["scene_id"].strip()] = " ".join(
                    f"The {item} was located at the {name.lower()} of the scene."
                    for name, item in cells
                    if item.lower() not in ABSENT
                )
    return found


def _add(
    key: str,
    row: Record,
    orientation: Any,
    answer_row: Record | None,
    place: Place,
    notes: Notes,
    *,
    answered: bool = True,
) -> None:
    path, name = place
    try:
        question = _question(key, row, orientation, answer_row)
    except BadRow as error:
        notes.problem(path, f"{name} (id {key})", error)
        return
    where = f"{path}, {name}"
    if not question.answers and answered:
        notes.problem(path, f"{name} (id {key})", "a row without an answer", kept=True)
    elif not question.answers:
        notes.odd("no answers", where)
    types = question.question_type.split()
    if len(types) > 1:
        notes.odd("several types", where)
    if not question.scene_id.startswith(SCANNET):
        notes.odd("3RScan scenes", where)
    if isinstance(row["question_id"], int):
        notes.odd("ids that are numbers", where)
    for text in (*question.parts, question.question):
        notes.odd_text(text, where)
    notes.annotations.counts.update(types)
    notes.annotations.rows.append(question)


def _question(key: str, row: Record, orientation: Any, answer_row: Record | None) -> Question:
    if not isinstance(orientation, str):
        raise BadRow(f"orientation is no text: {fields.shown(orientation)}")
    change = fields.text(row, "context_change")
    parts = (orientation, change) if orientation.strip() else (change,)
    answers: tuple[str, ...] = ()
    if answer_row is not None and "answer" in answer_row:
        answers = tuple(a for a in [fields.optional_text(answer_row, "answer")] if a.strip())
    elif answer_row is not None:
        answers = listed_answers(answer_row)
    return Question(
        scene_id=fields.text(row, "scene_id"),
        question_id=key,
        question=fields.text(row, "question"),
        answers=answers,
        situations=(" ".join(parts),),
        question_type=fields.optional_text(row, "question_type"),
        parts=parts,
        change_type=fields.optional_text(row, "change_type"),
    )
