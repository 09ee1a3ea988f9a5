"""SQA3D's localisation metric, against rotation matrices."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from poma3d.annotations.poses import rotation_matrix
from poma3d.annotations.rows import Quaternion
from poma3d.annotations.scoring.localisation import NAMES, about_z, between_deg, score

ORIGIN = (0.0, 0.0, 0.0)
angles = st.floats(-math.pi + 1e-6, math.pi - 1e-6)


def turned(angle: float, sign: int = 1) -> Quaternion:
    return 0.0, 0.0, sign * math.sin(angle / 2), sign * math.cos(angle / 2)


@given(angles, angles, st.sampled_from([1, -1]))
def test_angle_between_headings(first: float, second: float, sign: int) -> None:
    """As the angle between the turned x axes; a quaternion and its negative are one rotation."""
    one, other = (rotation_matrix(turned(angle))[:, 0] for angle in (first, second))
    wanted = math.degrees(math.atan2(np.linalg.norm(np.cross(one, other)), one @ other))
    assert between_deg(turned(first), turned(second, sign)) == pytest.approx(wanted, abs=1e-6)


def test_of_a_tilted_agent_it_is_the_z_of_the_rotation_vector() -> None:
    axis = np.array([1.0, 2.0, 2.0]) / 3
    x, y, z = axis * math.sin(0.6)
    assert about_z((x, y, z, math.cos(0.6))) == pytest.approx(1.2 * axis[2])
    assert about_z((0.0, 0.0, 0.0, 1.0)) == 0.0


def test_bounds_are_strict_and_z_does_not_count() -> None:
    def hits(distance: float, degrees: float) -> list[float]:
        found = score(ORIGIN, turned(0), [(distance, 0.0, 9.0)], [turned(math.radians(degrees))])
        return [found[name] for name in NAMES]

    assert hits(0.49, 14.9) == [1, 1, 1, 1]
    assert hits(0.5, 15.1) == [0, 1, 0, 1]
    assert hits(1.0, 30.1) == [0, 0, 0, 0]


def test_the_best_guess_counts_for_each_apart() -> None:
    far, near = (3.0, 0.0, 0.0), (0.1, 0.0, 0.0)
    found = score(ORIGIN, turned(0), [near, far], [turned(2.0), turned(0.1)])
    assert list(found.values()) == [1, 1, 1, 1]


def test_no_guess_is_wrong() -> None:
    assert list(score(ORIGIN, turned(0), [], []).values()) == [0, 0, 0, 0]
