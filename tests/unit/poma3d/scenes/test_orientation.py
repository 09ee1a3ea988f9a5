"""Up from surfaces: exact rooms, tilted worlds, and what cannot be used."""

from dataclasses import replace

import numpy as np
import pytest

from poma3d.geometry import rotation_to_z_up
from poma3d.scenes.frame import BadFrame, Frame, LazyFrames
from poma3d.scenes.orientation import estimate_up
from tests.helpers.scans import room


@pytest.mark.parametrize("up", [(0.0, -1.0, 0.0), (0.3, 0.2, 0.9), (-0.5, 0.5, -0.1)])
def test_up_of_a_turned_world(up: tuple[float, float, float]) -> None:
    world = rotation_to_z_up(np.array(up)).T
    frames = [replace(f, pose=world @ f.pose) for f in room(2, size=64).frames]
    want = np.array(up) / np.linalg.norm(up)
    assert np.rad2deg(np.arccos(min(1.0, estimate_up(frames, 0.001) @ want))) < 0.2


def test_frames_that_cannot_be_used_are_passed_over() -> None:
    good = room(2, size=64).frames

    def load(frame_id: str) -> Frame:
        if frame_id == "0":
            raise BadFrame("unreadable depth")
        frame = good[int(frame_id)]
        return replace(frame, pose=np.full((3, 4), -np.inf)) if frame_id == "1" else frame

    assert estimate_up(LazyFrames(["0", "1", "2", "3", "4"], load), 0.001)[2] > 0.999
    with pytest.raises(ValueError, match="tell up from"):
        estimate_up(LazyFrames(["0", "1"], load), 0.001)
