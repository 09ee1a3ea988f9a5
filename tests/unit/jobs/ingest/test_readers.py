"""Every kind of source through `poma ingest`, from files in its documented layout to shards."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from jobs.cli import main
from jobs.common.datasets import open_dataset
from plinth.storage import StorageOptions
from poma3d.scenes.frame import SceneFrames
from tests.helpers.recordings import write_arkitscenes, write_sens, write_three_rscan
from tests.helpers.scans import room, write_scannet, write_scene_point, write_seven_scenes
from tests.helpers.scenes.layouts import (
    UPRIGHT,
    write_bundle_fusion,
    write_matterport,
    write_nerfstudio,
    write_open3d,
    write_replica,
    write_tum,
)
from tests.helpers.tiny_jobs import SIDE, ingest_job, pretrain_job, write

NAME = "scene0000_00"
TOOLS: dict[str, Callable[[Path, SceneFrames], None]] = {
    "nerfstudio": lambda folder, scene: write_nerfstudio(folder, scene, UPRIGHT),
    "tum": write_tum,
    "open3d": lambda folder, scene: write_open3d(folder, scene, UPRIGHT),
    "replica": write_replica,
    "matterport": write_matterport,
    "bundle_fusion": lambda folder, scene: write_bundle_fusion(folder, scene, world=UPRIGHT),
}
"""Layouts of SLAM and capture tools."""
CAMERAS = {"tum": {"intrinsics": [float(x) for x in room(1, views=1).frames[0].intrinsics]}}


def write_source(kind: str, root: Path) -> dict[str, Any]:
    """One scan of the kind; its section of the reader's config."""
    scene = room(1, views=6)
    if kind == "seven_scenes":
        write_seven_scenes(root / NAME, scene, np.eye(3))
        return {"root": str(root), "up": [0.0, 0.0, 1.0]}
    if kind == "scannet":
        write_scannet(root, NAME, scene, None)
    elif kind == "scannet_sens":
        write_sens(root / NAME / f"{NAME}.sens", scene)
    elif kind == "three_rscan":
        write_three_rscan(root, NAME, scene)
    elif kind in TOOLS:
        TOOLS[kind](root / NAME, scene)
        return {"root": str(root), "up": [0.0, 0.0, 1.0]} | CAMERAS.get(kind, {})
    else:
        write_arkitscenes(root / NAME, scene)
    return {"root": str(root)}


@pytest.mark.parametrize(
    "kind", ["seven_scenes", "scannet", "scannet_sens", "three_rscan", "arkitscenes", *TOOLS]
)
def test_a_scan_becomes_the_room_that_it_was_written_from(kind: str, tmp_path: Path) -> None:
    job = ingest_job(tmp_path / "out")
    job["reader"] = {"kind": kind, kind: write_source(kind, tmp_path / "scans")}
    assert main(["ingest", write(tmp_path / "job.yaml", job)]) == 0
    [sample] = open_dataset(str(tmp_path / "out"), StorageOptions()).samples()
    assert sample.scene_id == NAME
    assert len(sample.colour) == 2
    poses = np.stack([frame.pose for frame in room(1, views=6).frames])
    away = np.abs(poses[:, None] - sample.pose[None]).max(axis=(2, 3)).min(axis=0)
    assert away.max() < 1e-4, "the views stand where the cameras stood"


def test_published_point_maps_go_all_the_way(made: Path, tmp_path: Path) -> None:
    """ScenePoint: points without a camera, through ingest, embed and preview into a step of training."""
    write_scene_point(tmp_path / "scans" / f"{NAME}.safetensors")
    captions = [{"scan_id": NAME, "utterance": [f"view {view}", "a room"]} for view in range(4)]
    (tmp_path / "views.jsonl").write_text("\n".join(map(json.dumps, captions)))
    section = {"root": str(tmp_path / "scans"), "view_captions_file": str(tmp_path / "views.jsonl")}
    job = ingest_job(tmp_path / "points")
    job["reader"] = {"kind": "scene_point", "scene_point": section}
    assert main(["ingest", write(tmp_path / "job.yaml", job)]) == 0
    embed = {"kind": "embed", "data": str(tmp_path / "points"), "workers": 0}
    embed["teacher"] = {"source": str(made / "teacher")}
    assert main(["embed", write(tmp_path / "embed.yaml", embed)]) == 0
    dataset = open_dataset(str(tmp_path / "points"), StorageOptions())
    assert dataset.shape.xyz
    [sample] = dataset.samples()
    assert sample.xyz is not None
    assert sample.xyz.shape == (2, SIDE, SIDE, 3)
    assert [texts[1] for texts in sample.view_captions] == ["a room"] * 2
    assert main(["shards", "preview", dataset.storage.uri, "--out", str(tmp_path / "sheet.png")]) == 0
    training = pretrain_job(tmp_path, warmup=None, teacher=embed["teacher"])
    training["main"] |= {"steps": 1, "warmup_steps": 0, "global_batch_size": 2}
    training["main"]["data"]["sources"] = [{"uri": dataset.storage.uri}]
    training["model"]["augment"] = {"rotate_z_degrees": 180.0}
    assert main(["pretrain", write(tmp_path / "pretrain.yaml", training)]) == 0
    single = ["views.single_images=true", "shape.views=1", f"output={tmp_path}/single"]
    assert main(["ingest", str(tmp_path / "job.yaml"), *single]) == 2
