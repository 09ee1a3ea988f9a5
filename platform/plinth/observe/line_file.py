"""A local file of lines that survives a full disk."""

from __future__ import annotations

import contextlib
import errno
import os
from pathlib import Path
from typing import BinaryIO, cast


class LineFile:
    """A file of lines, on which a full disk leaves no half line; what does not fit waits in memory.

    Args:
        path: of the file, in a folder that may not exist yet.
        kept: the first lines.
    """

    def __init__(self, path: Path, kept: str) -> None:
        self.size = 0
        """Bytes in the file."""
        self.waiting = kept.encode()
        self._path = path
        self._file: BinaryIO | None = None

    def add(self, line: str) -> None:
        """Write a line, after those that wait; an OSError leaves them all waiting."""
        self.waiting += line.encode()
        self.write()

    def write(self) -> None:
        """Write what waits."""
        if self._file is None:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._file = cast(BinaryIO, self._path.open("ab", buffering=0))
        try:
            if self._file.write(self.waiting) < len(self.waiting):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError:
            with contextlib.suppress(OSError):
                self._file.truncate(self.size)
            raise
        self.size += len(self.waiting)
        self.waiting = b""

    def close(self) -> None:
        """Close the file; what waits stays in `waiting`."""
        if self._file is not None:
            self._file.close()
