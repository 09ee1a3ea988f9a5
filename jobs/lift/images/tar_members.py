"""The members of a tar file that is read front to back, whole or not.

A member whose header is damaged, or claims more bytes than there are, costs that member: reading goes on at
the next whole header, and what was passed over is a bad record. A tar that ends too early is one too. Names
with a part that begins with a dot (`._NAME`, which a Mac's tar writes beside every NAME) are no data.
"""

from __future__ import annotations

import io
import tarfile
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from typing import BinaryIO, cast

from jobs.lift.images.sets import MIN_READ_BYTES, BadRecord, InputPiece

BROKEN = "broken archive"
MAX_HEADER_BYTES = 1 << 20
"""Of one read of headers: a longer name or list of attributes than this is damage."""
HEADER_ERRORS = (tarfile.TarError, ValueError, OverflowError, LookupError, RecursionError)
"""What `tarfile` raises for headers that cannot be; RecursionError for long chains of them."""


@dataclass(frozen=True)
class Member:
    """A file of a sample: its name in two parts, and its bytes, which begin at `offset` of the tar."""

    stem: str
    """Up to the first dot, with its folder: what the files of a sample share."""
    suffix: str
    """Behind that dot, in lower case."""
    offset: int
    content: bytes


def members_of(file: io.BufferedReader, piece: InputPiece) -> Iterator[Member | BadRecord]:
    """All files in a tar, and the damaged stretches between them."""
    size = file.seek(0, io.SEEK_END)
    start: int | None = 0
    while start is not None and start < max(size, 1):
        start = yield from _members_from(file, piece, start, size)


def _members_from(
    file: io.BufferedReader, piece: InputPiece, start: int, size: int
) -> Generator[Member | BadRecord, None, int | None]:
    """Those from an offset on, up to the end or to a header that cannot be.

    Returns:
        Where to look for the next whole header; None at the end.
    """
    expected = start
    is_reported = start > 0  # what lies between a header that cannot be and the next whole one
    try:
        # With `ignore_zeros` a damaged header is passed over block by block until one is whole.
        archive = tarfile.TarFile(fileobj=_headers(file, start), mode="r", tarinfo=_Info, ignore_zeros=True)
        for info in archive:
            if not is_reported:
                yield from _gap(file, piece, expected, info.offset)
            is_reported = False
            found = _member(file, piece, info, size)
            if found is not None:
                yield found
            expected = info.offset_data + (_padded(info.size) if info.isreg() else 0)
            if expected > size:
                return info.offset_data
    except HEADER_ERRORS as error:
        if not is_reported:
            yield BadRecord(f"{piece.name} at byte {expected}", BROKEN, str(error))
        return expected + tarfile.BLOCKSIZE
    if not is_reported:
        yield from _gap(file, piece, expected, size)
    return None


def _member(
    file: io.BufferedReader, piece: InputPiece, info: tarfile.TarInfo, size: int
) -> Member | BadRecord | None:
    """What a header tells of; None for what is no data."""
    parts = [part for part in info.name.split("/") if part != "."]
    if any(part.startswith(".") for part in parts) or not (info.isreg() or info.issym() or info.islnk()):
        return None
    place = f"{piece.name} at byte {info.offset}"
    if not info.isreg():
        return BadRecord(place, BROKEN, f"{info.name} is a link to {info.linkname}: store the file itself")
    there = size - info.offset_data
    if info.size > there:
        return BadRecord(place, BROKEN, f"{info.name}: {max(0, there)} of {info.size} bytes")
    file.seek(info.offset_data)
    folder, _, name = info.name.rpartition("/")
    stem, _, suffix = name.partition(".")
    stem = f"{folder}/{stem}" if folder else stem
    return Member(stem, suffix.lower(), info.offset_data, file.read(info.size))


def _padded(size: int) -> int:
    """Bytes that a member takes up: whole blocks."""
    return -(-size // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE


class _Info(tarfile.TarInfo):
    """A header, whose pax attributes may be damaged.

    Since it was mended against CVE-2024-6232, Python takes such attributes for a damaged header and tries the
    next block, but from where it has read to: all members within the bytes that they claim would be lost.
    """

    def _proc_member(self, archive: tarfile.TarFile) -> tarfile.TarInfo:
        try:
            return super()._proc_member(archive)  # type: ignore[misc]
        except tarfile.InvalidHeaderError as error:  # type: ignore[attr-defined]
            raise tarfile.SubsequentHeaderError(str(error)) from None  # type: ignore[attr-defined]


def _headers(file: io.BufferedReader, start: int) -> BinaryIO:
    """What `tarfile` reads headers from: no read is longer than a header can be, whatever one claims."""
    file.seek(start)
    return cast(BinaryIO, _Headers(file))


class _Headers:
    """The part of a file object that `tarfile` uses."""

    def __init__(self, file: io.BufferedReader) -> None:
        self._file = file

    def read(self, size: int) -> bytes:
        return self._file.read(min(size, MAX_HEADER_BYTES))

    def seek(self, offset: int) -> int:
        return self._file.seek(offset)

    def tell(self) -> int:
        return self._file.tell()


def _behind_global_headers(file: io.BufferedReader, start: int, stop: int) -> int:
    """Where the pax headers of the whole archive end that begin at `start`, such as `git archive` writes."""
    while start < stop:
        file.seek(start)
        try:
            info = tarfile.TarInfo.frombuf(file.read(tarfile.BLOCKSIZE), tarfile.ENCODING, "surrogateescape")
        except tarfile.HeaderError:
            return start
        if info.type != tarfile.XGLTYPE:
            return start
        start += tarfile.BLOCKSIZE + _padded(info.size)
    return min(start, stop)


def _gap(file: io.BufferedReader, piece: InputPiece, start: int, stop: int) -> Iterator[BadRecord]:
    """A bad record when the bytes [start, stop), which belong to no member, are not all zero."""
    start = _behind_global_headers(file, start, stop)
    at = file.seek(start)
    while at < stop:
        content = file.read(min(MIN_READ_BYTES, stop - at))
        if not content:
            return
        if content.count(0) != len(content):
            lost = f"{stop - start} bytes without a readable header"
            yield BadRecord(f"{piece.name} at byte {start}", BROKEN, lost)
            return
        at += len(content)
