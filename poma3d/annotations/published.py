"""How many rows the published splits have: a file of another split than its name says is found by them.

Counted in the published files, except where noted. Nr3D and Sr3D are counted after their default filter.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from poma3d.annotations.formats.parts import Opened, Part
from poma3d.annotations.notes import Notes
from poma3d.annotations.rows import Annotations

SPLIT_WORDS = ("test_wo_obj", "test_w_obj", "train", "val", "test")
SWAPPED = {"val", "test"}


@dataclass(frozen=True)
class Split:
    """A published split."""

    kind: str
    name: str
    rows: int
    scenes: int


SPLITS = (
    Split("sqa3d", "train", 26_623, 518),  # rows as stated by its authors
    Split("sqa3d", "val", 3_261, 65),
    Split("sqa3d", "test", 3_519, 67),
    Split("scanqa", "train", 25_563, 562),  # from the stated totals
    Split("scanqa", "val", 4_675, 71),
    Split("scanqa", "test_w_obj", 4_976, 70),
    Split("scanqa", "test_wo_obj", 6_149, 97),
    Split("scanrefer", "test", 5_410, 97),
    Split("nr3d", "test", 7_485, 130),
    Split("sr3d", "test", 17_726, 255),
)
COUNTED = {"sqa3d": Part.SQA3D_QUESTIONS, "scanqa": Part.SCANQA, "scanrefer": Part.SCANREFER}
"""Kind -> the part whose files are counted one by one; the others are counted together."""


def split_of(kind: str, rows: int, scenes: int) -> str:
    """The name of the split with these counts; empty where there is none."""
    return next((s.name for s in SPLITS if (s.kind, s.rows, s.scenes) == (kind, rows, scenes)), "")


def named_split(path: Path) -> str:
    """The split that a file name speaks of; empty where it names none."""
    words = "|".join(SPLIT_WORDS)
    found = re.findall(rf"(?<![a-z])({words})(?![a-z])", path.name.lower())
    return found[-1] if found else ""


def note_splits(annotations: Annotations, files: Sequence[Opened]) -> None:
    """Write down which published split each file is, and what contradicts its name."""
    kind = annotations.kind
    if kind not in {split.kind for split in SPLITS}:
        return
    notes = Notes.on(annotations)
    if kind not in COUNTED:
        scenes = len({row.scene_id for row in annotations.rows})
        _note(notes, kind, [each.path for each in files], len(annotations.rows), scenes)
        return
    for each in files:
        if each.part is COUNTED[kind]:
            rows = each.content["questions"] if isinstance(each.content, dict) else each.content
            _note(notes, kind, [each.path], len(rows), _scenes(rows))


def _scenes(rows: Iterable[Any]) -> int:
    return len({str(row.get("scene_id")) for row in rows if isinstance(row, dict)})


def _note(notes: Notes, kind: str, paths: Sequence[Path], rows: int, scenes: int) -> None:
    split = split_of(kind, rows, scenes)
    if not split:
        notes.odd("unlike the published split", f"{paths[0]}: {rows} rows in {scenes} scenes", len(paths))
        return
    for path in paths:
        notes.annotations.splits[str(path)] = split
        named = named_split(path)
        if named and named != split:
            swapped = kind == "sqa3d" and {named, split} == SWAPPED
            why = "; the first commit of SQA3D's repository has the two swapped" if swapped else ""
            reason = (
                f"named {named}, but it has the {rows} rows in {scenes} scenes of the published {split} split"
            )
            notes.problem(path, "", f"{reason}{why}", kept=True)
