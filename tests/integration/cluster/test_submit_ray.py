"""`poma submit` to a cluster of two nodes behind a token: a run is submitted, refused a second time, stopped,
submitted again, loses a node, and ends as if nothing had happened. What was secret is nowhere."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from jobs.cli import main
from jobs.submit.job_server import JobServer, find
from plinth.checkpoint import store
from plinth.observe.step_lines import read_lines
from plinth.storage import Storage
from tests.helpers import raylets, tiny_jobs
from tests.helpers.raylets import Raylets
from tests.helpers.tiny_jobs import pretrain_job, write

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]  # minutes only where others use the machine
STEPS, EVERY = 160, 8
TIMEOUT_S = 600.0
POMA = str(Path(sys.executable).parent / "poma")
PLANTED = {
    "AWS_ACCESS_KEY_ID": "AKIAPLANTED234567890",
    "AWS_SECRET_ACCESS_KEY": "pLantedSecretAccessKey/0123456789abcdefg",
    "HF_TOKEN": "hf_plantedplantedplanted0123",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("submitted")
    tiny_jobs.make_data(made)
    return made


@pytest.fixture
def cluster(folder: Path) -> Iterator[Raylets]:
    with raylets.running(2, folder, PLANTED) as started:
        started.environment |= PLANTED
        yield started


def job_file(folder: Path, name: str, **fit: Any) -> str:
    job = pretrain_job(folder, warmup=None, name=name, checkpoint={"every_steps": EVERY, "keep_last": 0})
    job["main"]["steps"] = STEPS
    job["lock"] = {"beat_every_s": 0.5, "dead_after_s": 120.0}
    job["fit"] = {"start_timeout_s": 30.0, **fit}
    return write(folder / f"{name}.yaml", job)


def saved(run: Storage) -> int:
    """Step of the last checkpoint."""
    return store.latest(run.child("main/checkpoints")) or 0


def until(is_true: Callable[[], bool], what: str, log: Path) -> None:
    deadline = time.monotonic() + TIMEOUT_S
    while not is_true():
        assert time.monotonic() < deadline, f"{what}: {log.read_text()[-3000:]}"
        time.sleep(0.1)


def test_submitted_run_survives_a_stop_and_a_lost_node(
    folder: Path, cluster: Raylets, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN_PATH", *PLANTED):
        monkeypatch.setenv(name, cluster.environment[name])
    straight, run = (Storage.from_uri(folder / "runs" / name) for name in ("straight", "run"))
    job = job_file(folder, "run", workers={"min": 1, "max": 2}, cpus_per_worker=1.0)
    command = ["submit", job, "--address", cluster.dashboard, "--yes"]

    assert main([*command, "--detach"]) == 0
    first = capsys.readouterr().out
    submission_id = first.split(" as ")[1].split(",")[0]
    assert f"poma submit --attach {submission_id} --address {cluster.dashboard}" in first
    assert main(command) == 2
    assert f"is at work as {submission_id}" in capsys.readouterr().err

    assert main(["pretrain", job_file(folder, "straight", workers=0)]) == 0
    until(lambda: saved(run) >= EVERY, "it trains", folder / "raylets.log")
    assert main(["runs", "stop", run.uri]) == 0
    stopped_at = saved(run)
    assert f"It has stopped in main, step {stopped_at} of {STEPS}" in capsys.readouterr().out
    assert 0 < stopped_at < STEPS
    assert main(["submit", "--attach", submission_id, "--address", cluster.dashboard]) == 143
    assert f"{submission_id}: stopped" in capsys.readouterr().out

    log = folder / "again.log"
    again = _poma(cluster, log, *command)
    until(lambda: saved(run) >= stopped_at + EVERY, "it resumes", log)
    os.kill(cluster.pids[1], signal.SIGKILL)
    assert again.wait(TIMEOUT_S) == 0, log.read_text()[-5000:]
    assert f"resuming after step {stopped_at} of {STEPS}" in log.read_text()
    assert f"{submission_id.removesuffix('1')}2: done" in log.read_text()

    lines, expected = read_lines(run.child("main")), read_lines(straight.child("main"))
    assert [line["step"] for line in lines] == list(range(STEPS))
    sizes = [line["world_size"] for line in lines]
    assert sizes == sorted(sizes, reverse=True), "two workers, then one"
    assert set(sizes) == {1, 2}
    assert [line["digest"] for line in lines] == [line["digest"] for line in expected]
    losses = [line["loss"] for line in lines]
    assert losses == pytest.approx([line["loss"] for line in expected], rel=1e-5)
    _nothing_is_told(folder, cluster)


def _poma(cluster: Raylets, log: Path, *arguments: str) -> subprocess.Popen[bytes]:
    """The command as a user starts it, from another folder."""
    with log.open("w") as file:
        return subprocess.Popen(
            [POMA, *arguments], env=cluster.environment, cwd=log.parent, stdout=file, stderr=file
        )


def _nothing_is_told(folder: Path, cluster: Raylets) -> None:
    """No planted secret in what Ray lists, in what it unpacked, in its logs, in any file of the run."""
    listed = JobServer(find(None, cluster.dashboard))._client.list_jobs()
    assert len([job for job in listed if job.submission_id]) == 2
    told = json.dumps([job.model_dump() for job in listed], default=str).encode()
    packages = cluster.session / "runtime_resources" / "working_dir_files"
    assert list(packages.glob("*/job.yaml")), "the package was unpacked there"
    assert list((folder / "runs" / "run").rglob("events.out.tfevents*"))
    places = [packages, cluster.session / "logs", folder / "runs", folder / "again.log"]
    files = [f for place in places for f in ([place] if place.is_file() else place.rglob("*")) if f.is_file()]
    for name, secret in PLANTED.items():
        assert secret.encode() not in told, f"{name} in Ray's listing"
        found = [str(file) for file in files if secret.encode() in file.read_bytes()]
        assert not found, name
