"""Text of recordings: byte-order marks, line ends, matrices in one line, decimal commas."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from poma3d.scenes.files import read_matrix
from poma3d.scenes.frame import BadFrame
from poma3d.scenes.layouts.arkitscenes import read_trajectory
from poma3d.scenes.layouts.scannet import read_axis_alignment
from poma3d.scenes.text_files import floats, read_lines

MATRIX = np.array([[0.5, 0, 0, 1e-3], [0, -1, 0, 2], [0, 0, 1, 3], [0, 0, 0, 1]])
ROWS = "\n".join(" ".join(map(str, row)) for row in MATRIX)


def test_lines_end_at_line_breaks_alone(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes("\ufeffa\u2028b\u0085c\r\nd\re\n".encode())
    assert read_lines(tmp_path / "a.txt") == ["a\u2028b\u0085c", "d", "e", ""]


@pytest.mark.parametrize(
    "text", [ROWS, ROWS.replace("\n", " "), ROWS.replace("\n", "\r\n\r\n"), "\ufeff" + ROWS]
)
def test_a_matrix_as_tools_write_it(text: str, tmp_path: Path) -> None:
    (tmp_path / "pose.txt").write_bytes(text.encode())
    np.testing.assert_array_equal(read_matrix(tmp_path / "pose.txt", (4, 4), "pose"), MATRIX)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (ROWS.replace(".", ","), "'0,5' has a decimal comma: write 0.5"),
        (ROWS.replace(" ", ","), "separate numbers by spaces"),
        (ROWS.replace("0.5", "half"), "'half' is no number"),
        ("1 2 3\n4 5", "inhomogeneous"),
    ],
)
def test_what_is_no_matrix_is_named(text: str, words: str, tmp_path: Path) -> None:
    (tmp_path / "pose.txt").write_text(text)
    with pytest.raises(BadFrame, match="unreadable pose") as caught:
        read_matrix(tmp_path / "pose.txt", (3, 4), "pose")
    assert words in caught.value.value


def test_decimal_commas_are_named_wherever_numbers_are_read(tmp_path: Path) -> None:
    assert floats(" 1 -2.5\t3e-2 ") == [1, -2.5, 0.03]
    (tmp_path / "a.traj").write_text("0.1 0 0 0 0 0 0\n0,2 0 0 0 0 0 0\n")
    with pytest.raises(ValueError, match=r"line 2: .*decimal comma: write 0\.2"):
        read_trajectory(tmp_path / "a.traj")
    (tmp_path / "scan.txt").write_text("axisAlignment = " + "1,0 " * 16)
    with pytest.raises(ValueError, match="decimal comma"):
        read_axis_alignment(tmp_path / "scan.txt")
