"""Utterances for retrieval and view grounding: JSON lines, as UniScene3D's evaluators read them.

    {"scan_id" or "scene_id", "utterance" or "description", "view_ground_truth": [index, ...]}

The public loader edits each line before it parses it: curly quotes become straight ones, so a row that has
them is no JSON any more and is lost; `NaN` in a sentence becomes `null`; a comma before a bracket vanishes.
Rows are read as they stand here, and those rows are counted. Of `view_ground_truth` only the first counts for
R@k.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from poma3d.annotations.formats import fields
from poma3d.annotations.formats.files import Record, json_lines
from poma3d.annotations.formats.joined import numbered
from poma3d.annotations.formats.parts import Opened
from poma3d.annotations.formats.referit3d import note_ceiling
from poma3d.annotations.formats.scanrefer import note_runs, object_name
from poma3d.annotations.notes import BadRow, Notes
from poma3d.annotations.rows import Annotations, Utterance

OBJECT_IDS = ("target_id", "object_id")
CURLY = str.maketrans({"\u201c": '"', "\u201d": '"', "\u2018": "'", "\u2019": "'"})


def read_retrieval(files: Sequence[Opened]) -> Annotations:
    """The utterances, in file order, as they stand."""
    notes = Notes("retrieval")
    for each in files:
        lines = each.content is None
        rows: Any = json_lines(each.path) if lines else numbered(each.content)
        for number, row in rows:
            name = f"line {number}" if lines else number
            try:
                if isinstance(row, BadRow):
                    raise row
                _add(fields.record(row), each.path, name, notes)
            except BadRow as error:
                notes.problem(each.path, name, error)
    note_runs(notes)
    note_ceiling(notes)
    return notes.annotations


def _add(row: Record, path: Path, name: str, notes: Notes) -> None:
    where = f"{path}, {name}"
    text = fields.text(row, "utterance", "description")
    views = row.get("view_ground_truth")
    found = Utterance(
        scene_id=fields.text(row, "scan_id", "scene_id"),
        text=text,
        object_id=fields.identifier(row, *OBJECT_IDS) if set(OBJECT_IDS) & set(row) else "",
        object_name=object_name(row),
        views=() if views is None else fields.whole_numbers(views, "view_ground_truth"),
    )
    if any(view < 0 for view in found.views):
        raise BadRow(f"view_ground_truth has a negative index: {fields.shown(views)}")
    if not found.views:
        notes.odd("rows without views", where)
    notes.odd_text(text, where)
    _note_loader(text, where, notes)
    notes.annotations.counts[found.object_name] += bool(found.object_name)
    notes.annotations.rows.append(found)


def _note_loader(text: str, where: str, notes: Notes) -> None:
    """What the public loader makes of a text."""
    edited = json.dumps(text, ensure_ascii=False).translate(CURLY)
    try:
        json.loads(edited)
    except ValueError:
        notes.odd("lost by the public loader", where)
    else:
        if "NaN" in text or ", ]" in text or ",]" in text:
            notes.odd("changed by the public loader", where)
