"""A `Storage` as pyarrow's file system, for Ray Train's `storage_filesystem` and `storage_path`."""

from __future__ import annotations

import pyarrow.fs

from plinth.storage import Storage


def arrow_filesystem(storage: Storage) -> tuple[pyarrow.fs.FileSystem, str]:
    """The same store, and the folder's path in it. It pickles by reference, without credentials."""
    if storage.is_local:
        return pyarrow.fs.LocalFileSystem(), storage.root
    return pyarrow.fs.PyFileSystem(_ByReference(storage)), storage.root


class _ByReference(pyarrow.fs.FSSpecHandler):
    """pyarrow's fsspec handler, pickled as its `Storage`: a pickled file system has the secret key."""

    def __init__(self, storage: Storage) -> None:
        self.storage = storage
        super().__init__(storage.filesystem)

    def __reduce__(self) -> tuple[type[_ByReference], tuple[Storage]]:
        return type(self), (self.storage,)
