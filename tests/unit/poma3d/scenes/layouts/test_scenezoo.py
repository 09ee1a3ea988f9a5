"""What scenezoo reads: with a stand-in of its interface, and with the package where it is installed."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from poma3d.sample import SampleShape
from poma3d.scenes.config import ScenezooConfig, ViewConfig
from poma3d.scenes.layouts.scenezoo import ScenezooReader, dataset_of
from poma3d.scenes.views import to_samples
from tests.helpers.scans import box_room, disagreement_mm
from tests.helpers.scenes.scenezoo import StandIn, stand_in, write_scannetpp

AGREE_MM = 10.0


def reader(root: Path, **config: Any) -> ScenezooReader:
    return ScenezooReader(ScenezooConfig(str(root), **({"dataset": "multiscan"} | config)))


@pytest.fixture(autouse=True)
def _fresh() -> Iterator[None]:
    """No data set of another test."""
    dataset_of.cache_clear()
    yield
    dataset_of.cache_clear()


def replaced(monkeypatch: pytest.MonkeyPatch, data: StandIn) -> None:
    monkeypatch.setitem(sys.modules, "scenezoo", stand_in(data))


def test_poses_are_inverted_and_views_agree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original = box_room(5)
    replaced(monkeypatch, StandIn(original))
    assert reader(tmp_path).scene_ids() == reader(tmp_path, split="train").scene_ids() == ["scene"]
    scene = reader(tmp_path, up=[0.0, 0.0, 1.0]).read("scene")
    assert disagreement_mm(scene) < AGREE_MM
    for frame, place in zip(scene.frames, (0, 1, 3, 4), strict=True):
        want = original.frames[place]
        assert frame.frame_id == f"frame_{place:06d}"
        np.testing.assert_array_equal(frame.depth, want.depth)
        np.testing.assert_allclose(frame.pose, want.pose, atol=1e-5)
        np.testing.assert_allclose(frame.intrinsics, want.intrinsics)
        assert frame.colour_camera is not None
        assert frame.colour_camera.size == (192, 256)
    samples, rejects = to_samples(scene, SampleShape(4, 24, 24), ViewConfig(candidate_step=1))
    assert [(r.frame_id, r.reason) for r in rejects] == [("000002", "no pose")]
    assert len(samples[0].colour) == 4


def test_rooms_are_scans_of_their_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    replaced(monkeypatch, StandIn(box_room(4), rooms=True))
    rooms = reader(tmp_path, dataset="structured3d")
    assert rooms.scene_ids() == ["scene/485142"]
    assert disagreement_mm(rooms.read("scene/485142")) < AGREE_MM
    assert reader(tmp_path, dataset="structured3d", scans=["x/1"]).scene_ids() == ["x/1"], "as they are named"


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"camera_model": "OPENCV_FISHEYE"}, "OPENCV_FISHEYE with distortion"),
        ({"distortion": np.full((4, 4), 0.1)}, "PINHOLE with distortion"),
    ],
)
def test_lenses_with_distortion_are_refused(
    changes: dict[str, Any], error: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    replaced(monkeypatch, StandIn(box_room(5), **changes))
    with pytest.raises(ValueError, match=rf"scene scene: {error}: choose a source"):
        reader(tmp_path).read("scene")


def test_what_cannot_be_decoded_is_a_reject(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original = box_room(4)
    replaced(monkeypatch, StandIn(original, depth_mode="ray_distance"))
    scene = reader(tmp_path, up=[0, 0, 1]).read("scene")
    _, rejects = to_samples(scene, SampleShape(3, 24, 24), ViewConfig(candidate_step=1))
    assert [r.reason for r in rejects] == ["no pose", *["unreadable depth"] * 3]
    replaced(monkeypatch, StandIn(original))
    dataset_of.cache_clear()
    scene = reader(tmp_path, up=[0, 0, 1]).read("scene")
    del original.frames[3]
    _, rejects = to_samples(scene, SampleShape(3, 24, 24), ViewConfig(candidate_step=1))
    assert [(r.frame_id, r.reason) for r in rejects][1:] == [("frame_000003", "unreadable frame")]
    assert "IndexError" in rejects[1].value


def test_what_is_missing_is_said_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match=r"has a reader of its own: set reader\.kind=matterport"):
        reader(tmp_path, dataset="matterport3d")
    monkeypatch.setitem(sys.modules, "scenezoo", None)
    with pytest.raises(ValueError, match=r"pip install 'poma3d-platform\[scenezoo\]'"):
        reader(tmp_path).read("scene")
    replaced(monkeypatch, StandIn(box_room(2)))
    with pytest.raises(ValueError, match=r"dataset is nothing: KeyError: .*Unknown dataset"):
        reader(tmp_path, dataset="nothing").scene_ids()
    with pytest.raises(ValueError, match="the list of multiscan: KeyError: 'best'"):
        reader(tmp_path, split="best").scene_ids()
    with pytest.raises(ValueError, match=r"scene scene: TypeError: .*lighting"):
        reader(tmp_path, options={"lighting": "raw"}).read("scene")
    with pytest.raises(ValueError, match=r"no file such as data/SCENE/iphone/pose_intrinsic_imu\.json"):
        reader(tmp_path, dataset="scannetppv2").scene_ids()


def test_the_package_reads_a_recording_of_scannetpp(tmp_path: Path) -> None:
    """Where scenezoo is installed; its video and depth decoders are real."""
    try:
        importlib.import_module("scenezoo.dataset.scene.scannetpp")
    except ImportError as error:
        pytest.skip(f"the extra scenezoo is not installed: {error}")
    original = box_room(4)
    write_scannetpp(tmp_path, "0a5c013435", original)
    path = tmp_path / "data" / "0a5c013435" / "iphone" / "pose_intrinsic_imu.json"
    records = json.loads(path.read_text())
    records["frame_000003"]["aligned_pose"] = np.full((4, 4), np.nan).tolist()
    path.write_text(json.dumps(records))
    phones = reader(tmp_path, dataset="scannetppv2")
    assert phones.scene_ids() == ["0a5c013435"]
    scene = phones.read("0a5c013435")
    assert disagreement_mm(scene) < AGREE_MM
    for frame, want in zip(scene.frames, original.frames[:3], strict=True):
        np.testing.assert_array_equal(frame.depth[::2, ::2], want.depth)
        np.testing.assert_allclose(frame.pose, want.pose, atol=1e-5)
        np.testing.assert_allclose(frame.intrinsics[:2], want.intrinsics[:2] * 2, rtol=1e-5)
        assert np.abs(frame.colour()[7::15, 7::15].astype(int) - want.colour()).mean() < 12
    samples, rejects = to_samples(scene, SampleShape(3, 24, 24), ViewConfig(candidate_step=1))
    assert [(r.frame_id, r.reason) for r in rejects] == [("000003", "no pose")]
    assert len(samples[0].colour) == 3
