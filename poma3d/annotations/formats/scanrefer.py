"""ScanRefer: `ScanRefer_filtered_SPLIT.json`, a list.

    scene_id, object_id, object_name (underscores), ann_id, description, token[str]       all ids are text

Rows are in no order of scene, object or annotation.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from poma3d.annotations.formats import fields
from poma3d.annotations.formats.files import Record
from poma3d.annotations.formats.joined import by_id, numbered
from poma3d.annotations.formats.parts import Opened
from poma3d.annotations.notes import BadRow, Notes
from poma3d.annotations.rows import Annotations, Utterance


def read_scanrefer(files: Sequence[Opened]) -> Annotations:
    """The descriptions, in file order, as they stand."""
    notes = Notes("scanrefer")
    parts = [(each.path, numbered(each.content)) for each in files]
    for _, (row, (path, name)) in by_id(parts, annotation_id, notes).items():
        try:
            _add(row, path, name, notes)
        except BadRow as error:
            notes.problem(path, name, error)
    note_runs(notes)
    return notes.annotations


def annotation_id(row: Record) -> str:
    """`scene0050_00-6_4`: scene, object and annotation, as the cameras' files write it."""
    names = ("scene_id", "object_id", "ann_id")
    scene_id, object_id, annotation = (fields.identifier(row, name) for name in names)
    return f"{scene_id}-{object_id}_{annotation}"


def object_name(row: Record) -> str:
    """With blanks in place of underscores."""
    return fields.optional_text(row, "object_name").replace("_", " ")


def note_runs(notes: Notes) -> None:
    """Scenes that do not stand together, and texts that repeat within a scene."""
    ended: set[str] = set()
    seen: set[tuple[str, str]] = set()
    last = ""
    for row in notes.annotations.utterances:
        if row.scene_id != last:
            if row.scene_id in ended:
                notes.odd("scenes apart", f"scene {row.scene_id}")
            ended.add(last)
            last = row.scene_id
        key = (row.scene_id, row.text)
        if key in seen:
            notes.odd("repeated texts", f"scene {row.scene_id}, object {row.object_id}")
        seen.add(key)


def _add(row: Record, path: Path, name: str, notes: Notes) -> None:
    where = f"{path}, {name}"
    text = fields.text(row, "description")
    if any(isinstance(row[key], int) for key in ("object_id", "ann_id")):
        notes.odd("ids that are numbers", where)
    if isinstance(row.get("token"), str):
        notes.odd("lists as text", where)
    notes.odd_text(text, where)
    found = Utterance(
        fields.text(row, "scene_id"), text, fields.identifier(row, "object_id"), object_name(row)
    )
    notes.annotations.counts[found.object_name] += 1
    notes.annotations.rows.append(found)
