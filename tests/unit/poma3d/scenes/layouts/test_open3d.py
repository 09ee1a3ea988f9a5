"""Open3D's and Redwood's recordings, written by the test; and Open3D's real test frames where they are."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from poma3d.sample import SampleShape
from poma3d.scenes.config import Open3dConfig, ViewConfig
from poma3d.scenes.layouts.open3d import Open3dReader
from poma3d.scenes.views import to_samples
from tests.helpers.scans import REDKITCHEN, box_room, disagreement_mm
from tests.helpers.scenes.layouts import write_open3d

AGREE_MM = 10.0
REAL = REDKITCHEN.parent / "open3d_rgbd"


def reader(root: Path, **config: Any) -> Open3dReader:
    return Open3dReader(Open3dConfig(str(root), **config))


@pytest.mark.parametrize("first", [0, 1])
def test_views_agree_and_the_world_is_z_up(first: int, tmp_path: Path) -> None:
    original = box_room(4)
    write_open3d(tmp_path / "scan", original, first=first)
    assert reader(tmp_path).scene_ids() == ["scan"]
    scene = reader(tmp_path, up=[0.0, 1.0, 0.0]).read("scan")
    assert disagreement_mm(scene) < AGREE_MM
    for frame, want in zip(scene.frames, original.frames, strict=True):
        np.testing.assert_allclose(frame.intrinsics, want.intrinsics)
        np.testing.assert_allclose(frame.pose[2], want.pose[2], atol=1e-6)
    estimated = reader(tmp_path).read("scan").frames[1].pose[2, :3]
    np.testing.assert_allclose(estimated, original.frames[1].pose[2, :3], atol=0.03)


def test_a_trajectory_of_the_reconstruction_lies_in_scene(tmp_path: Path) -> None:
    """Its entries may have a fitness in place of the third integer."""
    write_open3d(tmp_path / "apartment", box_room(4))
    path = tmp_path / "apartment" / "trajectory.log"
    (tmp_path / "apartment" / "scene").mkdir()
    (tmp_path / "apartment" / "scene" / path.name).write_text(
        path.read_text().replace("0 0 1\n", "0 0 0.93\n")
    )
    path.unlink()
    assert reader(tmp_path).scene_ids() == ["apartment"]
    assert reader(tmp_path / "apartment").scene_ids() == ["apartment"]
    assert disagreement_mm(reader(tmp_path).read("apartment")) < AGREE_MM


def test_wrong_conventions_would_show(tmp_path: Path) -> None:
    write_open3d(tmp_path / "scan", box_room(4))
    path = tmp_path / "scan" / "trajectory.log"
    lines = path.read_text().splitlines()
    for start in range(1, len(lines), 5):
        inverse = np.linalg.inv([list(map(float, line.split())) for line in lines[start : start + 4]])
        lines[start : start + 4] = [" ".join(map(str, row)) for row in inverse]
    path.write_text("\n".join(lines))
    assert disagreement_mm(reader(tmp_path, up=[0, 1, 0]).read("scan")) > 4 * AGREE_MM


def test_a_file_that_is_gone_moves_no_pose_to_another(tmp_path: Path) -> None:
    write_open3d(tmp_path / "scan", box_room(6))
    folder = tmp_path / "scan"
    depths, colours = sorted((folder / "depth").iterdir()), sorted((folder / "color").iterdir())
    depths[2].unlink()
    colours[4].unlink()
    log = (folder / "trajectory.log").read_text().splitlines()
    log[5] = "17 17 18"
    log[16:20] = ["nan 0 0 0"] * 4
    (folder / "trajectory.log").write_text("\n".join(log))
    scene = reader(tmp_path, up=[0, 1, 0]).read("scan")
    _, rejects = to_samples(scene, SampleShape(6, 24, 24), ViewConfig(candidate_step=1))
    assert [(r.frame_id[:7], r.reason) for r in rejects] == [
        ("0000001", "no pose"),
        ("0000003", "non-finite pose"),
        ("0000004", "no colour"),
        ("2", "no depth"),
        ("17", "no depth"),
    ]
    np.testing.assert_allclose(scene.frames[1].pose[2], box_room(6).frames[5].pose[2], atol=1e-6)


def test_files_named_by_times_go_by_their_order(tmp_path: Path) -> None:
    write_open3d(tmp_path / "scan", box_room(4))
    for part in ("depth", "color"):
        for i, path in enumerate(sorted((tmp_path / "scan" / part).iterdir())):
            path.rename(path.with_name(f"{1305031102 + 1000 * i}{path.suffix}"))
    assert disagreement_mm(reader(tmp_path).read("scan")) < AGREE_MM
    next((tmp_path / "scan" / "depth").iterdir()).unlink()
    with pytest.raises(ValueError, match="4 poses for 3 files whose numbers are times"):
        reader(tmp_path).read("scan")


def test_bad_files_are_named(tmp_path: Path) -> None:
    write_open3d(tmp_path / "scan", box_room(2))
    folder = tmp_path / "scan"
    camera = folder / "camera_primesense.json"
    values = json.loads(camera.read_text())
    rows = np.array(values["intrinsic_matrix"]).reshape(3, 3).T.reshape(-1).tolist()
    for content, error in (
        ({**values, "intrinsic_matrix": rows}, "stored row by row"),
        ({**values, "intrinsic_matrix": [1, 2]}, "has 2 numbers, expected 9"),
        ({"width": 640}, "expected width, height and intrinsic_matrix"),
    ):
        camera.write_text(json.dumps(content))
        with pytest.raises(ValueError, match=rf"camera_primesense\.json: .*{error}"):
            reader(tmp_path).read("scan")
    camera.unlink()
    with pytest.raises(ValueError, match=r"set reader\.open3d\.camera=primesense"):
        reader(tmp_path).read("scan")
    log = folder / "trajectory.log"
    whole = log.read_text()
    for text, error in (
        (whole[: whole.rindex("\n", 0, -1)], "line 6: the file ends within"),
        (whole.replace("0 0 1\n", "0 0 1 2\n", 1), "line 1: 4 numbers, expected 3"),
        (whole.replace("1 1 2\n", "0 0 1\n"), "1 numbers of frames occur twice"),
    ):
        log.write_text(text)
        with pytest.raises(ValueError, match=rf"trajectory\.log(, |: ){error}"):
            reader(tmp_path, camera="primesense").read("scan")
    for config in ({"camera": "kinect"}, {"camera": "primesense", "intrinsics": [1.0] * 4}):
        with pytest.raises(ValueError, match="camera"):
            reader(tmp_path, **config)


@pytest.mark.skipif(not REAL.is_dir(), reason="Open3D's sample frames are not in this repository")
def test_real_frames_of_open3d_agree() -> None:
    """Its world is y-up, which the estimate finds."""
    scene = reader(REAL).read(REAL.name)
    assert len(scene.frames) == 5
    assert disagreement_mm(scene) < AGREE_MM
    level = reader(REAL, up=[0.0, 1.0, 0.0]).read(REAL.name)
    off = np.arccos(scene.frames[0].pose[2, :3] @ level.frames[0].pose[2, :3])
    assert np.rad2deg(off) < 5
