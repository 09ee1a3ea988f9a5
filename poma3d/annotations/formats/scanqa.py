"""ScanQA v1.0: `ScanQA_v1.0_SPLIT.json`, a list.

    scene_id, question_id (text), question, answers[str], object_ids[int], object_names[str]

The two test files hold only scene_id, question_id and question; scores are made on a server. `test_w_obj` has
scenes of ScanNet's validation list and ids that begin with `val-`. What papers call ScanQA is the validation
file.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from poma3d.annotations.formats import fields
from poma3d.annotations.formats.files import Record
from poma3d.annotations.formats.joined import by_id, numbered
from poma3d.annotations.formats.parts import Opened
from poma3d.annotations.notes import BadRow, Notes
from poma3d.annotations.question_types import scanqa_type
from poma3d.annotations.rows import Annotations, Question


def read_scanqa(files: Sequence[Opened]) -> Annotations:
    """The questions; their answers are as listed, repeats kept."""
    notes = Notes("scanqa")
    parts = [(each.path, numbered(each.content)) for each in files]
    found = by_id(parts, lambda row: fields.identifier(row, "question_id"), notes)
    has_answers = {path for row, (path, _) in found.values() if "answers" in row}
    for key, (row, (path, name)) in found.items():
        try:
            _question(key, row, path, name, path in has_answers, notes)
        except BadRow as error:
            notes.problem(path, f"{name} (id {key})", error)
    return notes.annotations


def _question(key: str, row: Record, path: Path, name: str, answered: bool, notes: Notes) -> None:
    where = f"{path}, {name}"
    scene_id, question = fields.text(row, "scene_id"), fields.text(row, "question")
    answers: tuple[str, ...] = ()
    if "answers" in row:
        answers = tuple(fields.texts(row["answers"], "answers"))
        if not all(answer.strip() for answer in answers):
            raise BadRow("an answer is empty")
    if answered and not answers:
        notes.problem(path, f"{name} (id {key})", "a row without an answer", kept=True)
    elif not answers:
        notes.odd("no answers", where)
        if key.startswith("val-"):
            notes.odd("ids of another split", where)
    if len(set(answers)) < len(answers):
        notes.odd("repeated answers", where)
    if any(answer != answer.lower() for answer in answers):
        notes.odd("upper-case answers", where)
    notes.odd_text(question, where)
    kind = scanqa_type(question)
    notes.annotations.counts[kind] += 1
    notes.annotations.rows.append(Question(scene_id, key, question, answers, question_type=kind))
