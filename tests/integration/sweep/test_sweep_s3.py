"""`poma sweep` through its entry point with everything on S3: killed, run again, shown, promoted."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from jobs.cli import main
from jobs.common.cluster import ray_cluster
from jobs.common.ray_config import RayConfig
from plinth.observe.step_lines import read_lines
from plinth.storage import Storage
from plinth.sweep.records import Status, Trial, best_first, read_sweep, read_trials
from tests.helpers import tiny_jobs
from tests.helpers.tiny_jobs import write
from tests.integration.conftest import S3Server, storage_section

pytestmark = pytest.mark.slow
PATIENCE_S = 300.0
ROOT = Path(__file__).parents[3]
STEPS = 8


def sweep_job(folder: Path, bucket: Storage) -> dict[str, Any]:
    """Two trials of the main stage from one warm-up, judged by retrieval at every checkpoint."""
    job = tiny_jobs.pretrain_job(folder)
    for stage, data in (("warmup", "images"), ("main", "rooms")):
        job[stage]["data"] = job[stage]["data"] | {"sources": [{"uri": f"{bucket.uri}/{data}"}]}
    job["main"]["steps"] = STEPS
    job["checkpoint"] = {"every_steps": 4}
    return {
        **job,
        "kind": "sweep",
        "name": "s",
        "output": f"{bucket.uri}/sweeps",
        "teacher": {"source": f"{bucket.uri}/teacher"},
        "fit": {"workers": {"min": 1, "max": 1}, "cpus_per_worker": 0.5},
        "lock": {"beat_every_s": 0.5, "dead_after_s": 10.0},
        "storage": storage_section(bucket.options),
        "ray": {"num_cpus": 2},
        "evaluation": {"data": f"{bucket.uri}/rooms", "retrieval": {"utterances": [1], "best": [1]}},
        "sweep": {
            "space": {
                "main.lr": {"log_uniform": [1e-4, 1e-2]},
                "main.loss.jepa": {"choice": [0.0, 1.0]},
            },
            "metric": "R@1-1",
            "mode": "max",
            "trials": 2,
            "workers": 1,
            "max_concurrent": 1,
            "scheduler": {"kind": "asha", "grace": 0.25, "reduction": 2},
        },
    }


def put_data(folder: Path, bucket: Storage) -> None:
    tiny_jobs.make_data(folder)
    for name in ("images", "rooms", "teacher"):
        for path in (folder / name).rglob("*"):
            if path.is_file():
                bucket.child(name).upload(path, str(path.relative_to(folder / name)))


def killed_in_its_middle(job: str, folder: Path, storage: Storage) -> list[Trial]:
    """The trials of a sweep whose driver got SIGKILL once one of them had reported."""
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'platform'}", "OMP_NUM_THREADS": "1"}
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "jobs.cli", "sweep", job],
            cwd=folder,
            env=environment,
            stdout=log,
            stderr=log,
        )
    until = time.monotonic() + PATIENCE_S
    try:
        while not any(trial.history.reports for trial in read_trials(storage)):
            assert process.poll() is None, (folder / "log").read_text()[-3000:]
            assert time.monotonic() < until, (folder / "log").read_text()[-3000:]
            time.sleep(0.2)
    finally:
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    return read_trials(storage)


def test_sweep_on_s3_killed_resumed_shown_and_promoted(
    s3_server: S3Server, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("POMA3D_CACHE", str(tmp_path / "cache"))
    bucket = s3_server.bucket()
    put_data(tmp_path, bucket)
    job = write(tmp_path / "sweep.yaml", sweep_job(tmp_path, bucket))
    storage = bucket.child("sweeps/s")
    killed = killed_in_its_middle(job, tmp_path, storage)
    warmup = read_lines(storage.child("shared/warmup"))
    assert len(warmup) == 4
    with ray_cluster(RayConfig(num_cpus=2), workers=1):  # one start instead of one for each command
        assert main(["sweep", job]) == 0
        trials = read_trials(storage)
        record = read_sweep(storage)
        assert record is not None
        assert (record.status, record.starts) == ("finished", 2)
        assert len(trials) == 2
        assert {trial.record.status for trial in trials} <= {Status.finished, Status.stopped}
        for before, now in zip(killed, trials, strict=False):
            assert now.record.values == before.record.values
            assert now.history.reports[: len(before.history.reports)] == before.history.reports
            assert [report.step for report in now.history.reports] == [4, 8][: len(now.history.reports)]
            lines = read_lines(storage.child(f"trials/{now.record.name}/main"))
            assert [line["step"] for line in lines] == list(range(len(lines)))
        assert read_lines(storage.child("shared/warmup")) == warmup, "the warm-up is not trained again"

        monkeypatch.setenv("AWS_ACCESS_KEY_ID", s3_server.store.access_key)
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", s3_server.store.secret_key)
        flags = ["--endpoint-url", str(bucket.options.endpoint_url), "--region", str(bucket.options.region)]
        capsys.readouterr()
        assert main(["sweep", "show", storage.uri, *flags]) == 0
        assert "2 of 2" in (shown := capsys.readouterr().out), shown
        assert b"R@1-1" in storage.read("index.html")
        assert any("tfevents" in key for key, _ in storage.list("tensorboard"))

        out = tmp_path / "promoted.yaml"
        assert (
            main(["sweep", "promote", storage.uri, "best", "--with-checkpoint", "--out", str(out), *flags])
            == 0
        )
        assert main(["pretrain", str(out)]) == 0
        best = best_first(trials, "R@1-1", "max")[0].record.name
        promoted = bucket.child(f"sweeps/s-{best}")
        assert len(read_lines(promoted.child("main"))) == STEPS
        assert not promoted.list("warmup"), "it goes on from the trial's weights"
        written = b"".join(bucket.read(key) for key, _ in bucket.list("sweeps"))
        assert s3_server.store.secret_key.encode() not in written
