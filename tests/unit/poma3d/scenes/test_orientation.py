"""Up from surfaces: exact rooms, tilted worlds, every way to hold a camera, and what cannot be used."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from poma3d.geometry import rotation_to_z_up
from poma3d.scenes.config import SevenScenesConfig
from poma3d.scenes.frame import BadFrame, Frame, LazyFrames
from poma3d.scenes.layouts.seven_scenes import UNTOLD_COLOUR, SevenScenesReader
from poma3d.scenes.orientation import estimate_up, upright_turns
from tests.helpers.recordings import stored
from tests.helpers.scans import room, write_seven_scenes


def off_deg(found: np.ndarray, want: Sequence[float]) -> float:
    return float(np.rad2deg(np.arccos(min(1.0, found @ want / np.linalg.norm(want)))))


def held(frames: Sequence[Frame], sideways: Sequence[int]) -> list[Frame]:
    """The frames as a camera that is held otherwise stores them."""
    views = [stored(frame, turns) for frame, turns in zip(frames, sideways, strict=True)]
    return [Frame("0", view.depth, view.intrinsics, view.pose, view.colour) for view in views]


@pytest.mark.parametrize("up", [(0.0, -1.0, 0.0), (0.3, 0.2, 0.9), (-0.5, 0.5, -0.1)])
def test_up_of_a_turned_world(up: tuple[float, float, float]) -> None:
    world = rotation_to_z_up(np.array(up)).T
    frames = [replace(f, pose=world @ f.pose) for f in room(2, size=64).frames]
    assert off_deg(estimate_up(frames, 0.001).direction, up) < 0.2


@pytest.mark.parametrize("sideways", [[0] * 8, [1] * 8, [2] * 8, [3] * 8, [0] * 4 + [1] * 4])
@pytest.mark.parametrize("index", [2, 3, 5])
def test_up_of_a_camera_held_on_its_side(index: int, sideways: list[int]) -> None:
    found = estimate_up(held(room(index, views=8, size=64).frames, sideways), 0.001)
    assert off_deg(found.direction, [0, 0, 1]) < 0.2


def test_a_view_of_one_wall_is_not_sure() -> None:
    wall = Frame("0", np.full((48, 64), 2000, np.uint16), np.array([50.0, 50, 31.5, 23.5]), np.eye(4)[:3])
    found = estimate_up([wall], 0.001)
    assert not found.is_sure
    np.testing.assert_allclose(found.direction, [0, -1, 0], atol=1e-9)
    assert not estimate_up([replace(wall, depth=wall.depth * 0)], 0.001).is_sure
    assert estimate_up(room(2, views=8, size=64).frames, 0.001).is_sure


def test_frames_that_cannot_be_used_are_passed_over() -> None:
    good = room(2, size=64).frames

    def load(frame_id: str) -> Frame:
        if frame_id == "0":
            raise BadFrame("unreadable depth")
        frame = good[int(frame_id)]
        return replace(frame, pose=np.full((3, 4), -np.inf)) if frame_id == "1" else frame

    assert estimate_up(LazyFrames(["0", "1", "2", "3", "4"], load), 0.001).direction[2] > 0.999
    with pytest.raises(ValueError, match="tell up from; the first: unreadable depth"):
        estimate_up(LazyFrames(["0", "1"], load), 0.001)


def rolled(degrees: float, pitch_deg: float = 0.0) -> np.ndarray:
    """A pose whose up is turned clockwise in the picture, looking down by `pitch_deg`."""
    roll, pitch = np.deg2rad([degrees, pitch_deg])
    level = np.array([[1.0, 0, 0], [0, 0, 1], [0, -1, 0]])
    nod = np.array([[1, 0, 0], [0, np.cos(pitch), np.sin(pitch)], [0, -np.sin(pitch), np.cos(pitch)]])
    turn = np.array([[np.cos(roll), np.sin(roll), 0], [-np.sin(roll), np.cos(roll), 0], [0, 0, 1]])
    return np.column_stack([level @ nod @ turn, np.zeros(3)])


def test_a_device_turned_in_mid_video_turns_its_pictures() -> None:
    turns = upright_turns([rolled(d) for d in (0, 5, -8, 80, 95, 90, 88, 182, 178, -90, 3)])
    assert turns == [0, 0, 0, 1, 1, 1, 1, 2, 2, 3, 0]


def test_a_device_near_the_diagonal_does_not_flip_at_every_frame() -> None:
    wobble = [0, 20, 44, 46, 50, 44, 55, 40, 47, 59]
    assert upright_turns([rolled(d) for d in wobble]) == [0] * 10
    assert upright_turns([rolled(d) for d in (0, 10, 65, 44, 46, 35, 31, 29)]) == [0, 0, 1, 1, 1, 1, 1, 0]


def test_a_view_straight_down_keeps_its_turns() -> None:
    poses = [rolled(90), rolled(90, 20), rolled(0, 80), None, rolled(90, 10), rolled(0, 80)]
    assert upright_turns(poses) == [1] * 6
    assert upright_turns([]) == []


class TestSevenScenes:
    """The layout in which a camera was held on its side."""

    @pytest.mark.parametrize("sideways", [[1] * 8, [3] * 8, [0] * 4 + [1] * 4])
    def test_pictures_and_world_are_upright(self, sideways: list[int], tmp_path: Path) -> None:
        original = room(3, views=8, size=64)
        tilted = rotation_to_z_up(np.array([0.1, -0.9, -0.4])).T
        lying = replace(original, frames=held(original.frames, sideways))
        write_seven_scenes(tmp_path / "seq-01", lying, tilted)
        reader = SevenScenesReader(SevenScenesConfig(str(tmp_path)))
        scene = reader.read("seq-01")
        assert scene.warnings == [UNTOLD_COLOUR]
        for frame, want in zip(scene.frames, original.frames, strict=True):
            np.testing.assert_array_equal(frame.depth, want.depth)
            assert off_deg(frame.pose[2, :3] @ want.pose[:, :3].T, [0, 0, 1]) < 0.2
            assert np.abs(frame.colour().astype(int) - want.colour()).mean() < 8
        as_stored = SevenScenesReader(SevenScenesConfig(str(tmp_path), upright=False)).read("seq-01")
        np.testing.assert_array_equal(as_stored.frames[7].depth, lying.frames[7].depth)

    def test_an_unsure_up_is_a_warning(self, tmp_path: Path) -> None:
        scene = room(3, views=2, size=64)
        wall = np.full((64, 64), 2000, np.uint16)
        frames = [replace(f, depth=wall, pose=np.eye(4)[:3]) for f in scene.frames]
        write_seven_scenes(tmp_path / "seq-01", replace(scene, frames=frames), np.eye(3))
        reader = SevenScenesReader(SevenScenesConfig(str(tmp_path), registered=True))
        (warning,) = reader.read("seq-01").warnings
        assert "which way is up was estimated and is not sure" in warning
        assert warning.endswith("or set reader.seven_scenes.up")
        told = SevenScenesReader(SevenScenesConfig(str(tmp_path), registered=True, up=[0, -1, 0]))
        assert told.read("seq-01").warnings == []
