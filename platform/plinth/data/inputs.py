"""What a data set was built from, so that a change of its inputs is noticed later.

Files are recorded in groups: a scan, a tar, the images of some lines. Of each group two digests are kept:

    stamp     names, sizes, and times of change (of objects in a store: their ETags). Costs no reading.
    content   names, sizes and bytes, so that a copied or touched file is still the same one

A group with the same stamp is taken for unchanged. With another stamp its content decides, and where the
content is not known (`content` is None), it counts as changed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from plinth.digests import text_digest
from plinth.storage import MissingKeyError, Storage

DIGEST_BYTES = 16
READ_BYTES = 8 << 20
PICTURES = (".png", ".jpg", ".jpeg", ".pgm", ".webp")
"""A scan has thousands: without `whole` they are not opened, since an edit changes their size."""
SAMPLED_ABOVE_BYTES = 4 << 20
SAMPLES, SAMPLE_BYTES = 64, 4096
"""Without `whole`, this many evenly spread parts of a larger file are read, its two ends among them."""


@dataclass(frozen=True)
class InputFile:
    """A file or object."""

    storage: Storage
    key: str
    name: str
    """By which it is known in the digests: relative, so that a copied folder is the same."""


@dataclass(frozen=True)
class InputRecord:
    """A group of files as it was."""

    files: int
    size_bytes: int
    stamp: str
    content: str | None
    """None where it was not read."""
    whole: bool
    """Whether `content` covers every byte."""


def files_below(paths: Sequence[Path], output: Storage) -> list[InputFile]:
    """The files among local `paths`, and all below the folders among them, in a fixed order, without those
    of `output`: a data set may lie beside its scans."""
    found = []
    for path in paths:
        if path.is_dir():
            storage = Storage.from_uri(path)
            found += [InputFile(storage, key, f"{path.name}/{key}") for key, _ in storage.list()]
        else:
            found.append(InputFile(Storage.from_uri(path.parent), path.name, path.name))
    return [file for file in found if not _is_below(file, output)]


def record(files: Sequence[InputFile], whole: bool, read: bool = True) -> InputRecord:
    """What a group of files is now; one that is not there is recorded as such.

    Args:
        whole: read every byte for the content.
        read: whether to read any.

    Raises:
        StorageError: a file cannot be read.
    """
    states = [_state(file) for file in files]
    sizes = [size for size, _ in states]
    names = [file.name for file in files]
    stamp = text_digest(repr(list(zip(names, states, strict=True))), DIGEST_BYTES)
    content = _content(files, sizes, whole) if read or whole else None
    return InputRecord(len(files), sum(max(size, 0) for size in sizes), stamp, content, whole)


def is_same(before: InputRecord, files: Sequence[InputFile], read_all: bool) -> bool:
    """Whether a group is what it was.

    Args:
        read_all: do not believe the stamp where the content is known.

    Raises:
        StorageError: a file cannot be read.
    """
    now = record(files, whole=False, read=False)
    same_stamp = now.stamp == before.stamp
    if before.content is None or (same_stamp and not read_all):
        return same_stamp
    if (now.files, now.size_bytes) != (before.files, before.size_bytes):
        return False
    return record(files, before.whole).content == before.content


def _is_below(file: InputFile, output: Storage) -> bool:
    return output.is_local and Path(output.root) in Path(file.storage.root, file.key).parents


def _state(file: InputFile) -> tuple[int, str]:
    try:
        return file.storage.state(file.key)
    except (MissingKeyError, ValueError):  # not there, or a path that leaves the folder
        return -1, ""


def _content(files: Sequence[InputFile], sizes: Sequence[int], whole: bool) -> str:
    digest = hashlib.blake2b(digest_size=DIGEST_BYTES)
    for file, size in zip(files, sizes, strict=True):
        digest.update(f"{file.name}\0{size}\0".encode(errors="surrogateescape"))
        for start, stop in _parts(file.name, size, whole):
            digest.update(file.storage.read_range(file.key, start, stop))
    return digest.hexdigest()


def _parts(name: str, size: int, whole: bool) -> list[tuple[int, int]]:
    """Ranges of a file that are read for its content."""
    if whole or size <= SAMPLED_ABOVE_BYTES:
        skipped = not whole and PurePosixPath(name).suffix.lower() in PICTURES
        return [] if skipped else [(s, min(s + READ_BYTES, size)) for s in range(0, size, READ_BYTES)]
    last = size - SAMPLE_BYTES
    return [(i * last // (SAMPLES - 1), i * last // (SAMPLES - 1) + SAMPLE_BYTES) for i in range(SAMPLES)]
