"""The lines of a stage's metrics, one JSON object per step, in parts of a bounded size.

    <stage>/metrics-parts/000000.jsonl ...   what is full: written once, never again
    <stage>/metrics.jsonl                    the lines since then, in a short run all

Only the last part is copied with each checkpoint, so a checkpoint costs the same at every step. A line may
stand in two parts after a kill; the later one counts.
"""

from __future__ import annotations

import contextlib
import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from plinth.engine.process import on_all_ranks
from plinth.observe.line_file import LineFile
from plinth.storage import Storage
from plinth.world import World

LINES_KEY = "metrics.jsonl"
PARTS_FOLDER = "metrics-parts"
PART_BYTES = 4 << 20
"""A part that is larger at a checkpoint is full."""

log = logging.getLogger(__name__)

Line = dict[str, Any]


@dataclass(frozen=True)
class _Flushed:
    """What a copy to storage takes."""

    full: tuple[Path, ...] = ()
    last: Path | None = None
    size: int = 0
    """Bytes of the last part."""
    waiting: bytes = b""
    """Lines that follow them, which the disk had no room for."""


class StepLines:
    """The lines of a stage on this machine, and their copy in storage.

    Args:
        storage: folder of the stage in the run.
        local: folder on this machine.
        first_step: lines from it on, of a run that died, are dropped.
        part_bytes: see `PART_BYTES`.
    """

    def __init__(self, storage: Storage, local: Path, first_step: int, part_bytes: int = PART_BYTES) -> None:
        self._storage, self._folder, self._part_bytes = storage, local / PARTS_FOLDER, part_bytes
        self._number, kept = _resumed(storage, first_step)
        self._file = LineFile(self._path(self._number), "".join(kept))
        self._full: tuple[Path, ...] = ()
        self._flushed = _Flushed()

    def add(self, line: str) -> None:
        """Write a line; an OSError leaves it waiting in memory."""
        self._file.add(line)

    def write(self) -> None:
        """Write what waits."""
        self._file.write()

    def flush(self) -> None:
        """The next `sync` copies all lines up to now."""
        if self._file.size >= self._part_bytes and not self._file.waiting:
            self._file.close()
            self._full += (self._path(self._number),)
            self._number += 1
            self._file = LineFile(self._path(self._number), "")
        self._flushed = _Flushed(self._full, self._path(self._number), self._file.size, self._file.waiting)

    def sync(self) -> None:
        """Copy what was flushed to storage. Another thread may add lines meanwhile."""
        flushed = self._flushed
        for path in flushed.full:
            if path.exists():
                self._storage.upload(path, f"{PARTS_FOLDER}/{path.name}")
                path.unlink()
        on_disk = b""
        if flushed.size and flushed.last is not None:
            with flushed.last.open("rb") as lines:
                on_disk = lines.read(flushed.size)
        self._storage.write(LINES_KEY, on_disk + flushed.waiting)

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _path(self, number: int) -> Path:
        return self._folder / f"{number:06}.jsonl"


def _resumed(storage: Storage, first_step: int) -> tuple[int, list[str]]:
    """The number of the part that is written next, and the lines before `first_step` that belong into it.

    Full parts that end before it stay as they are; a part that goes beyond it is taken apart.
    """
    keys = part_keys(storage)
    stay, kept = 0, list[Line]()
    for number, key in enumerate(keys):
        lines = parsed(storage.read(key).decode(errors="replace")) if first_step else []
        if lines and number == stay and lines[-1]["step"] < first_step:
            stay += 1
        else:
            kept += lines
    if first_step and storage.exists(LINES_KEY):
        kept += parsed(storage.read(LINES_KEY).decode(errors="replace"))
    found = [json.dumps(line) + "\n" for line in in_order(kept) if line["step"] < first_step]
    if keys[stay:]:
        storage.write(LINES_KEY, "".join(found).encode())
        for key in keys[stay:]:
            storage.delete(key)
    return stay, found


def part_keys(storage: Storage) -> list[str]:
    """Keys of the full parts of a stage, in order."""
    return [key for key, _ in storage.list(PARTS_FOLDER)]


def recover_lines(world: World, storage: Storage, local: Path) -> None:
    """Copy the lines of a process that died on one of these machines to storage: a checkpoint recovered from
    its disk may be of a later step than the last copy of the lines. Call it on all ranks.

    Args:
        storage: folder of the stage in the run.
        local: folder of its metrics on this machine, as `StepLines` has it.
    """

    def left() -> list[Line]:
        return [line for path in sorted((local / PARTS_FOLDER).glob("*.jsonl")) for line in _of(path)]

    found = {line["step"]: line for of_rank in on_all_ranks(world, left) for line in of_rank}

    def merge() -> None:
        if world.rank:
            return
        known = {line["step"] for line in read_lines(storage)}
        if found.keys() - known:
            last = storage.read(LINES_KEY).decode(errors="replace") if storage.exists(LINES_KEY) else ""
            new = [line for step, line in found.items() if step not in known]
            merged = in_order([*new, *parsed(last)])
            storage.write(LINES_KEY, "".join(json.dumps(line) + "\n" for line in merged).encode())

    on_all_ranks(world, merge)


def _of(path: Path) -> list[Line]:
    with contextlib.suppress(OSError):
        return parsed(path.read_text(errors="replace"))
    return []


def parsed(text: str) -> list[Line]:
    """The lines that are whole: the first and the last one may be cut."""
    lines = []
    for line in text.split("\n"):
        with contextlib.suppress(ValueError, RecursionError):
            found = json.loads(line)
            lines += [found] if isinstance(found, dict) and isinstance(found.get("step"), int) else []
    return lines


def read_lines(storage: Storage) -> list[Line]:
    """The steps of a stage in order; empty where there is none. Torn lines are left out with a warning: they
    decide nothing. Of a long run they take hundreds of megabytes: pages thin each part (`read_part`)."""
    keys = [*part_keys(storage), *([LINES_KEY] if storage.exists(LINES_KEY) else [])]
    lines = [line for key in keys for line in read_part(storage, key)]
    return lines if len(keys) < 2 else in_order(lines)


def read_part(storage: Storage, key: str) -> list[Line]:
    """The lines of one part of a stage, as they stand there.

    Args:
        storage: the stage's folder.
        key: `LINES_KEY`, or a full part's.
    """
    text = storage.read(key).decode(errors="replace")
    lines = parsed(text)
    torn = sum(bool(line.strip()) for line in text.split("\n")) - len(lines)
    if torn:
        log.warning("%s/%s: %d torn lines are left out", storage.uri, key, torn)
    return lines


def in_order(lines: Sequence[Line]) -> list[Line]:
    """By step; of two of one step the later one."""
    return [line for _, line in sorted({line["step"]: line for line in lines}.items())]
