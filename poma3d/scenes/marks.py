"""How a layout of files is told from others: the marks of its scans, for `poma ingest --detect`.

A reader declares a `title` and its `marks`, besides `find`, which lists the scans below a folder:

    class MyReader(ScanReader[MyConfig, Scan]):
        title = "My layout, as released"
        marks = (
            Mark("depth", ("depth/*.png",)),
            Mark("poses", ("pose/*.txt", "poses.txt")),                   # any of these
            Mark("captions", ("captions.json",), needed=False),
            Mark("intrinsics", ("K.txt", "../K.txt"), instead="intrinsics"),  # or this key of the config
        )

and is entered in `READERS` of `jobs/ingest/config.py`. That is all: `look` does the rest for every reader.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path
from typing import Protocol

from poma3d.scenes.files import folders_below

SCANS_LOOKED_AT = 20
"""Scans whose files are compared with the marks, spread over all."""
NAMES_LOOKED_AT = 20_000
"""Files of a folder that are compared with all marks where no layout fits."""


@dataclass(frozen=True)
class Mark:
    """Files that a scan of a layout holds."""

    what: str
    """What they are, in a word or two: depth, colour, poses."""
    patterns: tuple[str, ...]
    """Globs relative to the scan's folder, of which one must match; `{scan}` is the folder's name."""
    needed: bool = True
    """The layout cannot be read without."""
    instead: str = ""
    """Key of the reader's config that can stand for the files; empty where none can."""
    advice: str = ""
    """What the key should hold."""


class HasMarks(Protocol):
    """A reader that can be detected."""

    title: str
    marks: Sequence[Mark]

    def find(self, root: Path) -> list[str]:
        """Ids of the scans below a folder, or ValueError."""

    def folder(self, scene_id: str) -> Path:
        """Folder of a scan."""


@dataclass(frozen=True)
class Seen:
    """What one layout found in a folder."""

    scans: list[str]
    """Ids; none where the layout is not there."""
    missing: dict[Mark, list[str]] = field(default_factory=dict)
    """Mark -> the scans, of those looked at, that lack it."""
    looked_at: int = 0
    """Scans whose files were compared with the marks."""

    @property
    def complete(self) -> bool:
        """No scan that was looked at lacks what is needed and has nothing instead."""
        return bool(self.scans) and not any(mark.needed and not mark.instead for mark in self.missing)


def look(reader: HasMarks, root: Path) -> Seen:
    """The scans of one layout below a folder, and what they lack."""
    try:
        scans = reader.find(root)
    except (ValueError, OSError):
        return Seen([])
    some = scans[:: max(1, len(scans) // SCANS_LOOKED_AT)]
    missing: dict[Mark, list[str]] = {}
    for scene_id in some:
        folder = reader.folder(scene_id)
        for mark in reader.marks:
            if not any(_matches(folder, pattern) for pattern in mark.patterns):
                missing.setdefault(mark, []).append(scene_id)
    return Seen(scans, missing, len(some))


def names_below(root: Path) -> list[str]:
    """Paths relative to a folder, at most `NAMES_LOOKED_AT`; names that begin with a dot are left out."""
    return list(itertools.islice(_walk(root), NAMES_LOOKED_AT))


def nearest_mark(marks: Sequence[Mark], names: Sequence[str]) -> list[tuple[Mark, str]]:
    """The marks of which a file is there, wherever it lies, each with the first such file."""
    found = []
    for mark in marks:
        patterns = [pattern.removeprefix("../").replace("{scan}", "*") for pattern in mark.patterns]
        hit = next((n for n in names if any(_ends_like(n, pattern) for pattern in patterns)), None)
        if hit is not None:
            found.append((mark, hit))
    return found


def _matches(folder: Path, pattern: str) -> bool:
    """Whether a visible file of the scan matches."""
    pattern = pattern.replace("{scan}", folder.absolute().name)
    if pattern.startswith("../"):
        folder, pattern = folder.absolute().parent, pattern.removeprefix("../")
    return any(not path.name.startswith(".") for path in folder.glob(pattern))


def _ends_like(name: str, pattern: str) -> bool:
    return fnmatch(name, pattern) or fnmatch(name, f"*/{pattern}")


def _walk(root: Path) -> Iterator[str]:
    for folder in folders_below(root):
        for path in sorted(folder.iterdir()):
            if not path.name.startswith(".") and not path.is_dir():
                yield path.relative_to(root).as_posix()
