"""Replica as rendered for SLAM, written by the test."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from poma3d.sample import SampleShape
from poma3d.scenes.config import ReplicaConfig, ViewConfig
from poma3d.scenes.layouts.replica import ReplicaReader
from poma3d.scenes.views import to_samples
from tests.helpers.scans import box_room, disagreement_mm
from tests.helpers.scenes.layouts import OPENGL, write_replica

AGREE_MM = 10.0


def reader(root: Path, **config: Any) -> ReplicaReader:
    return ReplicaReader(ReplicaConfig(str(root), **config))


def test_views_agree(tmp_path: Path) -> None:
    original = box_room(4)
    write_replica(tmp_path / "room0", original)
    assert reader(tmp_path).scene_ids() == ["room0"]
    scene = reader(tmp_path).read("room0")
    assert scene.depth_scale == pytest.approx(1 / 6553.5)
    assert disagreement_mm(scene) < AGREE_MM
    for frame, want in zip(scene.frames, original.frames, strict=True):
        np.testing.assert_allclose(frame.pose, want.pose, atol=1e-12)
        np.testing.assert_allclose(frame.intrinsics, want.intrinsics)
    path = tmp_path / "room0" / "traj.txt"
    flipped = [np.reshape(row, (4, 4)) @ OPENGL for row in np.loadtxt(path)]
    np.savetxt(path, np.reshape(flipped, (4, 16)))
    assert disagreement_mm(reader(tmp_path).read("room0")) > 4 * AGREE_MM, "the check can fail"


def test_frames_go_by_their_numbers(tmp_path: Path) -> None:
    write_replica(tmp_path / "room0", box_room(5))
    results = tmp_path / "room0" / "results"
    (results / "depth000001.png").unlink()
    (results / "frame000002.jpg").unlink()
    path = tmp_path / "room0" / "traj.txt"
    path.write_text("\n".join(path.read_text().splitlines()[:4]))
    scene = reader(tmp_path).read("room0")
    _, rejects = to_samples(scene, SampleShape(5, 24, 24), ViewConfig(candidate_step=1))
    assert [(r.frame_id, r.reason) for r in rejects] == [
        ("000004", "no pose"),
        ("000001", "no depth"),
        ("000002", "unreadable colour"),
    ]
    np.testing.assert_allclose(scene.frames[2].pose, box_room(5).frames[3].pose, atol=1e-12)


def test_bad_files_are_named(tmp_path: Path) -> None:
    write_replica(tmp_path / "room0", box_room(2))
    camera = tmp_path / "cam_params.json"
    whole = json.loads(camera.read_text())
    for content in ({}, {"camera": {}}, {"camera": {**whole["camera"], "scale": 0}}, [1]):
        camera.write_text(json.dumps(content))
        with pytest.raises(ValueError, match=r"cam_params\.json: expected .*fx, fy, cx, cy, scale"):
            reader(tmp_path).read("room0")
    camera.unlink()
    with pytest.raises(ValueError, match=r"set reader\.replica\.intrinsics"):
        reader(tmp_path).read("room0")
    given = reader(tmp_path, intrinsics=[100.0, 110.0, 60.0, 50.0])
    assert disagreement_mm(given.read("room0")) < AGREE_MM
    path = tmp_path / "room0" / "traj.txt"
    path.write_text(path.read_text() + "1 0 0 0\n")
    with pytest.raises(ValueError, match=r"traj\.txt, line 3: 4 numbers, expected 16"):
        given.read("room0")
    (tmp_path / "room0" / "results" / "depth_last.png").write_bytes(b"")
    path.write_text("")
    with pytest.raises(ValueError, match=r"depth_last\.png: expected a name such as depth000000\.png"):
        given.read("room0")
