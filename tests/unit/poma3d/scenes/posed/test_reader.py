"""What readers of posed recordings share: finding, collecting, cameras of another size, up and upright."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from poma3d.scenes.config import PosedConfig
from poma3d.scenes.frame import BadFrame, SceneFrames
from poma3d.scenes.posed.reader import Camera, Posed, PosedReader
from tests.helpers.recordings import stored
from tests.helpers.scans import box_room, disagreement_mm


class Reader(PosedReader[PosedConfig]):
    """Frames of a room, held as `sideways` says."""

    source = "test"
    markers = ("poses/all.txt",)
    known_up = (0.0, 0.0, 1.0)
    room: SceneFrames = box_room(4)
    sideways = 0

    def recording(self, scene_id: str, folder: Path) -> Posed:
        scan = Posed(folder, scene_id=scene_id)
        for frame in self.room.frames:
            view = stored(frame, self.sideways)
            depth, colour = folder / f"{frame.frame_id}.png", folder / f"{frame.frame_id}.jpg"
            Image.fromarray(np.ascontiguousarray(view.depth)).save(depth)
            Image.fromarray(np.ascontiguousarray(view.colour)).save(colour)
            scan.cameras[frame.frame_id] = Camera(view.intrinsics)
            scan.keep(frame.frame_id, view.pose, depth, colour)
        return scan


def reader(root: Path, sideways: int = 0, **config: object) -> Reader:
    made = Reader(PosedConfig(str(root), **config))  # type: ignore[arg-type]
    made.sideways = sideways
    return made


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name in ("a/one", "b"):
        (tmp_path / name / "poses").mkdir(parents=True)
        (tmp_path / name / "poses" / "all.txt").touch()
    return tmp_path


def test_scans_lie_at_any_depth_or_are_the_root(root: Path) -> None:
    assert reader(root).scene_ids() == ["a/one", "b"]
    assert reader(root, scans=["b"]).scene_ids() == ["b"]
    assert reader(root / "b").scene_ids() == ["b"]
    assert reader(root / "b").folder("b") == root / "b"
    with pytest.raises(ValueError, match=r"no file such as poses/all\.txt at any depth"):
        reader(root / "b" / "poses").scene_ids()


@pytest.mark.parametrize("sideways", range(4))
def test_pictures_are_turned_upright_by_their_poses(sideways: int, root: Path) -> None:
    scene = reader(root, sideways).read("b")
    assert disagreement_mm(scene) < 10
    for frame, want in zip(scene.frames, box_room(4).frames, strict=True):
        np.testing.assert_array_equal(frame.depth, want.depth)
        np.testing.assert_allclose(frame.pose, want.pose, atol=1e-9)
    lying = reader(root, sideways, upright=False).read("b").frames[0]
    np.testing.assert_array_equal(lying.depth, stored(box_room(4).frames[0], sideways).depth)


def test_frames_are_kept_once_and_only_with_a_rigid_finite_pose(tmp_path: Path) -> None:
    scan = Posed(tmp_path, scene_id="scan")
    scan.keep("a", np.eye(4))
    scan.keep("a", np.eye(4))
    scan.keep("b", np.full((3, 4), np.inf))
    scan.keep("c", np.arange(16.0).reshape(4, 4))
    scan.keep("d", np.eye(4)[:3])
    assert scan.frame_ids == ["a", "d"]
    assert [(r.scene_id, r.frame_id, r.reason) for r in scan.left_out] == [
        ("scan", "a", "named twice"),
        ("scan", "b", "non-finite pose"),
        ("scan", "c", "pose is no rigid motion"),
    ]


def test_a_camera_goes_to_another_size_of_the_same_aspect(tmp_path: Path) -> None:
    """Every pixel of a map of half the size is four of the camera's: their common centre has one ray."""
    camera = Camera(np.array([100.0, 110.0, 60.0, 50.0]), (96, 128))
    half = camera.at((48, 64))
    u, v = np.arange(64), np.arange(48)
    np.testing.assert_allclose((u - half[2]) / half[0], (2 * u + 0.5 - 60) / 100)
    np.testing.assert_allclose((v - half[3]) / half[1], (2 * v + 0.5 - 50) / 110)
    assert camera.at((96, 128)) is camera.intrinsics
    with pytest.raises(
        BadFrame, match=r"wrong shape: the camera is for \[96, 128\], the depth map is \[96, 96\]"
    ):
        camera.at((96, 96))


def test_a_scan_with_no_usable_frame_gives_rejects_alone(root: Path) -> None:
    class Lost(Reader):
        def recording(self, scene_id: str, folder: Path) -> Posed:
            scan = Posed(folder, scene_id=scene_id)
            if scene_id == "b":
                scan.leave_out("0", "no pose")
            return scan

    lost = Lost(PosedConfig(str(root)))
    assert [r.reason for r in lost.read("b").left_out] == ["no pose"]
    with pytest.raises(ValueError, match="scene a/one: no frames in"):
        lost.read("a/one")


def test_a_frame_without_a_camera_is_a_reject(root: Path) -> None:
    made = reader(root)
    scan = made.open("b", root / "b")
    del scan.cameras["001"]
    with pytest.raises(BadFrame, match="no intrinsics"):
        made.load(scan, "001")
