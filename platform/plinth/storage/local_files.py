"""Local files written whole or not at all: a temporary file beside the target, fsync, rename."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import stat
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

from plinth.errors import StorageError

_TEMPORARY_SUFFIX = ".plinth-tmp"
# Errors of file systems without hard links, such as mounted buckets.
_NO_HARD_LINKS = {errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS}

_NO_FILE = {errno.EISDIR, errno.ENOTDIR, errno.ENAMETOOLONG}


def read(path: str) -> bytes:
    """The whole file.

    Raises:
        FileNotFoundError: there is none, also where a folder is asked for, or a name that no file can have:
            in an object store these are keys without an object.
    """
    try:
        return Path(path).read_bytes()
    except OSError as error:
        if error.errno in _NO_FILE:
            raise FileNotFoundError(path) from error
        raise


def state(path: str) -> os.stat_result:
    """What is known of a file without opening it.

    Raises:
        FileNotFoundError: as `read`.
    """
    try:
        found = Path(path).stat()
    except OSError as error:
        if error.errno in _NO_FILE:
            raise FileNotFoundError(path) from error
        raise
    if stat.S_ISDIR(found.st_mode):
        raise FileNotFoundError(path)
    return found


def replace(path: str, fill: Callable[[str], None]) -> None:
    """Let `fill` make a temporary file beside `path`, then rename it there."""
    with _temporary_beside(path) as temporary:
        fill(str(temporary))
        temporary.replace(path)


def write(path: str, data: bytes) -> None:
    """Write a file, in place of an earlier one."""
    replace(path, lambda temporary: write_synced(temporary, data))


def copy(source: str, path: str) -> None:
    """Copy a file, in place of an earlier one."""
    replace(path, lambda temporary: copy_synced(source, temporary))


def create(path: str, data: bytes) -> None:
    """Write a file that appears whole, and only if there is none yet.

    Raises:
        FileExistsError: there is one.
    """
    with _temporary_beside(path) as temporary:
        write_synced(str(temporary), data)
        try:
            os.link(temporary, path)  # unlike a rename it never replaces
        except OSError as error:
            if error.errno not in _NO_HARD_LINKS:
                raise
            with open(path, "xb") as file:  # also exclusive, but a reader may find it half written
                file.write(data)


@contextlib.contextmanager
def _temporary_beside(path: str) -> Iterator[Path]:
    """A name for a temporary file in the folder of `path`; removed afterwards. Syncs the folder."""
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}.{uuid.uuid4().hex}{_TEMPORARY_SUFFIX}")
    try:
        yield temporary
    finally:
        temporary.unlink(missing_ok=True)
    folder = os.open(target.parent, os.O_RDONLY)  # the rename must survive a power cut too
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def write_synced(path: str, data: bytes) -> None:
    """Write and wait until the disk has it."""
    with open(path, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def copy_synced(source: str, path: str) -> None:
    """Copy and wait until the disk has it."""
    with open(source, "rb") as reader, open(path, "wb") as writer:
        shutil.copyfileobj(reader, writer)
        writer.flush()
        os.fsync(writer.fileno())


def make_folders(path: Path) -> list[Path]:
    """Make this folder and its parents; those that were not there before, the deepest first."""
    missing = [folder for folder in (path, *path.parents) if not folder.exists()]
    path.mkdir(parents=True, exist_ok=True)
    return missing


def remove_empty(folders: list[Path]) -> None:
    """Remove these folders, the deepest first, as far as nothing is in them."""
    with contextlib.suppress(OSError):
        for folder in folders:
            folder.rmdir()


def list_files(base: Path, root: Path) -> list[tuple[str, int]]:
    """(path relative to `root`, size_bytes) of every file below `base`, sorted; no temporary ones.

    Raises:
        StorageError: a link leads nowhere.
    """
    found = []
    for path in _files(base):
        size = None if path.name.endswith(_TEMPORARY_SUFFIX) else _size(path)
        if size is not None:
            found.append((path.relative_to(root).as_posix(), size))
    return sorted(found)


def _files(base: Path) -> Iterator[Path]:
    """All files below a folder. Links to folders are followed after the folders themselves, so that each is
    found once and under its own name; a link to a folder that holds it is a loop and leads nowhere."""
    seen: set[Path] = set()
    starts = [base]
    while starts:
        for name, below, files in os.walk(starts.pop(0)):
            folder = Path(name)
            real = folder.resolve()
            if real in seen:
                below.clear()
                continue
            seen.add(real)
            links = [folder / part for part in sorted(below) if (folder / part).is_symlink()]
            starts += [link for link in links if not real.is_relative_to(link.resolve())]
            yield from (folder / file for file in files)


def _size(path: Path) -> int | None:
    """Bytes of a file; None where it has gone since it was listed."""
    try:
        return path.stat().st_size
    except FileNotFoundError:
        if path.is_symlink():
            raise StorageError(
                f"{path} is a link to {path.readlink()}, which does not exist.",
                "Mount or restore what it leads to, or remove the link.",
            ) from None
        return None
