"""`poma ingest --detect FOLDER`: which layout of scans lies there, what it lacks, and the job file for it.

Every built-in reader that has `marks` takes part (`poma3d.scenes.marks`, which tells how to add one).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import Any

import yaml

from jobs.display.text import some
from jobs.ingest.config import READERS, ReaderConfig
from plinth.errors import ConfigError, DataError
from poma3d.scenes.marks import HasMarks, Mark, Seen, look, names_below, nearest_mark

"""Scans that are named of a list."""


@dataclass(frozen=True)
class Found:
    """A layout that is there."""

    kind: str
    reader: HasMarks
    seen: Seen


def detect(folder: Path, layout: str | None, write: Path | None) -> int:
    """Say what lies in `folder` and write the job file; returns the exit code.

    Raises:
        ConfigError: no such folder, several layouts, a layout that is not there, or a job file that is.
        DataError: no layout fits; says which comes nearest.
    """
    if not folder.is_dir():
        raise ConfigError(f"{folder}: no such folder.", "Name the folder that holds the scans.")
    readers = {kind: reader for kind in READERS if (reader := _reader(kind, folder)) is not None}
    if layout is not None and layout not in readers:
        raise ConfigError(f"--layout={layout}: no such layout.", f"One of {', '.join(readers)}.")
    found = [Found(kind, reader, look(reader, folder)) for kind, reader in readers.items()]
    found = _not_explained([each for each in found if each.seen.scans])
    for each in found:
        _say(each, folder)
    chosen = _choose(found, layout, folder, readers)
    path = write or Path(f"ingest_{chosen.kind}.yaml")
    if path.exists():
        raise ConfigError(f"{path} exists already.", "Give another path with --write.")
    try:
        path.write_text(_job(chosen, folder), encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{path} cannot be written ({error}).", "Give another path with --write.") from None
    print(f"wrote {path}; next: poma ingest {path} output=FOLDER_OR_URI")
    return 0


def _reader(kind: str, folder: Path) -> HasMarks | None:
    """The reader of a kind with `folder` as its root; None for one that has no marks."""
    module, _, name = READERS[kind].partition(":")
    known: Any = getattr(import_module(module), name)
    if not getattr(known, "marks", ()):
        return None
    reader: HasMarks = known(replace(getattr(ReaderConfig(), kind), root=str(folder)))
    return reader


def _choose(found: list[Found], layout: str | None, folder: Path, readers: dict[str, HasMarks]) -> Found:
    """The layout to write a job for."""
    if layout is not None:
        found = [each for each in found if each.kind == layout]
    if not found:
        wanted = readers if layout is None else {layout: readers[layout]}
        raise DataError(_nothing(folder, wanted), "See the table of layouts in docs/your-data.md.")
    complete = [each for each in found if each.seen.complete]
    if len(complete or found) > 1:
        kinds = " or ".join(f"--layout {each.kind}" for each in complete or found)
        raise ConfigError(f"{folder}: more than one layout fits.", f"Say which one: {kinds}.")
    return (complete or found)[0]


def _not_explained(found: list[Found]) -> list[Found]:
    """Without layouts that lack something where another lacks nothing in the same folders.

    A folder `depth/` alone is a sign of ScanNet, and is in many recordings of other layouts.
    """
    explained = {folder for each in found if each.seen.complete for folder in _folders(each)}
    return [each for each in found if each.seen.complete or not _folders(each) <= explained]


def _folders(each: Found) -> set[Path]:
    return {each.reader.folder(scene_id).resolve() for scene_id in each.seen.scans}


def _say(each: Found, folder: Path) -> None:
    seen = each.seen
    print(f"{each.kind}: {each.reader.title}: {len(seen.scans)} scans in {folder}: {some(seen.scans)}")
    for mark, scans in seen.missing.items():
        need = "missing" if mark.needed else "without (optional)"
        instead = f"; or set reader.{each.kind}.{mark.instead}: {mark.advice}" if mark.instead else ""
        print(
            f"  {need}: {mark.what} ({' or '.join(mark.patterns)}) in {len(scans)} of {seen.looked_at} scans "
            f"looked at: {some(scans)}{instead}"
        )


def _nothing(folder: Path, readers: dict[str, HasMarks]) -> str:
    """What was looked for, and what came nearest."""
    names = names_below(folder)
    nearest = max(readers.items(), key=lambda item: _share(item[1], names))
    hits = nearest_mark(nearest[1].marks, names)
    looked = "; ".join(f"{kind}: {_marks_of(reader.marks)}" for kind, reader in readers.items())
    near = "Nothing in it has a name of any of them"
    if hits:
        lacks = [mark for mark in nearest[1].marks if mark.needed and mark not in [hit for hit, _ in hits]]
        near = (
            f"Nearest is {nearest[0]}: there is {', '.join(f'{mark.what} ({name})' for mark, name in hits)}"
            + (f"; there is no {_marks_of(lacks)}" if lacks else "; but not in the folders that it expects")
        )
    return f"{folder}: no layout fits its {len(names)} files. Looked for {looked}. {near}."


def _share(reader: HasMarks, names: list[str]) -> float:
    """Share of the needed marks that are there."""
    needed = [mark for mark in reader.marks if mark.needed]
    return len(nearest_mark(needed, names)) / len(needed)


def _marks_of(marks: Sequence[Mark]) -> str:
    return ", ".join(f"{mark.what} ({' or '.join(mark.patterns)})" for mark in marks if mark.needed)


def _job(chosen: Found, folder: Path) -> str:
    """The text of the job file."""
    lines = [f"# {chosen.reader.title}: {len(chosen.seen.scans)} scans, found by poma ingest --detect."]
    for mark in chosen.seen.missing:
        advice = f" Set reader.{chosen.kind}.{mark.instead}: {mark.advice}." if mark.instead else ""
        lines += [f"# Without {mark.what} ({' or '.join(mark.patterns)}).{advice}"]
    job = {
        "kind": "ingest",
        "output": "???",
        "reader": {"kind": chosen.kind, chosen.kind: {"root": str(folder.resolve())}},
    }
    return "\n".join(lines) + "\n" + yaml.safe_dump(job, sort_keys=False, allow_unicode=True)
