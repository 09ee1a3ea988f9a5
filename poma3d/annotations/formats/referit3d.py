"""Nr3D and Sr3D: CSV tables whose columns differ in order and number, read by name; or JSON lines with the
same keys.

    scan_id, utterance, target_id, instance_type, stimulus_id, tokens, mentions_target_class, correct_guess,
    ...

Booleans are text in several spellings, lists are Python literals. `tokens` are spell-corrected and re-spelt:
the text is `utterance`. The default filter of their code keeps rows that mention the target's class and have
at most 24 tokens, in training and test alike; rows that the listener guessed wrong stay.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from poma3d.annotations.ceiling import room_of
from poma3d.annotations.formats import fields
from poma3d.annotations.formats.files import Record, json_lines, read_table
from poma3d.annotations.formats.joined import numbered
from poma3d.annotations.formats.parts import TABLE_SUFFIXES, Opened
from poma3d.annotations.formats.scanrefer import note_runs
from poma3d.annotations.notes import BadRow, Notes
from poma3d.annotations.rows import Annotations, Utterance

MOST_TOKENS = 24
NEEDED = ("scan_id", "utterance", "target_id", "instance_type", "tokens")
STIMULUS = 4
"""Dashes at which a stimulus_id is split: scan, type, objects of that type, target, distractors."""
UNMENTIONED = "does not mention the target's class"
LONG = f"more than {MOST_TOKENS} tokens"
WORDS = re.compile(r"[a-z0-9]+")


def read_referit3d(kind: str, files: Sequence[Opened]) -> Annotations:
    """The utterances that the default filter keeps, in file order.

    Args:
        kind: `nr3d` or `sr3d`.
    """
    notes = Notes(kind)
    for each in files:
        for name, row in _rows(each):
            try:
                if isinstance(row, BadRow):
                    raise row
                _add(fields.record(row), each.path, name, notes)
            except BadRow as error:
                notes.problem(each.path, name, error)
    note_runs(notes)
    note_ceiling(notes)
    return notes.annotations


def _rows(opened: Opened) -> Iterable[tuple[str, Any]]:
    path = opened.path
    if path.suffix.lower() in TABLE_SUFFIXES:
        return ((f"line {line}", row) for line, row in read_table(path, NEEDED))
    if opened.content is not None:
        return numbered(opened.content)
    return ((f"line {line}", row) for line, row in json_lines(path))


def note_ceiling(notes: Notes) -> None:
    """Texts that more than one scan, or room, has: no retrieval can tell them apart."""
    scans: defaultdict[str, set[str]] = defaultdict(set)
    rescans: defaultdict[str, set[str]] = defaultdict(set)
    for row in notes.annotations.utterances:
        scans[row.text].add(row.scene_id)
        rescans[room_of(row.scene_id)].add(row.scene_id)
    for row in notes.annotations.utterances:
        owners = scans[row.text]
        if len(owners) > 1:
            notes.odd("texts of several scans", f"scene {row.scene_id}")
            if len({room_of(owner) for owner in owners}) > 1:
                notes.odd("texts of several rooms", f"scene {row.scene_id}")
    for room, found in rescans.items():
        if len(found) > 1:
            notes.odd("rooms scanned several times", f"{room} ({len(found)} scans)")


def _add(row: Record, path: Path, name: str, notes: Notes) -> None:
    where = f"{path}, {name}"
    annotations = notes.annotations
    scene_id, text = fields.text(row, "scan_id"), fields.text(row, "utterance")
    target, kind = fields.identifier(row, "target_id"), fields.text(row, "instance_type")
    tokens = [str(token) for token in fields.written_list(fields.present(row, "tokens"), "tokens")]
    mentioned = fields.boolean(row, "mentions_target_class") if "mentions_target_class" in row else True
    guessed = fields.boolean(row, "correct_guess") if "correct_guess" in row else True
    if not mentioned or len(tokens) > MOST_TOKENS:
        annotations.left_out[LONG if mentioned else UNMENTIONED] += 1
        return
    if not guessed:
        notes.odd("wrong guess", where)
    if WORDS.findall("".join(tokens).lower()) != WORDS.findall("".join(text.lower().split())):
        notes.odd("tokens respelt", where)
    if "stimulus_id" in row and not _agrees(fields.text(row, "stimulus_id"), scene_id, target, kind):
        notes.odd("stimulus names another object", where)
    notes.odd_text(text, where)
    found = Utterance(scene_id, text, target, kind.replace("_", " "))
    annotations.counts[found.object_name] += 1
    annotations.rows.append(found)


def _agrees(stimulus: str, scene_id: str, target: str, kind: str) -> bool:
    parts = stimulus.split("-", STIMULUS)
    if len(parts) < STIMULUS:
        return False
    same_kind = parts[1].replace("_", " ") == kind.replace("_", " ")
    return parts[0] == scene_id and same_kind and parts[3] == target
