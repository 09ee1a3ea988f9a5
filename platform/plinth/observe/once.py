"""Files of a run that are written once: a process that looks again and again reads each of them once."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from plinth.storage import Storage

READERS = 16
"""Files that are read at a time."""

T = TypeVar("T")


class Once:
    """What such files say, by name and size. Not for files that others of their size may replace."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, str], dict[tuple[str, int], Any]] = {}

    def read(
        self,
        what: str,
        storage: Storage,
        sizes: Mapping[str, int],
        read: Callable[[str], T],
        readers: int = READERS,
    ) -> dict[str, T]:
        """Key -> what `read` finds in it, in the order of `sizes`; what is not among them is forgotten.

        Args:
            what: kind of these files in this storage.
            sizes: key -> bytes.
            read: called with a key, from several threads, where it is not known yet.
            readers: how many at a time; fewer for large files.

        Raises:
            StorageError: as of `read`; nothing new is known then.
        """
        before = self._known.get((what, storage.uri), {})
        new = [key for key, size in sizes.items() if (key, size) not in before]
        if len(new) < 2 or readers < 2:
            found = {key: read(key) for key in new}
        else:
            with ThreadPoolExecutor(min(readers, len(new)), thread_name_prefix="plinth-once") as pool:
                found = dict(zip(new, pool.map(read, new), strict=True))
        now = {(key, size): found[key] if key in found else before[key, size] for key, size in sizes.items()}
        self._known[what, storage.uri] = now
        return {key: value for (key, _), value in now.items()}


def below(sizes: Mapping[str, int], folder: str) -> dict[str, int]:
    """The keys in a folder, without its name."""
    start = f"{folder}/"
    return {key.removeprefix(start): size for key, size in sizes.items() if key.startswith(start)}


def in_folder(storage: Storage, sizes: Mapping[str, int] | None, folder: str) -> dict[str, int]:
    """Key -> bytes of all in a folder of `storage`, by their whole keys.

    Args:
        sizes: of all keys in `storage`, as they were listed; None lists that folder.
    """
    if sizes is None:
        return dict(storage.list(folder))
    return {key: size for key, size in sizes.items() if key.startswith(f"{folder}/")}
