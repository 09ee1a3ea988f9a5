"""A user's own folder for files on their way: nobody else may have put something there.

    TEMPORARY FOLDER/plinth-UID/      0700, no link, of this user
      DIGEST/                         of one stage of one run, or the logs of one run

The system's temporary folder is everybody's, and what lies in such a folder is uploaded as this run's own. So
the folder is looked at before it is used.
"""

from __future__ import annotations

import errno
import os
import stat
import tempfile
from pathlib import Path

from plinth.errors import StorageError

OWN_MODE = 0o700
FULL = {errno.ENOSPC, errno.EDQUOT}
ELSEWHERE = (
    "Remove it if you can, or give another place: TMPDIR, or the job's scratch folder where it has one."
)


def of_user(base: str | Path | None = None) -> Path:
    """Where this user's folder is, whether it exists or not.

    Args:
        base: the folder that holds it; the system's temporary folder when None.
    """
    return Path(base or tempfile.gettempdir()) / f"plinth-{os.getuid()}"


def claim(folder: Path) -> None:
    """Make a folder below `of_user(...)`, and be sure that only this user could have written there.

    Raises:
        StorageError: the user's folder is a link, no folder, of another user, or others may write to it. A
            full disk raises nothing: there is then no folder in which anybody could have put something.
    """
    top = folder.parent
    try:
        top.parent.mkdir(parents=True, exist_ok=True)
        try:
            top.mkdir(mode=OWN_MODE)
        except FileExistsError:
            _check(top)
        if stat.S_IMODE(top.stat().st_mode) != OWN_MODE:  # a umask, or from before there was this rule
            top.chmod(OWN_MODE)
        folder.mkdir(mode=OWN_MODE, exist_ok=True)
    except OSError as error:
        if error.errno not in FULL:
            raise StorageError(f"{folder} cannot be made: {error.strerror}.", ELSEWHERE) from error


def is_own(folder: Path) -> bool:
    """Whether a folder below `of_user(...)` is there, and only this user could have written to it."""
    try:
        _check(folder.parent)
    except (StorageError, OSError):
        return False
    return folder.is_dir()


def _check(top: Path) -> None:
    found = top.lstat()  # a link to a folder of this user would do, had nobody else made it
    if not stat.S_ISDIR(found.st_mode):
        kind = "a link" if stat.S_ISLNK(found.st_mode) else "no folder"
        raise StorageError(f"{top} is {kind}, expected a folder of this user's own.", ELSEWHERE)
    if found.st_uid != os.getuid():
        raise StorageError(
            f"{top} belongs to user {found.st_uid}, and this is user {os.getuid()}: what lies there would be "
            "taken for this run's.",
            ELSEWHERE,
        )
    if found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise StorageError(
            f"{top} can be written by others (mode {stat.S_IMODE(found.st_mode):04o}): what lies there would "
            "be taken for this run's.",
            "Look at what is in it, then remove it, or `chmod 700` it.",
        )
