"""Frames of scans from their text files and meshes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from poma3d.annotations.scan_frames import ScanFrames, box_centre, read_vertices
from tests.helpers.annotations.layouts import write_ply, write_scan
from tests.helpers.scans import ALIGNMENT

POINTS = np.array([[0, 0, 0], [4, 1, 1], [4, 1, 1], [4, 3, 2.0]], np.float64)


@pytest.mark.parametrize("layout", ["ascii", "binary_little_endian", "binary_big_endian"])
def test_vertices_of_every_layout(tmp_path: Path, layout: str) -> None:
    path = write_ply(tmp_path / "a.ply", POINTS, layout)
    np.testing.assert_array_equal(read_vertices(path), POINTS)
    np.testing.assert_array_equal(box_centre(path), [2, 1.5, 1])  # not the mean, [3, 1.25, 1]


def test_found_in_the_scans_folder_or_beside(tmp_path: Path) -> None:
    write_scan(tmp_path, "scene0000_00", ALIGNMENT, POINTS)
    write_scan(tmp_path, "scene0707_00", None)
    (tmp_path / "scene0001_00.txt").write_text("axisAlignment = " + "1 " * 16)
    scans = ScanFrames(tmp_path)
    both = scans.frame("scene0000_00", mesh=True)
    assert both is not None
    np.testing.assert_allclose(both.alignment, ALIGNMENT)
    np.testing.assert_array_equal(both.centre, [2, 1.5, 1])
    without = scans.frame("scene0707_00", mesh=True)
    assert without is not None
    assert without.alignment is None
    assert without.centre is None
    beside = scans.frame("scene0001_00", mesh=False)
    assert beside is not None
    assert beside.alignment is not None
    assert scans.frame("scene0009_00", mesh=False) is None


def test_an_id_does_not_lead_out_of_the_folder(tmp_path: Path) -> None:
    (tmp_path / "scans").mkdir()
    (tmp_path / "secret.txt").write_text("axisAlignment = " + "1 " * 16)
    scans = ScanFrames(tmp_path / "scans")
    assert scans.frame("../secret", mesh=False) is None


@pytest.mark.parametrize(
    ("edit", "says"),
    [
        (lambda content: content[:-4], "cut short: 4 vertices"),
        (lambda content: b"obj" + content, "no PLY file"),
        (lambda content: content.replace(b"float z", b"float w"), "without x, y and z"),
        (lambda content: content.replace(b"float z", b"half z"), "a vertex has the property half z"),
        (lambda content: content.replace(b"element vertex", b"element edge"), "not its vertices"),
        (lambda content: content.replace(b"binary_little_endian", b"zipped"), "PLY of format zipped"),
        (lambda content: content.replace(b"vertex 4", b"vertex 0"), "no vertices"),
    ],
)
def test_damaged_meshes(tmp_path: Path, edit: object, says: str) -> None:
    path = write_ply(tmp_path / "a.ply", POINTS)
    assert callable(edit)
    path.write_bytes(edit(path.read_bytes()))
    with pytest.raises(ValueError, match=r"a\.ply") as caught:
        box_centre(path)
    assert says in str(caught.value)


def test_an_alignment_of_another_size(tmp_path: Path) -> None:
    write_scan(tmp_path, "scene0000_00", np.eye(3))
    with pytest.raises(ValueError, match="axisAlignment must be 16 numbers"):
        ScanFrames(tmp_path).frame("scene0000_00", mesh=False)
    with pytest.raises(ValueError, match="no such folder of scans"):
        ScanFrames(tmp_path / "nothing")
