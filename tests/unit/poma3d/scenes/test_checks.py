"""What files claim is compared with what they hold: intrinsics of another size, poses that are none."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from poma3d.geometry import off_centre
from poma3d.sample import SampleShape
from poma3d.scenes.checks import check_frame
from poma3d.scenes.config import ScanNetConfig, ViewConfig
from poma3d.scenes.files import read_matrix, read_pose, rigid
from poma3d.scenes.frame import BadFrame, Frame
from poma3d.scenes.layouts.scannet import ScanNetReader
from poma3d.scenes.views import to_samples
from tests.helpers.scans import camera_matrix, full_pose, room, write_matrix, write_scannet

CONFIG = ViewConfig()
POSE = np.array([[0.0, 0.6, 0.8, 1], [1, 0, 0, 2], [0, 0.8, -0.6, 3]])


def frame(**changes) -> Frame:
    good = Frame("0", np.full((48, 64), 2000, np.uint16), np.array([60.0, 60, 31.5, 23.5]), np.eye(4)[:3])
    return replace(good, **changes)


def reason(bad: Frame, config: ViewConfig = CONFIG) -> str:
    with pytest.raises(BadFrame) as caught:
        check_frame(bad, config)
    assert caught.value.value, "it says what was found"
    return caught.value.reason


@pytest.mark.parametrize(
    "size_hw",
    [(24, 32), (96, 128), (36, 48), (64, 85), (48, 128), (96, 64), (64, 48)],
    ids=["half", "double", "0.75", "1.33", "wider", "taller", "on its side"],
)
def test_intrinsics_of_another_image_size_are_refused(size_hw: tuple[int, int]) -> None:
    height, width = size_hw
    camera = np.array([60.0, 60, (width - 1) / 2, (height - 1) / 2])
    assert reason(frame(intrinsics=camera)) == "intrinsics of another image size"


def test_real_cameras_pass_and_cropped_pictures_may() -> None:
    check_frame(frame(), CONFIG)
    azure, grid = np.array([504.0, 504, 320.3, 337.1]), np.full((576, 640), 1000, np.uint16)
    check_frame(frame(depth=grid, intrinsics=azure), CONFIG)
    cropped = frame(intrinsics=np.array([60.0, 60, 12, 23.5]))
    assert reason(cropped) == "intrinsics of another image size"
    check_frame(cropped, ViewConfig(max_off_centre=0.4))
    outside = frame(intrinsics=np.array([60.0, 60, 64.5, 23.5]))
    assert reason(outside, ViewConfig(max_off_centre=0.5)) == "intrinsics of another image size"
    with pytest.raises(ValueError, match=r"max_off_centre is 0\.6"):
        ViewConfig(max_off_centre=0.6).validate()
    assert off_centre(np.array([1, 1, 63.5, 47.5]), (48, 64)) == 0.5


@pytest.mark.parametrize(
    ("pose", "expected"),
    [
        (np.full((3, 4), np.nan), "non-finite pose"),
        (np.diag([1.0, 1, -1, 1])[:3], "pose is not a rotation"),
        (np.diag([1.01, 1.01, 1.01, 1])[:3], "pose is not a rotation"),
        (np.zeros((3, 4)), "pose is not a rotation"),
        (np.column_stack([np.eye(3), [500_000.0, 5_300_000, 500]]), "camera far from the origin"),
        (np.eye(4), "wrong shape"),
    ],
)
def test_poses_that_are_no_rigid_motion_are_refused(pose: np.ndarray, expected: str) -> None:
    assert reason(frame(pose=pose)) == expected


def test_poses_of_three_digits_pass() -> None:
    angle = np.deg2rad(33)
    turn = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])

    rounded = [frame(pose=np.column_stack([turn.round(digits), np.zeros(3)])) for digits in (3, 1)]
    check_frame(rounded[0], CONFIG)
    assert reason(rounded[1]) == "pose is not a rotation", "of one digit it is none any more"


@pytest.mark.parametrize("bad", [[0, 60, 31.5, 23.5], [60, np.nan, 31.5, 23.5], [60, 60, 31.5]])
def test_what_is_no_camera_is_refused(bad: list[float]) -> None:
    assert reason(frame(intrinsics=np.array(bad))) == "no intrinsics"


class TestPoseFiles:
    """Poses as text."""

    def test_four_by_four_three_by_four_and_one_line(self, tmp_path: Path) -> None:
        whole = np.vstack([POSE, [0, 0, 0, 1]])
        for matrix in (whole, POSE, whole.reshape(1, -1), POSE.reshape(1, -1)):
            write_matrix(tmp_path / "pose.txt", matrix)
            np.testing.assert_allclose(read_pose(tmp_path / "pose.txt"), POSE)
        write_matrix(tmp_path / "K.txt", camera_matrix(np.array([5.0, 6, 7, 8]), 3).reshape(1, -1))
        assert read_matrix(tmp_path / "K.txt", (3, 3), "intrinsics")[1].tolist() == [0, 6, 8]

    def test_a_transposed_matrix_is_refused(self, tmp_path: Path) -> None:
        write_matrix(tmp_path / "pose.txt", np.vstack([POSE, [0, 0, 0, 1]]).T)
        with pytest.raises(BadFrame, match="pose is no rigid motion: its last row is"):
            read_pose(tmp_path / "pose.txt")
        assert np.isinf(rigid(np.full((4, 4), -np.inf))).all(), "frames that were not localised"

    @pytest.mark.parametrize("text", ["0,5 1 2", "1 2 3", "1 2\n3 4", ""])
    def test_other_text_is_named(self, text: str, tmp_path: Path) -> None:
        (tmp_path / "pose.txt").write_text(text)
        with pytest.raises(BadFrame, match=r"unreadable pose: pose\.txt"):
            read_pose(tmp_path / "pose.txt")


def test_a_scan_of_wrong_files_becomes_rejects(tmp_path: Path) -> None:
    """Depth exported at half the size of its intrinsics, and poses written column by column."""
    scene = room(4, views=3)
    write_scannet(tmp_path, "scene0000_00", scene, None)
    folder = tmp_path / "scene0000_00"
    write_matrix(folder / "pose" / "1.txt", full_pose(scene.frames[1].pose, np.eye(3)).T)
    shape = SampleShape(views=3, height=24, width=24)
    reader = ScanNetReader(ScanNetConfig(str(tmp_path)))
    _, rejects = to_samples(reader.read("scene0000_00"), shape, ViewConfig(candidate_step=1))
    assert [(r.frame_id, r.reason) for r in rejects] == [("1", "pose is no rigid motion")]
    intrinsics = scene.frames[0].intrinsics * 2
    write_matrix(folder / "intrinsic" / "intrinsic_depth.txt", camera_matrix(intrinsics, 4))
    samples, rejects = to_samples(reader.read("scene0000_00"), shape, ViewConfig(candidate_step=1))
    assert not samples
    assert [r.reason for r in rejects].count("intrinsics of another image size") == 2
    assert "in a depth map of 40 x 40: it is the middle of 79 x 79" in rejects[0].value
