"""Text files of poses, and what lies close in time."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from poma3d.scenes.posed.trajectories import (
    nearest,
    quaternion_rotation,
    read_log,
    read_names,
    read_rows,
    read_timed,
)
from tests.helpers.scenes.layouts import quaternion

NUMBERS = st.floats(-1, 1, allow_subnormal=False)


@given(st.tuples(NUMBERS, NUMBERS, NUMBERS, NUMBERS).filter(lambda q: np.linalg.norm(q) > 1e-3))
def test_quaternions_are_rotations_of_any_length_and_come_back(numbers: tuple[float, ...]) -> None:
    rotation = quaternion_rotation(numbers)
    np.testing.assert_allclose(rotation @ rotation.T, np.eye(3), atol=1e-9)
    assert np.linalg.det(rotation) == pytest.approx(1)
    np.testing.assert_allclose(quaternion_rotation(quaternion(rotation)), rotation, atol=1e-6)


def test_a_quaternion_in_numbers() -> None:
    half = np.sqrt(0.5)
    np.testing.assert_allclose(quaternion_rotation([0, 0, half, half]) @ [1, 0, 0], [0, 1, 0], atol=1e-12)
    assert np.isnan(quaternion_rotation([0, 0, 0, 0])).all()
    assert np.isnan(quaternion_rotation([np.nan, 0, 0, 1])).all()


@given(st.lists(st.integers(0, 100), unique=True), st.integers(-10, 110))
def test_the_nearest_is_the_nearest(times: list[int], time_s: int) -> None:
    place, apart = nearest(np.array(sorted(times), np.float64), time_s)
    assert apart == min((abs(t - time_s) for t in times), default=np.inf)
    if times:
        assert abs(sorted(times)[place] - time_s) == apart


def test_files_with_comments_byte_order_marks_and_disorder(tmp_path: Path) -> None:
    path = tmp_path / "poses.txt"
    path.write_text("\ufeff# a comment\n2.0 1 2 3 0 0 0 1\n\n  1.0 4 5 6 0 0 0 2\r\n", encoding="utf-8")
    times, poses = read_timed(path)
    np.testing.assert_array_equal(times, [1, 2])
    np.testing.assert_array_equal(poses[:, :, 3], [[4, 5, 6], [1, 2, 3]])
    np.testing.assert_array_equal(poses[:, :, :3], [np.eye(3)] * 2)
    path.write_text("2.0 b c.png\n1.0 a.png\n")
    times, names = read_names(path)
    assert (times.tolist(), names) == ([1, 2], ["a.png", "b c.png"])
    path.write_text("# nothing\n")
    assert read_log(path) == read_rows(path) == read_names(path)[1] == []
    assert read_timed(path)[1].shape == (0, 3, 4)


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("0 0 1\n1 0 0 0\n", "line 1: the file ends within this entry"),
        ("0.5 0 1\n" + "1 0 0 0\n" * 4, "line 1: .*expected the number of a frame"),
        ("0 0 1\n1 0 0 0\n1 0 0\n1 0 0 0\n1 0 0 0\n", "line 3: 3 numbers, expected 4"),
        ("nan 0 1\n" + "1 0 0 0\n" * 4, "line 1: .*expected the number of a frame"),
    ],
)
def test_a_damaged_log_is_named_by_its_line(text: str, error: str, tmp_path: Path) -> None:
    path = tmp_path / "trajectory.log"
    path.write_text(text)
    with pytest.raises(ValueError, match=rf"trajectory\.log, {error}"):
        read_log(path)


def test_what_cannot_be_read_is_named(tmp_path: Path) -> None:
    path = tmp_path / "traj.txt"
    with pytest.raises(ValueError, match=r"traj\.txt: cannot be read"):
        read_rows(path)
    path.write_bytes(b"\xff\xfe1 2")
    with pytest.raises(ValueError, match=r"traj\.txt: cannot be read"):
        read_rows(path)
