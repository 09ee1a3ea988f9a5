"""SIGTERM to all processes of a run at once, as from `timeout`, a shell, Slurm or systemd: it saves first."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from jobs.cli import main
from jobs.runs.state import read_run
from plinth.checkpoint import store
from plinth.errors import STOPPED_EXIT_CODE
from plinth.storage import Storage
from tests.helpers.tiny_jobs import embed_file, make_teacher, pretrain_job, write

pytestmark = pytest.mark.slow
START_LIMIT_S, END_LIMIT_S = 300.0, 120.0
MANY_STEPS = 100_000


def test_a_run_saves_when_all_its_processes_are_told_to_end(tmp_path: Path) -> None:
    make_teacher(tmp_path)
    assert main(["embed", embed_file(tmp_path, "rooms")]) == 0
    job = pretrain_job(
        tmp_path,
        checkpoint={"every_steps": MANY_STEPS},
        fit={"workers": 1, "cpus_per_worker": 0.5},
        metrics={"progress_every_s": 1.0},
        ray={"num_cpus": 1, "object_store_bytes": 100_000_000},
    )
    job["main"]["steps"] = MANY_STEPS
    job.pop("warmup")
    run = Storage.from_uri(tmp_path / "runs/run")
    log = tmp_path / "log"
    with log.open("w") as out:
        driver = subprocess.Popen(
            [sys.executable, "-m", "jobs.cli", "pretrain", write(tmp_path / "job.yaml", job)],
            stdout=out, stderr=out, start_new_session=True,
        )  # fmt: skip
    try:
        seen = _step_after(3, driver, log)
        tree = psutil.Process(driver.pid).children(recursive=True)
        names = {process.name() for process in tree}
        assert {"raylet", "gcs_server"} <= names, names
        driver.send_signal(signal.SIGTERM)  # as `timeout` does: the child, then its group
        os.killpg(driver.pid, signal.SIGTERM)
        for process in tree:  # and as Slurm does, whatever its group
            if process.is_running():
                process.send_signal(signal.SIGTERM)
        assert driver.wait(END_LIMIT_S) == STOPPED_EXIT_CODE, log.read_text()[-3000:]
    finally:
        if driver.poll() is None:
            os.killpg(driver.pid, signal.SIGKILL)
    last = store.latest(run.child("main/checkpoints"))
    assert last is not None
    assert last >= seen, "nothing that was trained is lost"
    assert read_run(run, time.time()).status == "stopped"
    _, alive = psutil.wait_procs(tree, timeout=10)
    assert not alive, "Ray's processes end with the run"


def _step_after(step: int, driver: subprocess.Popen[bytes], log: Path) -> int:
    """Waits until the terminal says that a run is past a step; the step that it says."""
    deadline = time.monotonic() + START_LIMIT_S
    while time.monotonic() < deadline and driver.poll() is None:
        told = [int(found) for found in re.findall(r"\bmain (\d+)/", log.read_text())]
        if told and told[-1] > step:
            return told[-1]
        time.sleep(0.5)
    raise AssertionError(f"no step after {START_LIMIT_S} s: {log.read_text()[-3000:]}")
