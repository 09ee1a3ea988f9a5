"""BundleFusion and 12-Scenes, written by the test."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from poma3d.sample import SampleShape
from poma3d.scenes.config import BundleFusionConfig, SevenScenesConfig, ViewConfig
from poma3d.scenes.layouts.bundle_fusion import MOVED, BundleFusionReader
from poma3d.scenes.layouts.seven_scenes import SevenScenesReader
from poma3d.scenes.views import to_samples
from tests.helpers.scans import box_room, disagreement_mm, write_matrix
from tests.helpers.scenes.layouts import write_bundle_fusion

AGREE_MM = 10.0


def reader(root: Path, **config: Any) -> BundleFusionReader:
    return BundleFusionReader(BundleFusionConfig(str(root), **config))


@pytest.mark.parametrize(("name", "data", "shift"), [("apt1/kitchen", "data", 1000), ("apt0", "", 5000)])
def test_views_agree_and_the_world_is_z_up(name: str, data: str, shift: int, tmp_path: Path) -> None:
    original = box_room(4)
    write_bundle_fusion(tmp_path / name, original, data, shift)
    (tmp_path / "info.txt").write_text("a file of this name that is no recording's")
    assert reader(tmp_path).scene_ids() == [name]
    scene = reader(tmp_path, up=[0.0, 1.0, 0.0]).read(name)
    assert scene.warnings == []
    assert scene.depth_scale == 1 / shift
    assert disagreement_mm(scene) < AGREE_MM
    for frame, want in zip(scene.frames, original.frames, strict=True):
        np.testing.assert_allclose(frame.intrinsics, want.intrinsics)
        np.testing.assert_allclose(frame.pose[2], want.pose[2], atol=1e-6)
    assert reader(tmp_path / name).scene_ids() == [name.rpartition("/")[2]]
    estimated = reader(tmp_path).read(name).frames[1].pose[2, :3]
    np.testing.assert_allclose(estimated, original.frames[1].pose[2, :3], atol=0.03)


def test_pictures_of_another_camera_are_brought_to_the_depths_view(tmp_path: Path) -> None:
    write_bundle_fusion(tmp_path / "scan", box_room(3))
    scene = reader(tmp_path).read("scan")
    camera = scene.frames[0].colour_camera
    assert camera is not None
    assert camera.size == (192, 256)
    np.testing.assert_allclose(camera.intrinsics, [220, 242, 120, 100])
    assert len(to_samples(scene, SampleShape(3, 24, 24), ViewConfig())[0][0].colour) == 3


def test_bad_frames_are_rows_of_the_rejects(tmp_path: Path) -> None:
    write_bundle_fusion(tmp_path / "scan", box_room(6))
    frames = tmp_path / "scan" / "data"
    write_matrix(frames / "frame-000000.pose.txt", np.full((4, 4), -np.inf))
    (frames / "frame-000001.pose.txt").unlink()
    (frames / "frame-000002.depth.png").unlink()
    (frames / "frame-000003.color.jpg").unlink()
    scene = reader(tmp_path, up=[0, 1, 0]).read("scan")
    samples, rejects = to_samples(scene, SampleShape(6, 24, 24), ViewConfig(candidate_step=1))
    assert [(r.frame_id[-1], r.reason) for r in rejects] == [
        ("0", "non-finite pose"),
        ("1", "unreadable pose"),
        ("2", "no depth"),
        ("3", "unreadable colour"),
    ]
    assert samples[0].view_valid.sum() == 2


def test_what_info_claims_is_compared_with_the_files(tmp_path: Path) -> None:
    write_bundle_fusion(tmp_path / "scan", box_room(2))
    info = tmp_path / "scan" / "info.txt"
    whole = info.read_text()
    info.write_text(whole.replace("m_depthWidth = 128", "m_depthWidth = 640"))
    with pytest.raises(ValueError, match=r"info\.txt: the intrinsics are for depth of \[96, 640\]"):
        reader(tmp_path).read("scan")
    info.write_text(whole.replace("ColorExtrinsic = 1 0 0 0", "ColorExtrinsic = 1 0 0 0.025"))
    assert MOVED in reader(tmp_path).read("scan").warnings
    info.write_text(whole[: whole.index("m_calibrationDepthIntrinsic")])
    with pytest.raises(ValueError, match=r"info\.txt: m_calibrationDepthIntrinsic must be a line of 16"):
        reader(tmp_path).read("scan")


def test_the_reader_of_7_scenes_names_this_one(tmp_path: Path) -> None:
    """Their frames have the same names, and their cameras lie elsewhere."""
    write_bundle_fusion(tmp_path / "scan", box_room(2))
    for root in (tmp_path, tmp_path / "scan" / "data"):
        with pytest.raises(ValueError, match=r"cameras in info\.txt: .*reader\.kind=bundle_fusion"):
            SevenScenesReader(SevenScenesConfig(str(root))).scene_ids()
    given = SevenScenesConfig(str(tmp_path), intrinsics=[100.0, 110.0, 60.0, 50.0], registered=True)
    assert SevenScenesReader(given).scene_ids() == ["scan/data"]
