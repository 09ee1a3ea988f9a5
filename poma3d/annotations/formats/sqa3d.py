"""SQA3D: `v1_balanced_questions_SPLIT_scannetv2.json` and `v1_balanced_sqa_annotations_SPLIT_scannetv2.json`.

    questions[]    scene_id, situation, alternative_situation[0..4], question, question_id
    annotations[]  scene_id, question_id, answers[{answer}], position {x, y, z}, rotation {_x, _y, _z, _w}

The files list their rows in different orders. Ids are integers near 2.2e11: beyond int32, inexact in float32.
Keys of a rotation are read by name: their order differs between the files and the documentation.
"""

from __future__ import annotations

from collections.abc import Sequence

from poma3d.annotations.formats import fields
from poma3d.annotations.formats.files import Record
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
from poma3d.annotations.poses import SQA3D
from poma3d.annotations.question_types import sqa3d_type
from poma3d.annotations.rows import Annotations, Quaternion, Question, Vector

INT32 = 2**31 - 1
ALTERNATIVES = 2
LEVEL_M = 1e-6
TILT = 1e-6


def read_sqa3d(files: Sequence[Opened]) -> Annotations:
    """The questions with their answers and poses; without an annotation file, the questions alone."""
    notes = Notes("sqa3d")
    asked = _ids(files, Part.SQA3D_QUESTIONS, "questions", notes)
    answered = _ids(files, Part.SQA3D_ANSWERS, "annotations", notes)
    refuse_strangers(asked, answered, "annotations")
    for key, (row, place) in asked.items():
        _question(key, row, place, answered, notes)
    note_strangers(asked, answered, notes)
    _note_equal_rows(notes)
    return notes.annotations


def _ids(files: Sequence[Opened], part: Part, key: str, notes: Notes) -> Keyed:
    parts = [(f.path, numbered(rows_under(f.content, key))) for f in files if f.part is part]
    return by_id(parts, lambda row: fields.identifier(row, "question_id"), notes)


def _question(key: str, row: Record, place: Place, answered: Keyed, notes: Notes) -> None:
    path, name = place
    where = f"{path}, {name}"
    try:
        scene_id, question = fields.text(row, "scene_id"), fields.text(row, "question")
        main = fields.text(row, "situation")
        others = fields.texts(row.get("alternative_situation", []), "alternative_situation")
    except BadRow as error:
        notes.problem(path, f"{name} (id {key})", error)
        return
    answers: tuple[str, ...] = ()
    position: Vector | None = None
    orientation: Quaternion | None = None
    if key in answered:
        answer_row, answer_place = answered[key]
        if answer_row.get("scene_id") != scene_id:
            other = fields.shown(answer_row.get("scene_id"))
            notes.problem(
                answer_place[0], f"{answer_place[1]} (id {key})", f"scene {other}, asked in {scene_id}"
            )
            return
        answers = _answers(key, answer_row, answer_place, notes)
        position, orientation = _pose(key, answer_row, answer_place, notes)
    elif answered:
        notes.problem(
            path, f"{name} (id {key})", "no annotation has this id: a row without an answer", kept=True
        )
    else:
        notes.odd("no answers", where)
    _note_texts(main, others, question, where, notes)
    number = fields.present(row, "question_id")
    if isinstance(number, int) and number > INT32:
        notes.odd("ids beyond int32", where)
    kind = sqa3d_type(question)
    notes.annotations.counts[kind] += 1
    notes.annotations.rows.append(
        Question(
            scene_id=scene_id,
            question_id=key,
            question=question,
            answers=answers,
            situations=(main, *others),
            question_type=kind,
            position=position,
            orientation=orientation,
            frame=SQA3D if position is not None else "",
        )
    )


def _answers(key: str, row: Record, place: Place, notes: Notes) -> tuple[str, ...]:
    path, name = place
    try:
        answers = listed_answers(row)
    except BadRow as error:
        notes.problem(path, f"{name} (id {key})", f"{error}: a row without an answer", kept=True)
        return ()
    if not answers:
        notes.problem(path, f"{name} (id {key})", "a row without an answer", kept=True)
    if len(answers) > 1:
        notes.odd("several answers", f"{path}, {name}")
    if any(answer != answer.lower() for answer in answers):
        notes.odd("upper-case answers", f"{path}, {name}")
    return answers


def _pose(key: str, row: Record, place: Place, notes: Notes) -> tuple[Vector | None, Quaternion | None]:
    """A bad pose is left out, and the row kept without it: a question can be answered all the same."""
    path, name = place
    if "position" not in row and "rotation" not in row:
        notes.odd("no pose", f"{path}, {name}")
        return None, None
    try:
        return pose_of(row, f"{path}, {name}", notes)
    except BadRow as error:
        notes.problem(path, f"{name} (id {key})", f"{error}; its pose is left out", kept=True)
        return None, None


def pose_of(row: Record, where: str, notes: Notes) -> tuple[Vector, Quaternion]:
    """Position and rotation of a row.

    Raises:
        BadRow: one is missing, not finite, or no unit quaternion.
    """
    position = fields.vector(fields.present(row, "position"), "position")
    orientation = fields.quaternion(fields.present(row, "rotation"), "rotation")
    if abs(position[2]) > LEVEL_M:
        notes.odd("z is not 0", where)
    if orientation[3] < 0:
        notes.odd("negative w", where)
    if abs(orientation[0]) > TILT or abs(orientation[1]) > TILT:
        notes.odd("rotation not about z", where)
    return position, orientation


def _note_texts(main: str, others: Sequence[str], question: str, where: str, notes: Notes) -> None:
    if len(others) != ALTERNATIVES:
        notes.odd("not two alternatives", where)
    if main.rstrip()[-1] not in ".!?":
        notes.odd("situation without a full stop", where)
    for each in (main, *others, question):
        notes.odd_text(each, where)


def _note_equal_rows(notes: Notes) -> None:
    """Rows of equal scene, situation and question, and those of them that contradict each other."""
    seen: dict[tuple[str, str, str], Question] = {}
    for row in notes.annotations.questions:
        first = seen.setdefault((row.scene_id, row.situations[0], row.question), row)
        if first is not row:
            where = f"ids {first.question_id} and {row.question_id}"
            notes.odd("equal rows", where)
            if first.answers != row.answers:
                notes.odd("contradictory rows", where)
