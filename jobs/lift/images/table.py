"""Parquet with a column of images (bytes, {bytes, path} or paths) and one of captions, as on the hubs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from jobs.lift.images.config import ImageSetConfig
from jobs.lift.images.sets import (
    BadRecord,
    FileSet,
    ImageRecord,
    InputPiece,
    numbers,
    open_object,
    texts,
)
from plinth.errors import DataError
from plinth.storage import MissingKeyError, Storage, StorageOptions

SUFFIX = ".parquet"
BATCH_ROWS = 64
"""Rows in memory at a time: pages of images are large."""


class TableSet(FileSet):
    """`jobs.lift.images.sets.ImageSet` of Parquet files."""

    suffix = SUFFIX

    def scan(self, piece: InputPiece) -> Iterator[ImageRecord | BadRecord]:
        """Its rows.

        Raises:
            DataError: no Parquet, or a named column is missing.
        """
        yield from self._rows(piece, None)

    def read(self, piece: InputPiece, locators: Sequence[str]) -> Iterator[ImageRecord]:
        """Some rows again; every row group that holds one of them is read."""
        for record in self._rows(piece, {int(locator) for locator in locators}):
            if isinstance(record, ImageRecord):
                yield record

    def _rows(self, piece: InputPiece, wanted: set[int] | None) -> Iterator[ImageRecord | BadRecord]:
        storage = self.storage()
        images = picture_folder(self.config, self.options, storage)
        try:
            with pq.ParquetFile(pa.PythonFile(open_object(storage, piece.key), mode="r")) as file:
                columns = self._columns(piece, file.schema_arrow.names)
                first = 0
                for group in range(file.num_row_groups):
                    stop = first + file.metadata.row_group(group).num_rows
                    if wanted is None or any(first <= row < stop for row in wanted):
                        batches = file.iter_batches(BATCH_ROWS, [group], columns, use_threads=False)
                        rows = (row for batch in batches for row in _dicts(batch))
                        for number, row in enumerate(rows, start=first):
                            if wanted is None or number in wanted:
                                yield self._record(piece, number, row, images)
                    first = stop
        except (pa.ArrowException, OSError) as error:
            raise DataError(
                f"{piece.name}: cannot be read as Parquet ({str(error).splitlines()[0]}).",
                "Restore the file, or take it out of the set's folder.",
            ) from error

    def _columns(self, piece: InputPiece, names: Sequence[str]) -> list[str]:
        for field in ("image", "caption"):
            column = getattr(self.config, field)
            if column not in names and (column or field == "image"):
                raise DataError(
                    f"{piece.name}: no column '{column}' (inputs.{field}); there are {', '.join(names)}.",
                    f"Name the column that holds the {field}s in inputs.{field}.",
                )
        others = (self.config.caption, self.config.depth, self.config.intrinsics)
        return [self.config.image, *(c for c in others if c in names)]

    def _record(
        self, piece: InputPiece, number: int, row: dict[str, Any], images: Storage
    ) -> ImageRecord | BadRecord:
        place = f"{piece.name} row {number}"
        for name, value in row.items():
            if isinstance(value, _NoText):
                return BadRecord(place, "caption is no text", f"column '{name}': {value}")
        try:
            image = picture_bytes(row[self.config.image], images)
            depth = picture_bytes(row.get(self.config.depth), images)
        except MissingKeyError as error:
            return BadRecord(place, "no such image", error.problem)
        except NoPicture as error:
            return BadRecord(place, "no image", str(error))
        except ValueError as error:
            return BadRecord(place, "no such image", str(error))
        if image is None:
            return BadRecord(place, "no image", f"column '{self.config.image}' is empty")
        captions = texts(row.get(self.config.caption))
        return ImageRecord(
            place, str(number), image, captions, depth, numbers(row.get(self.config.intrinsics))
        )


class NoPicture(ValueError):
    """A value that holds no picture, or several."""


class _NoText(ValueError):
    """Stands where a value of a column of texts is not UTF-8."""


def _dicts(batch: pa.RecordBatch) -> list[dict[str, Any]]:
    """The rows; where a value is not UTF-8 a `_NoText` in its place."""
    try:
        found: list[dict[str, Any]] = batch.to_pylist()
    except UnicodeDecodeError:
        return [
            {name: _value(batch.column(name), row) for name in batch.schema.names}
            for row in range(batch.num_rows)
        ]
    return found


def _value(column: pa.Array, row: int) -> Any:
    try:
        return column[row].as_py()
    except UnicodeDecodeError as error:
        return _NoText(str(error))


def picture_folder(config: ImageSetConfig, options: StorageOptions, own: Storage) -> Storage:
    """Where paths of a set's pictures lead."""
    return own if config.images_uri is None else Storage.from_uri(config.images_uri, options)


def picture_bytes(value: object, images: Storage) -> bytes | None:
    """An encoded picture from bytes, {bytes, path}, a path or a list of one of them; None without any.

    Raises:
        MissingKeyError: there is no such object.
        ValueError: a path that leaves the folder.
        NoPicture: several pictures, or none of these types.
    """
    if isinstance(value, list | tuple):
        if len(value) > 1:
            raise NoPicture(f"a list of {len(value)} pictures, expected one a record")
        value = value[0] if value else None
    if isinstance(value, dict):
        value = value.get("bytes") or value.get("path")
    if isinstance(value, bytes):
        return value or None
    if value is not None and not isinstance(value, str):
        raise NoPicture(f"{type(value).__name__}, expected bytes of a picture or a path")
    return images.read(value) if value else None
