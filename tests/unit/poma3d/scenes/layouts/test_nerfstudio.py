"""transforms.json with depth, written by the test with the conventions of nerfstudio and instant-ngp."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from poma3d.sample import SampleShape
from poma3d.scenes.config import NerfstudioConfig, ViewConfig
from poma3d.scenes.layouts.nerfstudio import NerfstudioReader
from poma3d.scenes.views import to_samples
from tests.helpers.scans import box_room, disagreement_mm
from tests.helpers.scenes.layouts import UPRIGHT, save_depth, write_nerfstudio

AGREE_MM = 10.0


def reader(root: Path, **config: Any) -> NerfstudioReader:
    return NerfstudioReader(NerfstudioConfig(str(root), **config))


def edited(folder: Path, **changes: Any) -> dict[str, Any]:
    """The file with other keys; None removes one."""
    content = json.loads((folder / "transforms.json").read_text()) | changes
    content = {key: value for key, value in content.items() if value is not None}
    (folder / "transforms.json").write_text(json.dumps(content))
    return content


def test_views_agree_and_the_world_is_z_up(tmp_path: Path) -> None:
    original = box_room(4)
    write_nerfstudio(tmp_path / "a" / "scan", original)
    assert reader(tmp_path).scene_ids() == ["a/scan"]
    assert reader(tmp_path / "a" / "scan").scene_ids() == ["scan"]
    scene = reader(tmp_path, up=[0.0, 1.0, 0.0]).read("a/scan")
    assert scene.frames.frame_ids == [f"frame_{i:05d}" for i in range(4)]
    assert disagreement_mm(scene) < AGREE_MM
    for frame, want in zip(scene.frames, original.frames, strict=True):
        np.testing.assert_array_equal(frame.depth, want.depth)
        np.testing.assert_allclose(frame.intrinsics, want.intrinsics, atol=1e-9)
        np.testing.assert_allclose(frame.pose[2], want.pose[2], atol=1e-9, err_msg="heights are kept")
    assert len(to_samples(scene, SampleShape(3, 24, 24), ViewConfig())[0][0].colour) == 3


def test_up_is_estimated_or_stated(tmp_path: Path) -> None:
    write_nerfstudio(tmp_path / "arkit", box_room(4))
    write_nerfstudio(tmp_path / "polycam", box_room(4), UPRIGHT, orientation_override="none")
    for name, tolerance in (("arkit", 0.03), ("polycam", 1e-9)):
        scene = reader(tmp_path).read(name)
        away = [
            abs(f.pose[2, :3] - w.pose[2, :3]).max()
            for f, w in zip(scene.frames, box_room(4).frames, strict=True)
        ]
        assert max(away) < tolerance, name


def test_wrong_conventions_would_show(tmp_path: Path) -> None:
    write_nerfstudio(tmp_path / "scan", box_room(4), UPRIGHT)
    content = json.loads((tmp_path / "scan" / "transforms.json").read_text())
    for frame in content["frames"]:
        frame["transform_matrix"] = (np.array(frame["transform_matrix"]) @ np.diag([1.0, -1, -1, 1])).tolist()
    edited(tmp_path / "scan", frames=content["frames"])
    assert disagreement_mm(reader(tmp_path, up=[0, 0, 1]).read("scan")) > 4 * AGREE_MM
    assert reader(tmp_path, up=[0, 0, 1], depth_unit_m=0.005).read("scan").depth_scale == 0.005


def test_the_unit_and_the_scale_that_the_file_states(tmp_path: Path) -> None:
    """NeRFCapture's depth_path and integer_depth_scale; a world that was shrunk gets its metres back."""
    original = box_room(4)
    write_nerfstudio(tmp_path / "scan", original, UPRIGHT, integer_depth_scale=10 / 65535)
    content = json.loads((tmp_path / "scan" / "transforms.json").read_text())
    for i, frame in enumerate(content["frames"]):
        frame["depth_path"] = frame.pop("depth_file_path")
        frame["file_path"] = frame["file_path"].removesuffix(".png")
        frame["transform_matrix"] = np.array(frame["transform_matrix"])
        frame["transform_matrix"][:3, 3] *= 0.25
        frame["transform_matrix"] = frame["transform_matrix"].tolist()
        save_depth(tmp_path / "scan" / "depth" / f"frame_{i:05d}.png", original.frames[i], 6553.5)
    edited(tmp_path / "scan", frames=content["frames"], applied_scale=0.25)
    scene = reader(tmp_path, up=[0, 0, 1]).read("scan")
    assert disagreement_mm(scene) < AGREE_MM
    assert scene.frames[0].colour() is not None, "file_path without a suffix"
    np.testing.assert_allclose(scene.frames[1].pose, original.frames[1].pose, atol=1e-9)


def test_each_frame_may_have_its_own_camera(tmp_path: Path) -> None:
    write_nerfstudio(tmp_path / "scan", box_room(4), UPRIGHT)
    content = json.loads((tmp_path / "scan" / "transforms.json").read_text())
    moved = {key: content.pop(key) for key in ("fl_x", "fl_y", "cx", "cy", "w", "h")}
    for frame in content["frames"]:
        frame |= moved
    edited(tmp_path / "scan", **dict.fromkeys(moved), frames=content["frames"])
    assert disagreement_mm(reader(tmp_path).read("scan")) < AGREE_MM


def test_frames_without_depth_or_pose_are_rows_of_the_rejects(tmp_path: Path) -> None:
    write_nerfstudio(tmp_path / "scan", box_room(6), UPRIGHT)
    frames = json.loads((tmp_path / "scan" / "transforms.json").read_text())["frames"]
    del frames[0]["depth_file_path"]
    frames[1]["transform_matrix"] = [[1, 0], [0, 1]]
    frames[2]["transform_matrix"] = np.full((4, 4), np.nan).tolist()
    (tmp_path / "scan" / "depth" / "frame_00003.png").write_bytes(b"\x89PNG")
    edited(tmp_path / "scan", frames=frames)
    scene = reader(tmp_path, up=[0, 0, 1]).read("scan")
    samples, rejects = to_samples(scene, SampleShape(6, 24, 24), ViewConfig(candidate_step=1))
    assert [(r.frame_id[-1], r.reason) for r in rejects] == [
        ("0", "no depth"),
        ("1", "no pose"),
        ("2", "non-finite pose"),
        ("3", "unreadable depth"),
    ]
    assert samples[0].view_valid.sum() == 2


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"k1": 0.03}, r"frame frame_00000 has a lens with distortion \(k1 0\.03\): undistort"),
        ({"camera_model": "OPENCV_FISHEYE"}, "camera_model OPENCV_FISHEYE"),
        ({"fl_x": None}, "no fl_x"),
        ({"fl_y": "wide"}, "fl_y is wide, expected a number above 0"),
        ({"applied_scale": 0}, "applied_scale is 0"),
        ({"applied_transform": [[2, 0, 0, 0], [0, 2, 0, 0], [0, 0, 2, 0]]}, "no rigid motion"),
        ({"frames": [{"file_path": "a.png"}]}, "no frame has depth_file_path or depth_path"),
        ({"frames": [1]}, r"frames\[0\] has no file_path"),
        ({"frames": None}, 'an object with "frames"'),
        ({"integer_depth_scale": -1}, "integer_depth_scale is -1"),
    ],
)
def test_what_cannot_be_is_named(changes: dict[str, Any], error: str, tmp_path: Path) -> None:
    write_nerfstudio(tmp_path / "scan", box_room(2))
    edited(tmp_path / "scan", **changes)
    with pytest.raises(ValueError, match=rf"transforms\.json: .*{error}"):
        reader(tmp_path).read("scan")


def test_a_torn_file_and_a_folder_without_one_are_named(tmp_path: Path) -> None:
    write_nerfstudio(tmp_path / "scan", box_room(2))
    path = tmp_path / "scan" / "transforms.json"
    path.write_text(path.read_text()[:100])
    with pytest.raises(ValueError, match=r"transforms\.json: not a JSON file \(.*line 1"):
        reader(tmp_path).read("scan")
    with pytest.raises(ValueError, match=r"no file such as transforms\.json at any depth"):
        reader(tmp_path / "scan" / "depth").scene_ids()
    with pytest.raises(ValueError, match="depth_unit_m is 0"):
        reader(tmp_path, depth_unit_m=0)
