"""A file of which only some ranges are at hand: those that the Parquet reader will ask for."""

from __future__ import annotations

import io

import pyarrow as pa


class FetchedRanges(io.RawIOBase):
    """For `pyarrow.PythonFile`, which takes what `read_buffer` gives without a copy.

    Args:
        size: bytes of the whole file.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._position = 0
        self._ranges: list[tuple[int, memoryview]] = []

    def add(self, start: int, content: bytes) -> None:
        """Bytes of the file from `start` on."""
        self._ranges.append((start, memoryview(content)))

    def view(self, start: int, stop: int) -> memoryview:
        """Fetched bytes, as many as are there: none of what was not fetched."""
        for first, content in self._ranges:
            if first <= start < first + len(content):
                return content[start - first : stop - first]
        return memoryview(b"")

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence]
        self._position = base + offset
        return self._position

    def tell(self) -> int:
        return self._position

    def read(self, size: int = -1) -> bytes:
        return self._take(size).tobytes()

    def read_buffer(self, size: int = -1) -> pa.Buffer:
        """As `read`, in the memory that was fetched."""
        return pa.py_buffer(self._take(size))

    def _take(self, size: int) -> memoryview:
        stop = self._size if size < 0 else self._position + size
        taken = self.view(self._position, stop)
        self._position += len(taken)
        return taken
