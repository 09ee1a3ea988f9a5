"""A user's own folder below one that everybody may write to."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from plinth.errors import StorageError
from plinth.storage import scratch


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


def test_folder_is_made_for_this_user_alone(tmp_path: Path) -> None:
    folder = scratch.of_user(tmp_path / "not" / "there") / "run"
    before = os.umask(0)
    try:
        scratch.claim(folder)
    finally:
        os.umask(before)
    assert (mode(folder.parent), mode(folder)) == (0o700, 0o700)
    scratch.claim(folder)
    assert scratch.is_own(folder)


def test_folder_that_others_could_only_read_is_closed(tmp_path: Path) -> None:
    folder = scratch.of_user(tmp_path) / "run"
    folder.parent.mkdir(mode=0o755)
    scratch.claim(folder)
    assert mode(folder.parent) == 0o700


@pytest.mark.parametrize("opened", [0o770, 0o707, 0o777])
def test_folder_that_others_can_write_is_refused(tmp_path: Path, opened: int) -> None:
    folder = scratch.of_user(tmp_path) / "run"
    folder.mkdir(parents=True)
    folder.parent.chmod(opened)
    with pytest.raises(StorageError, match=rf"can be written by others \(mode 0{opened:o}\)"):
        scratch.claim(folder)
    assert not scratch.is_own(folder)


def test_folder_of_another_user_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    user = os.getuid()
    monkeypatch.setattr(os, "getuid", lambda: user + 1)
    folder = scratch.of_user(tmp_path) / "run"
    folder.mkdir(parents=True)
    with pytest.raises(StorageError, match=f"belongs to user {user}, and this is user {user + 1}"):
        scratch.claim(folder)
    assert not scratch.is_own(folder)


def test_links_and_files_are_refused(tmp_path: Path) -> None:
    top = scratch.of_user(tmp_path)
    (tmp_path / "elsewhere" / "run").mkdir(parents=True)
    top.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(StorageError, match="is a link, expected a folder"):
        scratch.claim(top / "run")
    assert not scratch.is_own(top / "run")
    top.unlink()
    top.write_text("")
    with pytest.raises(StorageError, match="is no folder, expected a folder"):
        scratch.claim(top / "run")
