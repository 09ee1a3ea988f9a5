"""The real entry point from scans to an exported encoder, on Ray Train with DeepSpeed ZeRO, from and to S3.

The scan is the real one where it is at hand, and procedural rooms where it is not: the same commands.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from jobs.cli import main
from jobs.common.cluster import ray_cluster
from jobs.common.ray_config import RayConfig
from plinth.observe.step_lines import read_lines
from plinth.storage import Storage
from poma3d import export
from tests.helpers import tiny_jobs
from tests.helpers.tiny_jobs import SIDE, write
from tests.integration.conftest import S3Server, storage_section

pytestmark = pytest.mark.slow

SCAN = Path(__file__).parents[4] / "shared" / "data" / "rgbd" / "redkitchen"
STEPS = 4


def sources(bucket: Storage, scan: bool) -> dict[str, dict[str, Any]]:
    """Ingest jobs: sub-scenes of 8 views for the main stage, its colour frames as single images."""
    common = {"kind": "ingest", "storage": storage_section(bucket.options), "workers": 2}
    if not scan:
        rooms = {
            name: tiny_jobs.ingest_job(f"{bucket.uri}/{name}", views=v)
            for name, v in (("scenes", 8), ("images", 1))
        }
        return {name: {**job, **common} for name, job in rooms.items()}
    reader = {"kind": "seven_scenes", "seven_scenes": {"root": str(SCAN)}}
    sizes = {"height": SIDE, "width": SIDE, "captions": 3, "scene_captions": 2}
    return {
        "scenes": {
            **common,
            "output": f"{bucket.uri}/scenes",
            "reader": reader,
            "shape": {"views": 8, **sizes},
            "views": {"candidate_step": 1, "chunk_frames": 12, "captioned_first": True},
            "shards": {"row_group_rows": 2},
        },
        "images": {
            **common,
            "output": f"{bucket.uri}/images",
            "reader": reader,
            "shape": {"views": 1, **sizes},
            "views": {"candidate_step": 5, "single_images": True},
            "shards": {"row_group_rows": 4},
        },
    }


def pretrain_job(folder: Path, bucket: Storage) -> dict[str, Any]:
    job = tiny_jobs.pretrain_job(folder)
    for stage, data in (("warmup", "images"), ("main", "scenes")):
        job[stage]["data"].update(reader="ray", sources=[{"uri": f"{bucket.uri}/{data}"}])
    return {
        **job,
        "output": f"{bucket.uri}/runs",
        "teacher": {"source": f"{bucket.uri}/teacher"},
        "zero": {"stage": 2},
        "fit": {"workers": 2, "cpus_per_worker": 0.5},
        "storage": storage_section(bucket.options),
        "ray": {"num_cpus": 4},
    }


def test_every_command_from_scans_to_an_exported_encoder(
    s3_server: S3Server,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("POMA3D_CACHE", str(tmp_path / "cache"))
    bucket = s3_server.bucket()
    with ray_cluster(RayConfig(num_cpus=4), workers=2):  # one start instead of one for each command
        commands(SCAN.is_dir(), bucket, s3_server, tmp_path, capsys, monkeypatch)
    run = bucket.child("runs/run")
    results = json.loads(run.read("evaluation.json"))
    assert 0 <= results["this encoder"]["R@1-1"]["value"] <= 1

    written = {key: run.read(key) for key, _ in run.list()}
    assert s3_server.store.secret_key.encode() not in b"".join(written.values()), "a secret in the run"


def commands(
    scan: bool,
    bucket: Storage,
    s3_server: S3Server,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Every command in the order in which a user runs them."""
    for name, job in sources(bucket, scan).items():
        assert main(["ingest", write(tmp_path / f"{name}.yaml", job)]) == 0
    flags = ["--endpoint-url", str(bucket.options.endpoint_url), "--region", str(bucket.options.region)]

    tiny_jobs.make_teacher(tmp_path)
    for path in (tmp_path / "teacher").iterdir():
        bucket.child("teacher").upload(path, path.name)
    storage = storage_section(bucket.options)
    for name in ("scenes", "images"):
        job = {
            "kind": "embed",
            "data": f"{bucket.uri}/{name}",
            "teacher": {"source": f"{bucket.uri}/teacher"},
            "storage": storage,
            "workers": 0,
        }
        assert main(["embed", write(tmp_path / f"embed-{name}.yaml", job)]) == 0

    pretrain = write(tmp_path / "pretrain.yaml", pretrain_job(tmp_path, bucket))
    assert main(["pretrain", pretrain]) == 0
    run = bucket.child("runs/run")
    lines = {stage: read_lines(run.child(stage)) for stage in ("warmup", "main")}
    for stage in lines:
        assert [line["step"] for line in lines[stage]] == list(range(STEPS))
        assert all(np.isfinite(line["loss"]) for line in lines[stage])
        assert any("tfevents" in key for key, _ in run.child(stage).list("tensorboard"))
    assert {"view_image", "scene_text", "jepa"} <= lines["main"][0]["terms"].keys()

    # The same command again has nothing left to do, and says so; a longer job is another job.
    capsys.readouterr()
    assert main(["pretrain", pretrain, "fit.workers=0"]) == 0
    assert read_lines(run.child("main")) == lines["main"]
    assert main(["pretrain", pretrain, "main.steps=6"]) == 2
    assert "main.steps was 4 and is 6" in capsys.readouterr().err

    assert main(["checkpoints", "list", run.uri, *flags]) == 2  # no keys on the command line
    assert "refused" in (refusal := capsys.readouterr().err) or "credentials" in refusal, refusal
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", s3_server.store.access_key)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", s3_server.store.secret_key)
    assert main(["checkpoints", "list", run.uri, *flags]) == 0
    listed = capsys.readouterr().out
    assert "committed by 2 workers, ZeRO 2, fp32" in listed

    job = {"kind": "export", "run": run.uri, "output": str(tmp_path / "encoder"), "storage": storage}
    assert main(["export", write(tmp_path / "export.yaml", job)]) == 0
    encoder = export.load(tmp_path / "encoder")
    assert encoder.provenance.run.endswith(f"main step {STEPS}")
    features = encoder(torch.rand(1, 2, SIDE, SIDE, 3)).features
    torch.testing.assert_close(features.norm(dim=-1), torch.ones(1, 2))

    evaluation = {
        "kind": "evaluate", "run": run.uri, "data": f"{bucket.uri}/scenes",
        "teacher": {"source": f"{bucket.uri}/teacher"}, "storage": storage,
        "retrieval": {"utterances": [1], "best": [1]},
    }  # fmt: skip
    assert main(["evaluate", write(tmp_path / "evaluate.yaml", evaluation)]) == 0
    printed = capsys.readouterr().out
    assert all(name in printed for name in ("chance", "untrained encoder", "this encoder", "teacher on"))
