"""Poses to our world frame: each data set has its own frame, and its own axis that an agent faces."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from poma3d.annotations.poses import (
    MSNN,
    SCANREFER,
    SQA3D,
    WORLD,
    ScanFrame,
    camera_of,
    euler_matrix,
    facing,
    in_world,
    level_camera,
    moved_to_world,
    quaternion_of,
    rotation_matrix,
)
from poma3d.annotations.rows import CameraText, Question
from poma3d.geometry import project
from tests.helpers.scans import ALIGNMENT

TURN = 0.7
ABOUT_Z = (0.0, 0.0, math.sin(TURN / 2), math.cos(TURN / 2))
CENTRE = np.array([2.0, 3.0, 0.5])
SCAN = ScanFrame(ALIGNMENT, CENTRE)
numbers = st.floats(-1, 1)


def question(frame: str, **changed: Any) -> Question:
    pose = {"position": (1.0, -2.0, 0.0), "orientation": ABOUT_Z, "frame": frame}
    return Question("s", "1", "What?", ("a",), situations=("I sit.", "I stand."), **{**pose, **changed})


def ahead(camera: CameraText) -> np.ndarray:
    return rotation_matrix(camera.rotation)[:, 2]


def test_sqa3d_faces_minus_x_and_msnn_plus_x() -> None:
    identity = (0.0, 0.0, 0.0, 1.0)
    np.testing.assert_allclose(facing(identity, SQA3D), [-1, 0, 0])
    np.testing.assert_allclose(facing(identity, MSNN), [1, 0, 0])
    np.testing.assert_allclose(facing(ABOUT_Z, MSNN), [math.cos(TURN), math.sin(TURN), 0])


def test_sqa3d_to_our_world_by_homogeneous_coordinates() -> None:
    found = camera_of(question(SQA3D), SCAN)
    np.testing.assert_allclose(found.position, (ALIGNMENT @ [1 + 2, -2 + 3, 0 + 0.5, 1])[:3], atol=1e-12)
    there = ALIGNMENT @ [-math.cos(TURN), -math.sin(TURN), 0, 0]
    np.testing.assert_allclose(ahead(found), there[:3], atol=1e-12)
    assert (found.frame, found.text, found.text_id) == (WORLD, "I sit.", "1")


def test_msnn_is_aligned_already() -> None:
    found = camera_of(question(MSNN), None)
    assert found.position == (1.0, -2.0, 0.0)
    np.testing.assert_allclose(ahead(found), [math.cos(TURN), math.sin(TURN), 0], atol=1e-12)


def test_scanrefer_is_raw_and_has_no_centre() -> None:
    row = CameraText("s", "t", (1.0, 2.0, 1.5), level_camera(np.array([0.0, 2.0, -1.0])), SCANREFER)
    found = moved_to_world(row, ScanFrame(ALIGNMENT))
    np.testing.assert_allclose(found.position, (ALIGNMENT @ [1, 2, 1.5, 1])[:3], atol=1e-12)
    np.testing.assert_allclose(
        ahead(found), ALIGNMENT[:3, :3] @ np.array([0, 2, -1]) / math.sqrt(5), atol=1e-12
    )
    assert moved_to_world(found, None).position == pytest.approx(found.position)


def test_scans_without_alignment_keep_their_frame() -> None:
    position, direction = in_world(np.zeros(3), np.array([1.0, 0, 0]), SQA3D, ScanFrame(None, CENTRE))
    np.testing.assert_array_equal(position, CENTRE)
    np.testing.assert_array_equal(direction, [1, 0, 0])


def test_what_is_missing_is_said() -> None:
    with pytest.raises(ValueError, match="axisAlignment and the box centre"):
        camera_of(question(SQA3D), None)
    with pytest.raises(ValueError, match=r"_vh_clean_2\.ply"):
        camera_of(question(SQA3D), ScanFrame(ALIGNMENT))
    with pytest.raises(ValueError, match="question 1 has no pose"):
        camera_of(question(SQA3D, position=None), SCAN)


@given(st.tuples(numbers, numbers, numbers))
def test_a_level_camera_has_the_axes_of_our_views(direction: tuple[float, float, float]) -> None:
    """Seen with `project`: what is ahead is at the principal point, what is above it higher up."""
    towards = np.array(direction)
    assume(np.hypot(*towards[:2]) > 0.1)
    rotation = rotation_matrix(level_camera(towards))
    np.testing.assert_allclose(rotation.T @ rotation, np.eye(3), atol=1e-9)
    np.testing.assert_allclose(rotation[2, 0], 0, atol=1e-9)
    pose = np.concatenate([rotation, np.zeros((3, 1))], axis=1)
    points = np.stack([towards, towards + np.array([0, 0, 0.05])])
    (ahead_uv, above_uv), depth = project(points, np.array([100.0, 100, 50, 40]), pose)
    np.testing.assert_allclose(ahead_uv, [50, 40], atol=1e-6)
    np.testing.assert_allclose(depth[0], np.linalg.norm(towards), atol=1e-9)
    assert above_uv[1] < 40
    assert above_uv[0] == pytest.approx(50)


@pytest.mark.parametrize("z", [1.0, -1.0])
def test_straight_up_and_down(z: float) -> None:
    rotation = rotation_matrix(level_camera(np.array([0, 0, z])))
    np.testing.assert_allclose(rotation[:, 2], [0, 0, z], atol=1e-12)
    np.testing.assert_allclose(np.linalg.det(rotation), 1)


@given(st.tuples(numbers, numbers, numbers, numbers))
def test_quaternions_and_matrices_are_inverse(values: tuple[float, float, float, float]) -> None:
    assume(np.linalg.norm(values) > 0.1)
    unit = np.array(values) / np.linalg.norm(values)
    back = np.array(quaternion_of(rotation_matrix(values)))
    assert back[3] >= 0
    assert min(np.abs(back - unit).max(), np.abs(back + unit).max()) < 1e-7


@pytest.mark.parametrize("unit", np.eye(4))
def test_half_turns(unit: np.ndarray) -> None:
    x, y, z, w = unit
    np.testing.assert_allclose(quaternion_of(rotation_matrix((x, y, z, w))), unit, atol=1e-12)


def test_angles_are_those_of_three_js() -> None:
    """A camera as three.js writes it: at these angles it looks along its -z."""
    angles = (-1.108686547277176, 0.03518419696438971, 3.124073545308852)
    towards = np.array([-0.035177, -0.894560, -0.445562])
    np.testing.assert_allclose(-euler_matrix(angles)[:, 2], towards, atol=1e-6)
