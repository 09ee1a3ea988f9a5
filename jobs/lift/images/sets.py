"""What a set of captioned images gives, whatever its layout.

A set is cut into pieces (a tar file, a Parquet file, a run of lines of a caption file), each scanned once by
one task. Scanning yields every image of a piece in its order, with a locator by which it is read again when
it is lifted: by then it is known which images are duplicates, and only the others are fetched.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, Protocol

from jobs.lift.images.config import ImageSetConfig
from plinth.data.inputs import InputFile
from plinth.digests import text_digest
from plinth.errors import ConfigError
from plinth.storage import Storage, StorageOptions

ID_BYTES = 12
MIN_READ_BYTES = 4 << 20
"""Least that is fetched when a file in storage is read in order: headers alone would be a request each."""

VALUE_CHARACTERS = 120
"""Values in the table of rejects are cut to this length."""


@dataclass(frozen=True)
class InputPiece:
    """A part of a set that one task scans."""

    config: ImageSetConfig
    options: StorageOptions
    key: str
    """Object relative to the set's folder."""
    identity: str
    """Hash of where it is, its size or lines, and how it is read: a piece is scanned once under it."""
    lines: tuple[str, ...] = ()
    """folder: the rows of the caption file, each as JSON."""

    @property
    def name(self) -> str:
        """For people."""
        uri = self.config.uri
        return uri if uri.endswith(f"/{self.key}") else f"{uri}/{self.key}"


@dataclass(frozen=True)
class ImageRecord:
    """An image as it lies in its set."""

    place: str
    """Where it is, for people."""
    locator: str
    """Where it is, for `ImageSet.read`."""
    image: bytes
    captions: list[str]
    depth: bytes | None = None
    intrinsics: list[float] | None = None

    @property
    def image_id(self) -> str:
        """Hash of the image's bytes and its captions: the same wherever it lies."""
        digest = hashlib.blake2b(self.image, digest_size=ID_BYTES)
        digest.update(b"\0" + json.dumps(self.captions).encode())
        return digest.hexdigest()


@dataclass(frozen=True)
class BadRecord:
    """Something in a set that is no captioned image."""

    place: str
    reason: str
    value: str = ""


class ImageSet(Protocol):
    """A layout. Cheap to construct, opens nothing until asked."""

    def pieces(self) -> list[InputPiece]:
        """All pieces in a fixed order, from a listing alone.

        Raises:
            ConfigError: there is none.
        """

    def files(self, piece: InputPiece) -> list[InputFile]:
        """The files that hold a piece."""

    def scan(self, piece: InputPiece) -> Iterator[ImageRecord | BadRecord]:
        """Every image of a piece, in a fixed order.

        Raises:
            DataError: the piece is not of this layout.
        """

    def read(self, piece: InputPiece, locators: Sequence[str]) -> Iterator[ImageRecord]:
        """Some images again, in the order of the scan."""


def file_pieces(config: ImageSetConfig, options: StorageOptions, suffix: str) -> list[InputPiece]:
    """One piece per file of a suffix in the set's folder, or the one file that the set's URI names.

    Names with a part that begins with a dot are left out: a Mac's archives hold a `._NAME` beside every NAME.

    Raises:
        ConfigError: there is no such file.
        StorageError: the storage cannot be used.
    """
    storage, only = set_folder(config, options, suffix)
    storage.check()
    listed = ((key, size) for key, size in storage.list() if key.endswith(suffix))
    files = [(key, size) for key, size in listed if only == key or (not only and not _is_hidden(key))]
    if not files:
        raise ConfigError(
            f"{config.uri} holds no {suffix} file.", f"Check the path, or inputs.kind ({config.kind.name})."
        )
    return [InputPiece(config, options, key, identity(config, storage, key, size)) for key, size in files]


class FileSet:
    """What sets whose pieces are files of one suffix share; a layout adds `scan` and `read`."""

    suffix: ClassVar[str]

    def __init__(self, config: ImageSetConfig, options: StorageOptions) -> None:
        self.config, self.options = config, options

    def pieces(self) -> list[InputPiece]:
        """One per file."""
        return file_pieces(self.config, self.options, self.suffix)

    def files(self, piece: InputPiece) -> list[InputFile]:
        """The file that is the piece. Pictures that it names by paths are not among them."""
        return [InputFile(self.storage(), piece.key, piece.key)]

    def storage(self) -> Storage:
        """The set's folder."""
        return set_folder(self.config, self.options, self.suffix)[0]


def _is_hidden(key: str) -> bool:
    return any(part.startswith(".") for part in key.split("/"))


def set_folder(config: ImageSetConfig, options: StorageOptions, suffix: str) -> tuple[Storage, str]:
    """The set's folder, and the one file in it that its URI names (empty for all)."""
    if not config.uri.endswith(suffix):
        return Storage.from_uri(config.uri, options), ""
    folder, _, name = config.uri.rpartition("/")
    return Storage.from_uri(folder or ".", options), name


def identity(config: ImageSetConfig, storage: Storage, key: str, content: object) -> str:
    """Hash by which a piece is known."""
    reading = {k: v for k, v in asdict(config).items() if k not in ("uri", "kind", "lines_per_piece")}
    content_of = json.dumps([config.kind.name, storage.uri, key, content, reading], sort_keys=True)
    return text_digest(content_of, ID_BYTES)


def texts(value: object) -> list[str]:
    """Captions from a field: a text, bytes of one, a list of them at any depth, such a list as JSON in a
    text, or nothing. Bytes that are not UTF-8 give a text that is no Unicode: the gates reject it as such."""
    left, found = [value], []
    while left:
        each = left.pop()
        if isinstance(each, bytes):
            each = each.decode("utf-8", "surrogateescape")
        if isinstance(each, str):
            found += _listed(each) or [each]
        elif isinstance(each, list | tuple):
            left += reversed(each)
    return found


def _listed(text: str) -> list[str]:
    """The texts of a JSON list of texts; none of any other text."""
    if not (text.startswith("[") and text.endswith("]")):
        return []
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return []
    return found if all(isinstance(each, str) for each in found) else []


def numbers(value: object) -> list[float] | None:
    """Intrinsics from a field, a list or a text; None where it is not four numbers."""
    if isinstance(value, str):
        value = value.replace(",", " ").split()
    if isinstance(value, list | tuple) and len(value) == 4:
        try:
            return [float(x) for x in value]
        except (TypeError, ValueError, OverflowError):  # OverflowError: an integer of hundreds of digits
            return None
    return None


class RangeFile(io.RawIOBase):
    """An object in storage as a seekable file that reads ranges; wrap it in `io.BufferedReader`."""

    def __init__(self, storage: Storage, key: str) -> None:
        self._storage, self._key = storage, key
        self._size = storage.size(key)
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence]
        self._position = start + offset
        return self._position

    def tell(self) -> int:
        return self._position

    def readinto(self, buffer: Any) -> int:
        """One range request, at most to the end of the object."""
        stop = min(self._position + len(buffer), self._size)
        if stop <= self._position:
            return 0
        content = self._storage.read_range(self._key, self._position, stop)
        buffer[: len(content)] = content
        self._position += len(content)
        return len(content)


def open_object(storage: Storage, key: str) -> io.BufferedReader:
    """An object in storage as a buffered, seekable file."""
    return io.BufferedReader(RangeFile(storage, key), MIN_READ_BYTES)
