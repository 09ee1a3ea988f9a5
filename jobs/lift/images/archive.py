"""WebDataset tar files: the files of a sample stand together and share their name up to the first dot.

    000123.jpg   000123.txt or 000123.json {"caption": ...}   [000123.depth.png and "intrinsics" in the JSON]

A member whose header is damaged costs that member: reading continues at the next whole header, and
what was skipped is a bad record. A tar that ends too early is one too.
"""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from jobs.lift.images.config import ImageSetConfig
from jobs.lift.images.sets import (
    MIN_READ_BYTES,
    VALUE_CHARACTERS,
    BadRecord,
    ImageRecord,
    InputPiece,
    file_pieces,
    numbers,
    open_object,
    own_file,
    set_folder,
    texts,
)
from plinth.data.inputs import InputFile
from plinth.storage import StorageOptions

SUFFIX = ".tar"
IMAGE_SUFFIXES = ("jpg", "jpeg", "png", "webp")
READ_BYTES = 64 << 20
"""Images of a part are fetched together in ranges of about this size."""

Extent = tuple[int, int]
"""Offset and size of a member's bytes in the tar."""


class ArchiveSet:
    """`jobs.lift.images.sets.ImageSet` of tar files."""

    def __init__(self, config: ImageSetConfig, options: StorageOptions) -> None:
        self.config, self.options = config, options

    def pieces(self) -> list[InputPiece]:
        """One per tar file."""
        return file_pieces(self.config, self.options, SUFFIX)

    def files(self, piece: InputPiece) -> list[InputFile]:
        """The tar file."""
        return own_file(piece, SUFFIX)

    def scan(self, piece: InputPiece) -> Iterator[ImageRecord | BadRecord]:
        """Samples in the order of the tar, read front to back."""
        storage, _ = set_folder(self.config, self.options, SUFFIX)
        with open_object(storage, piece.key) as file:
            sample: list[_Member] = []
            for found in _members(file, piece):
                if isinstance(found, BadRecord):
                    yield found
                    continue
                if sample and found.stem != sample[0].stem:
                    yield self._from_members(piece, sample)
                    sample = []
                sample.append(found)
            if sample:
                yield self._from_members(piece, sample)

    def read(self, piece: InputPiece, locators: Sequence[str]) -> Iterator[ImageRecord]:
        """The samples again; neighbours in one request."""
        storage, _ = set_folder(self.config, self.options, SUFFIX)
        extents: list[dict[str, Extent]] = [json.loads(locator) for locator in locators]
        at = 0
        while at < len(locators):
            start = min(offset for offset, _ in extents[at].values())
            stop, end = start, at
            while end < len(locators) and (end == at or stop - start < READ_BYTES):
                stop = max(stop, *(offset + size for offset, size in extents[end].values()))
                end += 1
            content = memoryview(storage.read_range(piece.key, start, stop))
            for locator, members in zip(locators[at:end], extents[at:end], strict=True):
                parts = {k: bytes(content[o - start : o - start + n]) for k, (o, n) in members.items()}
                record = self._record(piece, locator, parts)
                if isinstance(record, ImageRecord):
                    yield record
            at = end

    def _from_members(self, piece: InputPiece, sample: Sequence[_Member]) -> ImageRecord | BadRecord:
        members = {member.suffix: member for member in sample}
        image = next((suffix for suffix in members if suffix in IMAGE_SUFFIXES), None)
        if image is None:
            return BadRecord(f"{piece.name}/{sample[0].stem}", "no image", f"only {', '.join(members)}")
        others = [s for s in ("txt", "json", f"{self.config.depth}.png") if s in members]
        wanted = {suffix: members[suffix] for suffix in (image, *others)}
        locator = json.dumps({suffix: (m.offset, len(m.content)) for suffix, m in wanted.items()})
        return self._record(piece, locator, {suffix: m.content for suffix, m in wanted.items()})

    def _record(self, piece: InputPiece, locator: str, parts: dict[str, bytes]) -> ImageRecord | BadRecord:
        image = next(suffix for suffix in parts if suffix in IMAGE_SUFFIXES)
        place = f"{piece.name} at byte {json.loads(locator)[image][0]}"
        try:
            text = parts["txt"].decode("utf-8-sig") if "txt" in parts else None
            fields = json.loads(parts["json"]) if "json" in parts else {}
        except ValueError as error:  # not UTF-8, not JSON
            return BadRecord(place, "caption is no text", str(error)[:VALUE_CHARACTERS])
        if not isinstance(fields, dict):
            return BadRecord(place, "caption is no text", "its JSON is not {key: value}")
        captions = [text] if text is not None else texts(fields.get(self.config.caption))
        depth = parts.get(f"{self.config.depth}.png")
        intrinsics = numbers(fields.get(self.config.intrinsics))
        return ImageRecord(place, locator, parts[image], captions, depth, intrinsics)


@dataclass(frozen=True)
class _Member:
    """A file of a sample: its name in two parts, and its bytes, which begin at `offset` of the tar."""

    stem: str
    suffix: str
    offset: int
    content: bytes


def _members(file: io.BufferedReader, piece: InputPiece) -> Iterator[_Member | BadRecord]:
    """All files in a tar, front to back, and the damaged stretches between them."""
    expected = 0
    try:
        # With `ignore_zeros` a damaged header is passed over block by block until one is whole.
        for member in tarfile.TarFile(fileobj=file, mode="r", ignore_zeros=True):
            yield from _gap(file, piece, expected, member.offset)
            blocks = -(-member.size // tarfile.BLOCKSIZE) if member.isreg() else 0
            expected = member.offset_data + blocks * tarfile.BLOCKSIZE
            if not member.isreg():
                continue
            file.seek(member.offset_data)
            content = file.read(member.size)
            if len(content) != member.size:
                name = f"{member.name}: {len(content)} of {member.size} bytes"
                yield BadRecord(f"{piece.name} at byte {member.offset}", "broken archive", name)
                continue
            folder, _, name = member.name.rpartition("/")
            stem, _, suffix = name.partition(".")
            yield _Member(f"{folder}/{stem}" if folder else stem, suffix.lower(), member.offset_data, content)
    except tarfile.TarError as error:
        yield BadRecord(f"{piece.name} at byte {expected}", "broken archive", str(error))
        return
    yield from _gap(file, piece, expected, file.seek(0, io.SEEK_END))


def _gap(file: io.BufferedReader, piece: InputPiece, start: int, stop: int) -> Iterator[BadRecord]:
    """A bad record when the bytes [start, stop), which belong to no member, are not all zero."""
    at = file.seek(start)
    while at < stop:
        content = file.read(min(MIN_READ_BYTES, stop - at))
        if not content:
            return
        if content.count(0) != len(content):
            lost = f"{stop - start} bytes without a readable header"
            yield BadRecord(f"{piece.name} at byte {start}", "broken archive", lost)
            return
        at += len(content)
