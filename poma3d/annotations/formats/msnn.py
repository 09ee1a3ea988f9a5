"""MSNN in two layouts.

As released, `msnn_scannet.json`, of which each row has both counts of directions:

    {scan_id: {item_id: {location[3], orientation[4], situation_text, interaction, insts[str], scan_id,
                         action {four_direction [0..4, text], eight_direction [0..8, text], angle}}}}

as converted for classification, `msnn_SPLIT_four_direction.json` and `..._annotations.json`:

    [scan_id, question_id, situation_text, interaction, question]
    annotations[]  scan_id, question_id, answers[{answer}]

The released ids count from 0 in each scan, so a row is called `scan/item` here. The agent faces +x, in the
aligned frame (MSQA stores a facing vector under the same key).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from poma3d.annotations.directions import QUESTION, TYPO, direction_class, direction_of
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
)
from poma3d.annotations.formats.parts import Opened, Part
from poma3d.annotations.notes import BadRow, Notes
from poma3d.annotations.poses import MSNN
from poma3d.annotations.rows import Annotations, Question

ACTIONS = {4: "four_direction", 8: "eight_direction"}


def read_msnn(files: Sequence[Opened], directions: int) -> Annotations:
    """The rows with the answer among `directions` (4 or 8)."""
    notes = Notes("msnn")
    released = [(each.path, _items(each.content)) for each in files if each.part is Part.MSNN]
    for key, (row, place) in by_id(released, _key, notes).items():
        _released(key, row, place, directions, notes)
    asked, answered = (_keyed(files, part, notes) for part in (Part.MSNN_QUESTIONS, Part.MSNN_ANSWERS))
    refuse_strangers(asked, answered, "annotations")
    for key, (row, place) in asked.items():
        _converted(key, row, place, answered, directions, notes)
    note_strangers(asked, answered, notes)
    if not released:
        _shorten(notes.annotations)
    return notes.annotations


def _key(row: Record) -> str:
    return f"{fields.text(row, 'scan_id')}/{fields.identifier(row, 'question_id')}"


def _keyed(files: Sequence[Opened], part: Part, notes: Notes) -> Keyed:
    rows = [
        (each.path, numbered(each.content if isinstance(each.content, list) else each.content["annotations"]))
        for each in files
        if each.part is part
    ]
    return by_id(rows, _key, notes)


def _items(content: Record) -> Iterator[tuple[str, Any]]:
    """The samples of the released layout; the key of the scan is checked against the sample's own."""
    for scan_id, samples in content.items():
        if not isinstance(samples, dict):
            yield f"scan {scan_id}", None
            continue
        for item_id, sample in samples.items():
            own = sample if isinstance(sample, dict) else {}
            keys = {"scan_id": scan_id, "question_id": item_id, "own": own}
            yield f"scan {scan_id}, item {item_id}", {**own, **keys}


def _released(key: str, row: Record, place: Place, directions: int, notes: Notes) -> None:
    path, name = place
    where = f"{path}, {name}"
    try:
        if (own := row["own"].get("scan_id", row["scan_id"])) != row["scan_id"]:
            raise BadRow(f"scan_id is {fields.shown(own)}")
        action = fields.record(fields.present(row, "action"), "action")
        answer, choice = _action(action, directions, where, notes)
        question = _question(key, row, QUESTION, (answer,), choice)
    except (BadRow, ValueError) as error:
        notes.problem(path, name, error)
        return
    try:
        position = fields.vector(fields.present(row, "location"), "location")
        orientation = fields.quaternion(fields.present(row, "orientation"), "orientation")
    except BadRow as error:
        notes.problem(path, name, f"{error}; its pose is left out", kept=True)
    else:
        question = replace(question, position=position, orientation=orientation, frame=MSNN)
    objects = row.get("insts")
    if isinstance(objects, list) and any(isinstance(each, str) for each in objects):
        notes.odd("numbers as text", where)
    _add(question, where, notes)


def _action(action: Record, directions: int, where: str, notes: Notes) -> tuple[str, int]:
    """The text and the class of a row."""
    stated = fields.present(action, ACTIONS[directions])
    if not isinstance(stated, list) or len(stated) != 2 or not isinstance(stated[1], str):
        raise BadRow(f"{ACTIONS[directions]} must be a number and a text, found {fields.shown(stated)}")
    number = fields.whole_numbers(stated[:1], ACTIONS[directions])[0]
    choice = direction_class(number, directions)
    if number == directions:
        notes.odd("wrap-around", where)
    if direction_of(stated[1], directions) != choice:
        notes.odd("text of another direction", where)
    return stated[1], choice


def _converted(key: str, row: Record, place: Place, answered: Keyed, directions: int, notes: Notes) -> None:
    path, name = place
    where = f"{path}, {name}"
    try:
        answers = listed_answers(answered[key][0]) if key in answered else ()
        known = [direction_of(answer, directions) for answer in answers]
        if None in known:
            raise BadRow(f"{answers[known.index(None)]!r} is none of {directions} directions")
        question = _question(key, row, fields.text(row, "question"), answers, known[0] if known else None)
    except BadRow as error:
        notes.problem(path, f"{name} (id {key})", error)
        return
    if not answers and answered:
        notes.problem(path, f"{name} (id {key})", "a row without an answer", kept=True)
    elif not answers:
        notes.odd("no answers", where)
    _add(question, where, notes)


def _question(key: str, row: Record, question: str, answers: tuple[str, ...], choice: int | None) -> Question:
    parts = (fields.text(row, "situation_text"), fields.text(row, "interaction"))
    return Question(
        scene_id=fields.text(row, "scan_id"),
        question_id=key,
        question=question,
        answers=answers,
        situations=(" ".join(parts),),
        question_type=answers[0] if answers else "",
        parts=parts,
        choice=choice,
    )


def _add(question: Question, where: str, notes: Notes) -> None:
    if any(TYPO in answer for answer in question.answers):
        notes.odd("misspelt directions", where)
    for text in question.parts:
        notes.odd_text(text, where)
    notes.annotations.counts.update(question.answers)
    notes.annotations.rows.append(question)


def _shorten(annotations: Annotations) -> None:
    """Converted rows are called by their question_id where no two rows share one."""
    own = [row.question_id.split("/", 1)[1] for row in annotations.questions]
    if len(set(own)) == len(own):
        rows = zip(annotations.questions, own, strict=True)
        annotations.rows = [replace(row, question_id=short) for row, short in rows]
