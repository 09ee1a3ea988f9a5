"""`poma lift` killed for real, on Ray and without it, from and to S3: the same data set in the end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from jobs.caption import command as caption
from jobs.caption.config import CaptionJob
from jobs.common import ray_data
from jobs.common.cluster import Progress, ray_cluster
from jobs.common.datasets import Dataset, open_dataset
from jobs.common.ray_config import RayConfig
from jobs.lift import command as lift
from jobs.lift.config import LiftJob
from plinth import config
from plinth.data.shards import verify
from plinth.errors import DataError
from plinth.storage import StorageOptions
from tests.helpers.lift.image_sets import lift_job, photo, write_photos_tar
from tests.helpers.lift.tiny_captioner import save_captioner
from tests.helpers.lift.tiny_lifter import save_depth_pro
from tests.helpers.tiny_jobs import make_teacher, write
from tests.integration.conftest import S3Server, storage_section

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[3]
SEEDS = range(12)
KILLS = [
    ("jobs.lift.command", "scan_piece", 2),
    ("jobs.lift.tasks", "write_shard", 3),
    ("jobs.lift.tasks", "write_commit", 5),
    ("plinth.data.manifest", "commit", 2),
]
"""One after another on the same data set: in the scan, before a shard, between a shard and its commit, and
between the version and the manifest that is read. The unit tests fail at every step; here a process starts
for each, which costs seconds."""


def job(folder: Path, name: str, **changes: Any) -> dict[str, Any]:
    return {**lift_job(folder / name, [{"uri": str(folder / "tars")}], images_per_shard=1), **changes}


def run(path: str, *kill: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tests.helpers.lift.main", path, *map(str, kill)]
    environment = {**os.environ, "PYTHONPATH": f"{ROOT / 'platform'}:{ROOT}"}
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)


def shards(dataset: Dataset) -> dict[str, bytes]:
    return {key: dataset.storage.read(key) for key, _ in dataset.storage.list("shards")}


def stamps(folder: Path) -> dict[str, int]:
    """When each file under shards and commits was last written."""
    found = [p for part in ("shards", "lift/commits") for p in (folder / part).rglob("*") if p.is_file()]
    return {p.name: p.stat().st_mtime_ns for p in found}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Photos in two tars, a tiny Depth Pro, and the data set of a run that nobody disturbed."""
    folder = tmp_path_factory.mktemp("lift")
    write_photos_tar(folder / "tars" / "0.tar", SEEDS[:7])
    write_photos_tar(folder / "tars" / "1.tar", SEEDS[7:])
    save_depth_pro(folder / "depth_pro")
    lift.lift(config.build(LiftJob, [("job", job(folder, "straight"))]))
    return folder


@pytest.fixture(scope="module")
def straight(folder: Path) -> Dataset:
    return open_dataset(str(folder / "straight"), StorageOptions())


def assert_same(dataset: Dataset, straight: Dataset) -> None:
    assert [s.view_captions[0][0] for s in dataset.samples()] == [photo(seed).caption for seed in SEEDS]
    assert shards(dataset) == shards(straight)
    assert dataset.manifest.hash == straight.manifest.hash
    assert verify(dataset.storage, dataset.manifest) == []


def test_kill_nine_at_every_step_loses_and_repeats_nothing(folder: Path, straight: Dataset) -> None:
    wanted = write(folder / "killed.yaml", job(folder, "killed"))
    written: dict[str, int] = {}
    for kill in KILLS:
        done = run(wanted, *kill)
        assert done.returncode == -signal.SIGKILL, done.stderr
        now = stamps(folder / "killed")
        committed = {p.stem for p in (folder / "killed" / "lift" / "commits").rglob("*.json")}
        finished = {k: v for k, v in written.items() if k.split("-")[0].split(".")[0] in committed}
        assert finished.items() <= now.items(), "what was committed before is not written again"
        written = {k: v for k, v in now.items() if k.split("-")[0].split(".")[0] in committed}
    done = run(wanted)
    assert done.returncode == 0, done.stderr
    assert_same(open_dataset(str(folder / "killed"), StorageOptions()), straight)


def test_kill_nine_of_a_driver_on_ray(folder: Path, straight: Dataset) -> None:
    wanted = write(folder / "ray.yaml", job(folder, "ray", workers=2, ray={"num_cpus": 2}))
    assert run(wanted, "jobs.common.cluster", "Progress.advance", 5).returncode == -signal.SIGKILL
    before = stamps(folder / "ray")
    assert list((folder / "ray" / "lift" / "commits").glob("*.json"))
    assert not (folder / "ray" / "MANIFEST.json").exists()
    done = run(wanted)
    assert done.returncode == 0, done.stderr
    committed = {k: v for k, v in before.items() if k.endswith(".json")}
    assert committed.items() <= stamps(folder / "ray").items()
    assert_same(open_dataset(str(folder / "ray"), StorageOptions()), straight)


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    with ray_cluster(RayConfig(num_cpus=3), workers=2):
        yield


def kill_a_worker_after_one(monkeypatch: pytest.MonkeyPatch, job_module: Any, unit: str) -> list[int]:
    """Kill an actor of Ray Data's pool once, when the first of the units is done; its pid when that was."""
    killed: list[int] = []

    class Killing(Progress):
        def advance(self, n: int = 1) -> None:
            super().advance(n)
            if self.unit == unit and not killed:
                for process in psutil.Process().children(recursive=True):
                    if "MapWorker" in " ".join(process.cmdline()):
                        process.kill()
                        killed.append(process.pid)

    monkeypatch.setattr(job_module, "Progress", Killing)
    return killed


def test_a_lifter_that_dies_is_replaced(
    folder: Path, cluster: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A tiny Depth Pro in an actor of Ray Data's pool, killed after the first part."""
    lifter = {"kind": "depth_pro", "source": str(folder / "depth_pro"), "batch_size": 1}
    gates = {"min_fov_deg": 1.0, "max_fov_deg": 179.0, "min_relief": 0.0, "max_median_depth_m": 0.0}
    common = {"lifter": lifter, "gates": gates, "inputs": [{"uri": str(folder / "tars" / "1.tar")}]}
    here, _ = lift.lift(config.build(LiftJob, [("job", job(folder, "model-here", **common))]))
    killed = kill_a_worker_after_one(monkeypatch, lift, "parts")
    changes = {**common, "workers": 2}
    there, _ = lift.lift(config.build(LiftJob, [("job", job(folder, "model-ray", **changes))]))
    assert killed, "the actor was to be killed"
    assert len(there.manifest.shards) == len(SEEDS[7:])
    assert shards(there) == shards(here)


def test_a_captioner_that_dies_is_replaced(
    folder: Path, straight: Dataset, cluster: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """`poma caption` of what was lifted, its actor killed after the first shard."""
    make_teacher(tmp_path)
    save_captioner(tmp_path / "model")
    wanted = {
        "kind": "caption", "data": straight.storage.uri, "existing": "replace", "captions": 2,
        "captioner": {"source": str(tmp_path / "model"), "candidates": 3, "max_new_tokens": 4},
        "teacher": {"source": str(tmp_path / "teacher")},
    }  # fmt: skip

    def captioned(name: str, workers: int) -> Dataset:
        told = {**wanted, "output": str(tmp_path / name), "workers": workers}
        return caption.caption(config.build(CaptionJob, [("job", told)]))

    here = captioned("here", 0)
    killed = kill_a_worker_after_one(monkeypatch, ray_data, "shards")
    there = captioned("there", 1)
    assert killed, "the actor was to be killed"
    assert len(there.manifest.shards) == len(SEEDS)
    assert shards(there) == shards(here)


def test_a_mistake_in_a_task_is_one_line(folder: Path, cluster: None, tmp_path: Path) -> None:
    wanted = job(folder, "broken", workers=2)
    wanted["inputs"] = [
        {"uri": str(folder / "tars"), "kind": "tar"},
        {"uri": str(tmp_path), "kind": "parquet"},
    ]
    (tmp_path / "x.parquet").write_bytes(b"no table")
    with pytest.raises(DataError, match=r"x\.parquet: cannot be read as Parquet"):
        lift.lift(config.build(LiftJob, [("job", wanted)]))


def test_from_and_to_s3(folder: Path, straight: Dataset, s3_server: S3Server) -> None:
    bucket = s3_server.bucket()
    for path in (folder / "tars").iterdir():
        bucket.upload(path, f"tars/{path.name}")
    storage = storage_section(bucket.options)
    wanted = {**job(folder, "s3"), "storage": storage, "output": f"{bucket.uri}/maps"}
    wanted["inputs"] = [{"uri": f"{bucket.uri}/tars"}]
    path = write(folder / "s3.yaml", wanted)
    assert run(path, "jobs.lift.tasks", "write_commit", 4).returncode == -signal.SIGKILL
    dataset, _ = lift.lift(config.build(LiftJob, [("job", wanted)]))
    # The places of images differ, so do the names of shards; their content is the same.
    assert [s.sample_id for s in dataset.samples()] == [s.sample_id for s in straight.samples()]
    assert verify(dataset.storage, dataset.manifest) == []
