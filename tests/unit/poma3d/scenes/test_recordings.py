"""3RScan, ARKitScenes and ScanNet's .sens, written by the test to their documented layouts."""

from __future__ import annotations

import json
import pickle
import struct
from pathlib import Path

import numpy as np
import pytest

from poma3d.sample import SampleShape
from poma3d.scenes.config import ArkitScenesConfig, ScanNetConfig, ThreeRScanConfig, ViewConfig
from poma3d.scenes.frame import BadFrame, Frame, SceneFrames
from poma3d.scenes.layouts.arkitscenes import ArkitScenesReader, axis_angle_rotation, read_trajectory
from poma3d.scenes.layouts.scannet import ScanNetReader
from poma3d.scenes.layouts.scannet_sens import ScanNetSensReader
from poma3d.scenes.layouts.three_rscan import ThreeRScanReader
from poma3d.scenes.orientation import turned, upright_turns
from poma3d.scenes.views import to_samples
from tests.helpers.recordings import stored, write_arkitscenes, write_sens, write_three_rscan
from tests.helpers.scans import ALIGNMENT, room, write_matrix, write_scannet

SHAPE = SampleShape(views=3, height=24, width=24)
VIDEO, SCAN, RECORDING = "41048190", "0a4b8ef6-a83a-21f2-8672-dce34dd0d7ca", "scene0000_00"
VIEWS = 12
TURNED_HALF_WAY = [1] * 8 + [0] * 4
"""The device was held on its side, then upright."""


def assert_same_views(scene: SceneFrames, original: SceneFrames, atol: float = 1e-5) -> None:
    assert len(scene.frames) == len(original.frames)
    for frame, want in zip(scene.frames, original.frames, strict=True):
        np.testing.assert_array_equal(frame.depth, want.depth)
        np.testing.assert_allclose(frame.intrinsics, want.intrinsics, atol=1e-5)
        np.testing.assert_allclose(frame.pose, want.pose, atol=atol)
        colour, expected = frame.colour(), want.colour()
        assert colour is not None
        assert expected is not None
        step = colour.shape[0] // expected.shape[0]
        middle = colour[step // 2 :: step, step // 2 :: step].astype(int)
        assert np.abs(middle - expected).mean() < 12, "the picture is the same way up"


def is_upright(frame: Frame) -> bool:
    """Up in the world is up in the picture rather than to a side."""
    return frame.pose[2, 1] < -abs(frame.pose[2, 0])


@pytest.mark.parametrize("sideways", range(4))
def test_turning_a_frame_changes_no_point(sideways: int) -> None:
    original = room(3, views=4, size=40)
    for frame in original.frames:
        view = stored(frame, sideways)
        lying = Frame("0", view.depth, view.intrinsics, view.pose, view.colour)
        standing = turned(lying, sideways)
        np.testing.assert_array_equal(standing.depth, frame.depth)
        np.testing.assert_allclose(standing.intrinsics, frame.intrinsics)
        np.testing.assert_allclose(standing.pose, frame.pose, atol=1e-12)
        np.testing.assert_array_equal(standing.colour(), frame.colour())
    assert upright_turns([stored(frame, sideways).pose for frame in original.frames]) == [sideways] * 4


def test_poses_that_are_not_finite_do_not_turn_anything() -> None:
    assert upright_turns([np.full((3, 4), -np.inf), None]) == [0, 0]


class TestThreeRScan:
    """3RScan."""

    def reader(self, root: Path, **config) -> ThreeRScanReader:
        return pickle.loads(pickle.dumps(ThreeRScanReader(ThreeRScanConfig(str(root), **config))))

    @pytest.mark.parametrize("sideways", [0, 1, TURNED_HALF_WAY])
    def test_views_come_back_upright(self, sideways: int | list[int], tmp_path: Path) -> None:
        original = room(5, views=VIEWS)
        write_three_rscan(tmp_path, SCAN, original, sideways)
        scene = self.reader(tmp_path).read(SCAN)
        assert_same_views(scene, original)
        assert all(is_upright(frame) for frame in scene.frames)
        assert len(to_samples(scene, SHAPE, ViewConfig())[0][0].colour) == 3

    def test_as_stored_and_with_captions(self, tmp_path: Path) -> None:
        write_three_rscan(tmp_path, SCAN, room(5, views=2))
        said = {"scene_captions": ["a room"], "view_captions": {"frame-000001": ["a wall"]}}
        (tmp_path / SCAN / "captions.json").write_text(json.dumps(said))
        scene = self.reader(tmp_path, upright=False).read(SCAN)
        np.testing.assert_array_equal(scene.frames[0].depth, stored(room(5, views=2).frames[0], 1).depth)
        assert (scene.captions, scene.frames[1].captions) == (["a room"], ["a wall"])

    def test_bad_frames_are_rejected_and_bad_scans_named(self, tmp_path: Path) -> None:
        write_three_rscan(tmp_path, SCAN, room(5, views=6))
        folder = tmp_path / SCAN / "sequence"
        (folder / "frame-000001.depth.pgm").write_bytes(b"P5\n4 4\n65535\n")
        write_matrix(folder / "frame-000002.pose.txt", np.full((4, 4), np.nan))
        (folder / "frame-000003.pose.txt").unlink()
        whole = SampleShape(views=6, height=24, width=24)
        samples, rejects = to_samples(self.reader(tmp_path).read(SCAN), whole, ViewConfig(candidate_step=1))
        assert [(r.frame_id[-1], r.reason) for r in rejects] == [
            ("1", "unreadable depth"),
            ("2", "non-finite pose"),
            ("3", "unreadable pose"),
        ]
        assert samples[0].view_valid.sum() == 3
        info = folder / "_info.txt"
        info.write_text(info.read_text().replace("m_calibrationDepthIntrinsic", "m_other"))
        with pytest.raises(ValueError, match=r"_info\.txt: m_calibrationDepthIntrinsic must be a line of 16"):
            self.reader(tmp_path).read(SCAN)
        with pytest.raises(ValueError, match=r"no file such as SCAN/sequence\.zip"):
            self.reader(tmp_path / SCAN).scene_ids()
        with pytest.raises(ValueError, match="the first is other"):
            self.reader(tmp_path, scans=["other"]).scene_ids()
        assert self.reader(tmp_path).scene_ids() == [SCAN]


class TestArkitScenes:
    """ARKitScenes."""

    def reader(self, root: Path, **config) -> ArkitScenesReader:
        return pickle.loads(pickle.dumps(ArkitScenesReader(ArkitScenesConfig(str(root), **config))))

    @pytest.mark.parametrize("sideways", [0, 1, 2, 3, TURNED_HALF_WAY])
    def test_the_trajectory_is_inverted_and_views_come_back_upright(
        self, sideways: int | list[int], tmp_path: Path
    ) -> None:
        original = room(6, views=VIEWS)
        write_arkitscenes(tmp_path / "Training" / VIDEO, original, sideways)
        reader = self.reader(tmp_path)
        assert reader.scene_ids() == [f"Training/{VIDEO}"]
        scene = reader.read(f"Training/{VIDEO}")
        assert_same_views(scene, original, atol=1e-6)
        assert len(to_samples(scene, SHAPE, ViewConfig())[0][0].colour) == 3

    def test_frames_are_those_with_a_pose_of_their_time(self, tmp_path: Path) -> None:
        write_arkitscenes(tmp_path / VIDEO, room(6, views=6), unposed=(1, 4))
        scene = self.reader(tmp_path / VIDEO).read(VIDEO)
        assert [f.frame_id for f in scene.frames] == [
            f"{VIDEO}_{3419.282 + 0.1 * i:.3f}" for i in (0, 2, 3, 5)
        ]

    def test_another_grid_scales_the_camera(self, tmp_path: Path) -> None:
        write_arkitscenes(tmp_path / VIDEO, room(6, views=2, size=40), sideways=0)
        for path in (tmp_path / VIDEO / "lowres_wide_intrinsics").iterdir():
            path.write_text("80 80 60 60 39.5 39.5")
        frame = self.reader(tmp_path).read(VIDEO).frames[0]
        np.testing.assert_allclose(frame.intrinsics, [30, 30, 19.25, 19.25], atol=0.5)

    def test_bad_files_are_named(self, tmp_path: Path) -> None:
        write_arkitscenes(tmp_path / VIDEO, room(6, views=3), sideways=0)
        pincam = sorted((tmp_path / VIDEO / "lowres_wide_intrinsics").iterdir())[1]
        pincam.write_text("256 192 1")
        scene = self.reader(tmp_path).read(VIDEO)
        with pytest.raises(BadFrame, match=r"no intrinsics: .* 3 numbers, expected 6"):
            scene.frames[1]
        trajectory = tmp_path / VIDEO / "lowres_wide.traj"
        trajectory.write_text(trajectory.read_text() + "1 2 3\n")
        with pytest.raises(ValueError, match=r"lowres_wide\.traj, line 4: 3 numbers, expected 7"):
            self.reader(tmp_path).read(VIDEO)
        trajectory.write_text("1 0 0 0 0 0 0\n")
        with pytest.raises(ValueError, match="none of the 3 files"):
            self.reader(tmp_path).read(VIDEO)
        trajectory.write_text("")
        with pytest.raises(ValueError, match="an empty trajectory"):
            read_trajectory(trajectory)
        with pytest.raises(ValueError, match="no video here"):
            self.reader(tmp_path / VIDEO / "lowres_depth").scene_ids()

    def test_axis_and_angle(self) -> None:
        np.testing.assert_array_equal(axis_angle_rotation(np.zeros(3)), np.eye(3))
        quarter = axis_angle_rotation(np.array([0, 0, np.pi / 2]))
        np.testing.assert_allclose(quarter @ [1, 0, 0], [0, 1, 0], atol=1e-12)


class TestScanNetSens:
    """ScanNet's .sens."""

    def reader(self, root: Path, **config) -> ScanNetSensReader:
        return pickle.loads(pickle.dumps(ScanNetSensReader(ScanNetConfig(str(root), **config))))

    @pytest.mark.parametrize("zipped", [False, True])
    def test_a_recording_gives_what_its_export_gives(self, zipped: bool, tmp_path: Path) -> None:
        original = room(5, views=VIEWS)
        write_scannet(tmp_path / "exported", RECORDING, original, ALIGNMENT)
        path = tmp_path / "sens" / RECORDING / f"{RECORDING}.sens"
        write_sens(path, original, zipped, alignment=ALIGNMENT)
        text = (tmp_path / "exported" / RECORDING / f"{RECORDING}.txt").read_text()
        path.with_suffix(".txt").write_text(text)
        reader = self.reader(tmp_path / "sens")
        assert reader.scene_ids() == [RECORDING]
        scene, exported = reader.read(RECORDING), ScanNetReader(ScanNetConfig(str(tmp_path / "exported")))
        assert scene.depth_scale == pytest.approx(0.001)
        assert_same_views(scene, exported.read(RECORDING))

    def test_bad_frames_and_a_file_that_ends_early(self, tmp_path: Path) -> None:
        path = tmp_path / RECORDING / f"{RECORDING}.sens"
        offsets = write_sens(path, room(5, views=6))
        content = bytearray(path.read_bytes())
        content[offsets[0] : offsets[0] + 64] = struct.pack("<16f", *[-np.inf] * 16)
        content[offsets[2] - 20 : offsets[2]] = b"\xff" * 20  # the end of the second frame's depth
        path.write_bytes(content[: offsets[5] + 200])
        whole = SampleShape(views=6, height=24, width=24)
        samples, rejects = to_samples(
            self.reader(tmp_path).read(RECORDING), whole, ViewConfig(candidate_step=1)
        )
        assert [(r.frame_id, r.reason) for r in rejects] == [
            ("5", "unreadable depth"),
            ("0", "non-finite pose"),
            ("1", "unreadable depth"),
        ]
        assert "ends before 1 of the 6 frames in its header" in rejects[0].value
        assert samples[0].view_valid.sum() == 3

    def test_other_files_are_named(self, tmp_path: Path) -> None:
        path = tmp_path / RECORDING / f"{RECORDING}.sens"
        write_sens(path, room(5, views=2), version=3)
        with pytest.raises(ValueError, match=r"\.sens: not a \.sens file of version 4 \(found 3\)"):
            self.reader(tmp_path).read(RECORDING)
        path.write_bytes(path.read_bytes()[:8])
        with pytest.raises(ValueError, match="ends inside its header"):
            self.reader(tmp_path).read(RECORDING)
        with pytest.raises(ValueError, match="cannot be read"):
            self.reader(tmp_path).read("scene0001_00")
        with pytest.raises(ValueError, match="no scan here"):
            self.reader(tmp_path / RECORDING).scene_ids()
