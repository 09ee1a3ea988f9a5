"""Poses and folders of recorded scans: what is wrong with one is said in words, not in warnings of NumPy."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest

from poma3d.scenes.config import SevenScenesConfig
from poma3d.scenes.files import read_pose
from poma3d.scenes.frame import BadFrame
from poma3d.scenes.layouts.seven_scenes import SevenScenesReader
from tests.helpers.scans import room, write_seven_scenes


def test_a_pose_of_a_frame_that_was_not_tracked_is_no_pose(tmp_path: Path) -> None:
    pose = np.eye(4)
    pose[:3] = -np.inf
    np.savetxt(tmp_path / "a.txt", pose)
    with pytest.raises(BadFrame) as found:
        read_pose(tmp_path / "a.txt")
    assert (found.value.reason, found.value.value) == ("non-finite pose", "a.txt: [-inf, -inf, -inf, -inf]")


def test_a_scan_that_was_never_tracked_says_so_without_warnings(tmp_path: Path) -> None:
    write_seven_scenes(tmp_path / "a", room(0, views=3, size=20), np.eye(3))
    for path in (tmp_path / "a").glob("*.pose.txt"):
        np.savetxt(path, np.full((3, 4), -np.inf))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(ValueError, match=r"none of its 3 frames .* the first: non-finite pose"):
            SevenScenesReader(SevenScenesConfig(str(tmp_path))).read("a")


def test_a_root_that_is_no_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for name, what in (("nowhere", "does not exist"), ("file", "is a file")):
        with pytest.raises(ValueError, match=f"root is {tmp_path / name}, which {what}: name the folder"):
            SevenScenesReader(SevenScenesConfig(str(tmp_path / name))).scene_ids()
