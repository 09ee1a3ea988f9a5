"""Records of input files: what they notice, and what they do not read."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from plinth.data.inputs import SAMPLED_ABOVE_BYTES, InputFile, files_below, is_same, record
from plinth.storage import Storage


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A small text, a picture and a large file."""
    scan = tmp_path / "scan"
    (scan / "depth").mkdir(parents=True)
    (scan / "pose.txt").write_text("1 0 0")
    (scan / "depth" / "0.png").write_bytes(bytes(5000))
    noise = np.random.default_rng(0).integers(0, 256, 2 * SAMPLED_ABOVE_BYTES, np.uint8)
    (scan / "a.sens").write_bytes(noise.tobytes())
    return scan


def files(folder: Path) -> list[InputFile]:
    return files_below([folder], Storage.from_uri(folder.parent / "out"))


def change(path: Path, at: int) -> None:
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(content)
    os.utime(path, (1, 1))


@pytest.mark.parametrize(
    ("name", "at", "whole", "noticed"),
    [
        ("pose.txt", 0, False, True),
        ("a.sens", 0, False, True),
        ("a.sens", -1, False, True),
        ("a.sens", 5000, False, False),  # between two samples
        ("depth/0.png", 100, False, False),  # a picture, of the same size
        ("a.sens", 5000, True, True),
        ("depth/0.png", 100, True, True),
    ],
)
def test_which_edits_at_equal_size_are_noticed(
    name: str, at: int, whole: bool, noticed: bool, folder: Path
) -> None:
    before = record(files(folder), whole)
    assert (before.files, before.size_bytes) == (3, 5 + 5000 + 2 * SAMPLED_ABOVE_BYTES)
    change(folder / name, at)
    assert is_same(before, files(folder), read_all=False) != noticed


def test_a_copy_elsewhere_is_the_same(folder: Path, tmp_path: Path) -> None:
    before = record(files(folder), whole=True)
    (tmp_path / "moved").mkdir()
    folder.rename(tmp_path / "moved" / "scan")
    for path in (tmp_path / "moved").rglob("*"):
        os.utime(path, (1, 1))
    assert is_same(before, files(tmp_path / "moved" / "scan"), read_all=True)


@pytest.mark.parametrize("what", ["added", "removed", "renamed", "longer"])
def test_other_files_are_noticed(what: str, folder: Path) -> None:
    before = record(files(folder), whole=False)
    if what == "added":
        (folder / "captions.json").write_text("{}")
    elif what == "removed":
        (folder / "pose.txt").unlink()
    elif what == "renamed":
        (folder / "pose.txt").rename(folder / "pose2.txt")
    else:
        (folder / "depth" / "0.png").write_bytes(bytes(5001))
    assert not is_same(before, files(folder), read_all=False)


def test_without_content_the_stamp_decides(folder: Path) -> None:
    before = record(files(folder), whole=False, read=False)
    assert before.content is None
    assert is_same(before, files(folder), read_all=True)
    os.utime(folder / "pose.txt", (1, 1))
    assert not is_same(before, files(folder), read_all=False)


def test_a_file_that_is_not_there_is_recorded_as_such(folder: Path) -> None:
    storage = Storage.from_uri(folder)
    listed = [InputFile(storage, key, key) for key in ("pose.txt", "later.txt", "../out.txt")]
    before = record(listed, whole=True)
    assert is_same(before, listed, read_all=True)
    (folder / "later.txt").write_text("x")
    assert not is_same(before, listed, read_all=False)
