"""WebDataset tar files: the files of a sample stand together and share their name up to the first dot.

    000123.jpg   000123.txt or 000123.json {"caption": ...}   [000123.depth.png and "intrinsics" in the JSON]

How a damaged tar is read stands in `jobs.lift.images.tar_members`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from jobs.lift.images.sets import (
    VALUE_CHARACTERS,
    BadRecord,
    FileSet,
    ImageRecord,
    InputPiece,
    numbers,
    open_object,
    texts,
)
from jobs.lift.images.tar_members import Member, members_of

SUFFIX = ".tar"
IMAGE_SUFFIXES = ("jpg", "jpeg", "png", "webp", "avif", "heic", "heif", "tif", "tiff", "bmp", "gif")
READ_BYTES = 64 << 20
"""Images of a part are fetched together in ranges of about this size."""

Extent = tuple[int, int]
"""Offset and size of a member's bytes in the tar."""


class ArchiveSet(FileSet):
    """`jobs.lift.images.sets.ImageSet` of tar files."""

    suffix = SUFFIX

    def scan(self, piece: InputPiece) -> Iterator[ImageRecord | BadRecord]:
        """Samples in the order of the tar, read front to back."""
        storage = self.storage()
        with open_object(storage, piece.key) as file:
            for sample in _samples(members_of(file, piece)):
                if isinstance(sample, BadRecord):
                    yield sample
                else:
                    yield self._from_members(piece, sample)

    def read(self, piece: InputPiece, locators: Sequence[str]) -> Iterator[ImageRecord]:
        """The samples again; neighbours in one request."""
        storage = self.storage()
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

    def _from_members(self, piece: InputPiece, sample: _Sample) -> ImageRecord | BadRecord:
        members = {member.suffix: member for member in sample.members}
        image = next((suffix for suffix in members if suffix in IMAGE_SUFFIXES), None)
        if image is None:
            return BadRecord(f"{piece.name}/{sample.stem}", "no image", sample.without_image())
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
        except (ValueError, RecursionError) as error:  # not UTF-8, not JSON, nested without end
            return BadRecord(place, "caption is no text", str(error)[:VALUE_CHARACTERS])
        if not isinstance(fields, dict):
            return BadRecord(place, "caption is no text", "its JSON is not {key: value}")
        captions = [text] if text is not None else texts(fields.get(self.config.caption))
        depth = parts.get(f"{self.config.depth}.png")
        intrinsics = numbers(fields.get(self.config.intrinsics))
        return ImageRecord(place, locator, parts[image], captions, depth, intrinsics)


@dataclass
class _Sample:
    """Members that stand together and share their stem."""

    members: list[Member]
    is_apart: bool
    """Whether others of its stem stand elsewhere, before."""

    @property
    def stem(self) -> str:
        return self.members[0].stem

    def without_image(self) -> str:
        """Why there is no image, where a rule of WebDataset's is the cause."""
        only = f"only {', '.join(member.suffix for member in self.members)}"
        if self.is_apart:
            return f"{only}: other files of this name stand elsewhere; those of a sample must stand together"
        if any(member.suffix.rpartition(".")[2] in IMAGE_SUFFIXES for member in self.members):
            return f"{only}: a sample's name ends at the first dot, so names must have no other"
        return only


def _samples(found: Iterator[Member | BadRecord]) -> Iterator[_Sample | BadRecord]:
    """Members put together to samples; a second file of the same name begins another."""
    sample: list[Member] = []
    stems: set[str] = set()
    for each in found:
        if isinstance(each, BadRecord):
            yield each
            continue
        is_next = sample and (each.stem != sample[0].stem or any(each.suffix == m.suffix for m in sample))
        if is_next:
            yield _Sample(sample, sample[0].stem in stems)
            stems.add(sample[0].stem)
            sample = []
        sample.append(each)
    if sample:
        yield _Sample(sample, sample[0].stem in stems)
