"""SQA3D's localisation task and the cameras of ScanRefer's annotators."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from poma3d.annotations.poses import rotation_matrix
from poma3d.annotations.read import read
from tests.helpers.annotations.layouts import (
    FIRST_ID,
    SQA3D_ROWS,
    camera_row,
    scanrefer_row,
    situated_pose,
    situation,
    write_json,
    write_localisation,
)

A = "scene0000_00"


def test_sqa3d_situations_with_their_poses(tmp_path: Path) -> None:
    poses = [situated_pose(1), situated_pose(0)]
    situations = [situation(0), situation(1, situation="I am on the sofa.")]
    found = read("localisation", write_localisation(tmp_path, poses, situations))
    assert [row.text for row in found.camera_texts] == ["I am on the sofa.", "I am standing by the door."]
    assert [row.text_id for row in found.camera_texts] == [str(FIRST_ID + 1), str(FIRST_ID)]
    row = found.camera_texts[0]
    assert row.frame == "sqa3d"
    forward = rotation_matrix(row.rotation)[:, 2]
    np.testing.assert_allclose(forward, [-np.cos(1.0), -np.sin(1.0), 0], atol=1e-12)  # -x, turned by 1 rad


def test_cameras_with_their_texts(tmp_path: Path) -> None:
    files = [
        write_json(tmp_path / "scene0000_00.anns.json", [camera_row(A, "3", "1")]),
        write_json(
            tmp_path / "ScanRefer_filtered.json", [scanrefer_row(A, "3", "0"), scanrefer_row(A, "3", "1")]
        ),
    ]
    found = read("localisation", files)
    [row] = found.camera_texts
    assert (row.text_id, row.object_name, row.frame) == ("scene0000_00-3_1", "trash can", "scanrefer")
    assert row.text.startswith("this is a trash can")
    np.testing.assert_allclose(rotation_matrix(row.rotation)[:, 2], [0, 1, 0], atol=1e-12)
    assert found.oddities["texts without a camera"].count == 1
    assert "camera turned away" not in found.oddities
    assert not found.problems


def test_cameras_without_texts_are_kept(tmp_path: Path) -> None:
    found = read("localisation", [write_json(tmp_path / "a.json", [camera_row(A, "3", "1")])])
    assert found.camera_texts[0].text == ""
    assert found.oddities["cameras without a text"].count == 1


def test_angles_that_contradict_the_lookat_are_odd(tmp_path: Path) -> None:
    rows = [camera_row(A, "3", "1", rotation=[0.0, 0.0, 0.0])]
    found = read("localisation", [write_json(tmp_path / "a.json", rows)])
    assert found.oddities["camera turned away"].count == 1
    np.testing.assert_allclose(rotation_matrix(found.camera_texts[0].rotation)[:, 2], [0, 1, 0], atol=1e-12)


@pytest.mark.parametrize(
    ("camera", "says"),
    [
        ({"lookat": [1.0, 1.0, 1.0]}, "the camera's own position"),
        ({"lookat": [1.0, 1.0]}, "three numbers"),
        ({"position": None}, "three numbers"),
        ({"rotation": ["a", 0, 0]}, "no number"),
        ({"position": [1e308, 0, 0], "lookat": [-1e308, 0, 0]}, "too far from camera.position"),
    ],
)
def test_bad_cameras_are_named(tmp_path: Path, camera: dict[str, object], says: str) -> None:
    rows = [camera_row(A, "3", "0"), camera_row(A, "3", "1", **camera)]
    found = read("localisation", [write_json(tmp_path / "a.json", rows)])
    [problem] = found.problems
    assert says in problem.reason
    assert problem.row == "row 2 (id scene0000_00-3_1)"
    assert not problem.kept


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"scene_id": 11}, "scene_id is no text: 11"),
        ({"object_name": 3}, "object_name is no text: 3"),
        ({"object_id": 1.5}, "object_id must be a text or an integer"),
        ({"ann_id": None}, "ann_id must be a text or an integer"),
        ({"camera": [1, 2]}, "camera is no object"),
    ],
)
def test_bad_rows_of_cameras_are_named_and_the_others_kept(
    tmp_path: Path, changed: dict[str, object], says: str
) -> None:
    rows = [camera_row(A, "3", "0"), {**camera_row(A, "3", "1"), **changed}, camera_row(A, "3", "2")]
    file = write_json(tmp_path / "a.json", rows)
    found = read("localisation", [file])
    [problem] = found.problems
    assert str(problem).startswith(f"{file}, row 2")
    assert says in problem.reason
    assert [row.text_id for row in found.camera_texts] == [f"{A}-3_0", f"{A}-3_2"]


@pytest.mark.parametrize(
    ("changed", "says", "rows"),
    [
        ({"rotation": {"_x": 0, "_y": 0, "_z": 0, "_w": 0}}, "norm is 0", 1),
        ({"scene_id": "scene0004_00"}, 'said in "scene0000_00"', 1),
        ({"situation_id": FIRST_ID + 9}, "no text has this id", 2),
    ],
)
def test_bad_situations_are_named(tmp_path: Path, changed: dict[str, object], says: str, rows: int) -> None:
    poses = [situated_pose(0), situated_pose(1, **changed)]
    found = read("localisation", write_localisation(tmp_path, poses, [situation(0), situation(1)]))
    assert any(says in problem.reason for problem in found.problems)
    assert len(found.rows) == rows


def test_texts_of_another_split_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="situations of another split"):
        read("localisation", write_localisation(tmp_path, [situated_pose(0)], [situation(5)]))


@pytest.mark.skipif(not SQA3D_ROWS.is_dir(), reason="the real rows are not beside the tree")
def test_real_rows() -> None:
    found = read("localisation", sorted(SQA3D_ROWS.glob("v1_*_sample_*.json")))
    assert len(found.rows) == 40
    assert all(row.text for row in found.camera_texts)
    assert not found.problems
