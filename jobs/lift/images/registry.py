"""Opens an image set of whatever layout."""

from __future__ import annotations

from typing import Any

from jobs.lift.images.config import ImageSetConfig, SetKind
from jobs.lift.images.sets import ImageSet
from plinth.storage import StorageOptions


def open_set(config: ImageSetConfig, options: StorageOptions) -> ImageSet:
    """The reader of a set's layout."""
    from jobs.lift.images.archive import ArchiveSet
    from jobs.lift.images.folder import FolderSet
    from jobs.lift.images.table import TableSet

    kinds: dict[SetKind, Any] = {
        SetKind.tar: ArchiveSet, SetKind.parquet: TableSet, SetKind.folder: FolderSet,
    }  # fmt: skip
    made: ImageSet = kinds[config.kind](config, options)
    return made
