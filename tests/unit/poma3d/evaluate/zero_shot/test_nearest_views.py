"""Which views are near to a camera."""

from __future__ import annotations

import numpy as np

from poma3d.evaluate.zero_shot.places import nearest, offsets


def looking(azimuth_deg: float, at: tuple[float, float, float]) -> np.ndarray:
    """A level camera [3, 4]."""
    a = np.radians(azimuth_deg)
    ahead = np.array([np.cos(a), np.sin(a), 0])
    right = np.array([np.sin(a), -np.cos(a), 0])
    return np.column_stack([right, np.cross(ahead, right), ahead, at])


def test_metres_and_degrees() -> None:
    poses = np.stack([looking(0, (0, 0, 1)), looking(90, (3, 4, 1)), looking(-179, (0, 0, 1))])
    truth = looking(0, (0, 0, 1))
    metres, degrees = offsets(poses, truth[:, 3], truth[:, :3])
    np.testing.assert_allclose(metres, [0, 5, 0], atol=1e-12)
    np.testing.assert_allclose(degrees, [0, 90, 179], atol=1e-5)


def test_a_camera_turned_about_its_own_axis_sees_the_same() -> None:
    pose = looking(30, (0, 0, 0))
    rolled = pose[:, :3] @ np.array([[0, -1, 0], [1, 0, 0], [0, 0, 1.0]])
    assert offsets(pose[None], pose[:, 3], rolled)[1][0] < 1e-5


def test_degrees_count_as_metres() -> None:
    metres, degrees = np.array([0.0, 1.0, 0.2]), np.array([90.0, 0.0, 0.0])
    assert nearest(metres, degrees, 1, 30.0).tolist() == [False, False, True]
    assert nearest(metres, degrees, 2, 30.0).tolist() == [False, True, True]
    assert nearest(metres, degrees, 2, 1000.0).tolist() == [True, False, True]
    assert nearest(metres, degrees, 9, 30.0).all()


def test_views_as_near_as_the_last_are_right_too() -> None:
    assert nearest(np.array([1.0, 2.0, 1.0]), np.zeros(3), 1, 30.0).tolist() == [True, False, True]
