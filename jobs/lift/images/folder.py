"""Images in a folder, with a JSONL or CSV file of captions: one line per image."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

from jobs.lift.images.caption_file import read_rows
from jobs.lift.images.config import ImageSetConfig
from jobs.lift.images.sets import BadRecord, ImageRecord, InputPiece, identity, numbers, texts
from jobs.lift.images.table import NoPicture, picture_bytes, picture_folder
from plinth.data.inputs import InputFile
from plinth.errors import ConfigError, DataError
from plinth.storage import MissingKeyError, Storage, StorageOptions

REQUESTS = 8
"""Images that are fetched at a time."""
AHEAD = 64
"""Images in memory at a time."""


class FolderSet:
    """`jobs.lift.images.sets.ImageSet` of a caption file and the images that it names.

    A piece is a run of lines and is known by what they say: lines added at the end leave the pieces before
    them as they are.
    """

    def __init__(self, config: ImageSetConfig, options: StorageOptions) -> None:
        self.config, self.options = config, options

    def pieces(self) -> list[InputPiece]:
        """Runs of lines of the caption file.

        Raises:
            ConfigError: no such file.
            DataError: it is not JSONL or CSV, a row does not fit the header, or a field is missing.
        """
        storage = Storage.from_uri(self.config.uri, self.options)
        storage.check()
        lines = self._lines(storage)
        size = self.config.lines_per_piece
        if size < 1:
            raise ConfigError(f"inputs.lines_per_piece is {size}, expected 1 or more.")
        runs = [(start, tuple(lines[start : start + size])) for start in range(0, len(lines), size)]
        return [
            InputPiece(
                self.config,
                self.options,
                f"{self.config.caption_file} from image {start}",
                identity(self.config, storage, self.config.caption_file, run),
                run,
            )
            for start, run in runs
        ]

    def files(self, piece: InputPiece) -> list[InputFile]:
        """The pictures of the lines; none in an object store, where each would cost a request."""
        images = picture_folder(self.config, self.options, Storage.from_uri(self.config.uri, self.options))
        rows = [json.loads(line) for line in piece.lines] if images.is_local else []
        paths = [row.get(field) for row in rows for field in (self.config.image, self.config.depth)]
        return [InputFile(images, path, path) for path in paths if isinstance(path, str) and path]

    def scan(self, piece: InputPiece) -> Iterator[ImageRecord | BadRecord]:
        """The images of the lines."""
        yield from self._records(piece, piece.lines)

    def read(self, piece: InputPiece, locators: Sequence[str]) -> Iterator[ImageRecord]:
        """Some images again."""
        for record in self._records(piece, locators):
            if isinstance(record, ImageRecord):
                yield record

    def _lines(self, storage: Storage) -> list[str]:
        """The rows of the caption file, each as JSON."""
        where = f"{self.config.uri}/{self.config.caption_file}"
        try:
            content = storage.read(self.config.caption_file)
        except MissingKeyError:
            raise ConfigError(
                f"{where} does not exist.", "Name the file of captions in inputs.caption_file."
            ) from None
        rows = read_rows(content, where)
        for number, row in enumerate(rows, start=1):
            wanted = {self.config.image, self.config.caption or self.config.image}
            if not isinstance(row, dict) or not wanted.issubset(row):
                fields = ", ".join(map(str, row)) if isinstance(row, dict) else "no fields"
                raise DataError(
                    f"{where}, image {number}: no field '{self.config.image}' or '{self.config.caption}'; "
                    f"there are {fields}.",
                    "Name the fields in inputs.image and inputs.caption.",
                )
        return [json.dumps(row) for row in rows]

    def _records(self, piece: InputPiece, lines: Sequence[str]) -> Iterator[ImageRecord | BadRecord]:
        """In order, several requests at a time: a small object costs mostly waiting."""
        images = picture_folder(self.config, self.options, Storage.from_uri(self.config.uri, self.options))
        with ThreadPoolExecutor(REQUESTS) as pool:
            for start in range(0, len(lines), AHEAD):
                yield from pool.map(
                    lambda line: self._record(piece, line, images), lines[start : start + AHEAD]
                )

    def _record(self, piece: InputPiece, line: str, images: Storage) -> ImageRecord | BadRecord:
        row = json.loads(line)
        path = row[self.config.image]
        place = f"{self.config.uri}/{path}"
        try:
            image = picture_bytes(path, images)
            depth = picture_bytes(row.get(self.config.depth), images)
        except NoPicture as error:
            return BadRecord(place, "no image", str(error))
        except (MissingKeyError, ValueError) as error:
            return BadRecord(place, "no such image", str(error))
        if image is None:
            return BadRecord(f"{piece.name}: {line[:80]}", "no image", "the path is empty")
        captions = texts(row.get(self.config.caption))
        return ImageRecord(place, line, image, captions, depth, numbers(row.get(self.config.intrinsics)))
