"""Matterport3D's undistorted pictures, written by the test."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from poma3d.sample import SampleShape
from poma3d.scenes.config import MatterportConfig, ViewConfig
from poma3d.scenes.layouts.matterport import MatterportReader
from poma3d.scenes.views import to_samples
from tests.helpers.scans import box_room, disagreement_mm
from tests.helpers.scenes.layouts import write_matterport

HOUSE = "17DRP5sb8fy"
AGREE_MM = 10.0


def reader(root: Path) -> MatterportReader:
    return MatterportReader(MatterportConfig(str(root)))


def conf(root: Path) -> Path:
    return root / HOUSE / "undistorted_camera_parameters" / f"{HOUSE}.conf"


def test_views_agree(tmp_path: Path) -> None:
    original = box_room(8)
    write_matterport(tmp_path / HOUSE, original)
    assert reader(tmp_path).scene_ids() == [HOUSE]
    scene = reader(tmp_path).read(HOUSE)
    assert scene.depth_scale == 1 / 4000
    assert scene.frames.frame_ids[6] == "8fdad0_i1_0"
    assert disagreement_mm(scene) < AGREE_MM
    for frame, want in zip(scene.frames, original.frames, strict=True):
        np.testing.assert_allclose(frame.pose, want.pose, atol=1e-8)
        np.testing.assert_allclose(frame.intrinsics, want.intrinsics)
        assert frame.colour().shape == want.colour().shape


def test_a_released_camera_is_the_one_that_the_sensor_reports(tmp_path: Path) -> None:
    """Of 1280 x 1024: the .conf has cy 509.202, matterport_camera_intrinsics 513.798 from the top."""
    write_matterport(tmp_path / HOUSE, box_room(1))
    path = conf(tmp_path)
    lines = path.read_text().splitlines()
    place = next(i for i, line in enumerate(lines) if line.startswith("intrinsics_matrix"))
    lines[place] = "intrinsics_matrix 1076.45 0 631.116  0 1077.19 509.202  0 0 1"
    path.write_text("\n".join(lines))
    depth = tmp_path / HOUSE / "undistorted_depth_images" / "8fdad0_d0_0.png"
    Image.fromarray(np.full((1024, 1280), 4000, np.uint16)).save(depth)
    found = reader(tmp_path).read(HOUSE).frames[0].intrinsics
    np.testing.assert_allclose(found, [1076.45, 1077.19, 631.116, 513.798])


def test_a_principal_point_from_the_other_edge_would_show(tmp_path: Path) -> None:
    original = box_room(4)
    for frame in original.frames:
        frame.intrinsics = frame.intrinsics - np.array([0, 0, 0, 25])
    write_matterport(tmp_path / HOUSE, original)
    for frame in original.frames:
        frame.intrinsics = frame.intrinsics + np.array([0, 0, 0, 25])
    assert disagreement_mm(reader(tmp_path).read(HOUSE)) > AGREE_MM


def test_bad_frames_are_rows_of_the_rejects(tmp_path: Path) -> None:
    write_matterport(tmp_path / HOUSE, box_room(5))
    (tmp_path / HOUSE / "undistorted_depth_images" / "8fdad0_d0_0.png").unlink()
    (tmp_path / HOUSE / "undistorted_color_images" / "8fdad0_i0_1.jpg").unlink()
    lines = conf(tmp_path).read_text().splitlines()
    place = next(i for i, line in enumerate(lines) if "d0_2" in line)
    lines[place] = " ".join([*lines[place].split()[:3], *["nan"] * 16])
    place = next(i for i, line in enumerate(lines) if "d0_3" in line)
    lines[place] = lines[place - 2]
    conf(tmp_path).write_text("\n".join(lines))
    scene = reader(tmp_path).read(HOUSE)
    _, rejects = to_samples(scene, SampleShape(5, 24, 24), ViewConfig(candidate_step=1))
    assert [(r.frame_id[-1], r.reason) for r in rejects] == [
        ("2", "non-finite pose"),
        ("2", "non-finite pose"),
        ("0", "unreadable depth"),
        ("1", "unreadable colour"),
    ]


@pytest.mark.parametrize(
    ("old", "new", "error"),
    [
        ("scan 8fdad0_d0_1.png", "scan", r", line 9: 15 numbers, expected 16"),
        ("intrinsics_matrix 100.0", "intrinsics_matrix", ", line 6: 8 numbers, expected 9"),
        ("intrinsics_matrix 100.0", "# 100.0", ", line 7: a scan line above the first intrinsics_matrix"),
        ("n_images 2", "n_images 3", ": 2 scan lines, n_images is 3"),
    ],
)
def test_a_damaged_conf_is_named(old: str, new: str, error: str, tmp_path: Path) -> None:
    write_matterport(tmp_path / HOUSE, box_room(2))
    path = conf(tmp_path)
    path.write_text(path.read_text().replace(old, new))
    with pytest.raises(ValueError, match=rf"{HOUSE}\.conf{error}"):
        reader(tmp_path).read(HOUSE)


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    write_matterport(tmp_path / HOUSE, box_room(2))
    conf(tmp_path).with_name("other.conf").write_text("")
    with pytest.raises(ValueError, match="2 files undistorted_camera_parameters/"):
        reader(tmp_path).read(HOUSE)
    conf(tmp_path).with_name("other.conf").unlink()
    (tmp_path / HOUSE / "undistorted_depth_images").rename(tmp_path / "gone")
    with pytest.raises(ValueError, match=rf"no depth map of {HOUSE}\.conf in"):
        reader(tmp_path).read(HOUSE)
