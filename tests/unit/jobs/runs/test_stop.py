"""`poma runs stop`: a real run saves and ends; one that does not run, or is dead, is not waited for."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from jobs.cli import main
from jobs.runs import stop as stop_module
from jobs.runs.state import read_run
from plinth.checkpoint import store
from plinth.observe.ledger import RUNNING, STOPPED
from plinth.storage import Storage, lock
from plinth.storage.lock import RunLock, read_lock, request_stop
from plinth.storage.options import LockConfig
from tests.helpers.run_folder import killed_run
from tests.helpers.tiny_jobs import pretrain_job, write

ROOT = Path(__file__).parents[4]
QUICK = LockConfig(beat_every_s=0.05, dead_after_s=0.4)
TIMEOUT_S = 240.0


def held(**changes: Any) -> bytes:
    """A lock whose holder is on another machine."""
    other = {"holder": "ann on node-1, process 11", "token": "t", "beat": 7, "machine": "other", "pid": 1}
    return json.dumps(other | {"process_start": 1} | changes).encode()


def test_the_holder_hears_a_request_that_is_meant_for_it(tmp_path: Path) -> None:
    storage = Storage.from_uri(tmp_path)
    storage.write(lock.STOP_KEY, json.dumps({"token": "of a start before", "by": "x"}).encode())
    with RunLock(storage, QUICK) as mine:
        assert not mine.stop_wanted.wait(6 * QUICK.beat_every_s), "left over from a start before"
        request_stop(storage, read_lock(storage) or {})
        assert mine.stop_wanted.wait(TIMEOUT_S)
    assert not storage.list(), "neither lock nor request is left"
    with RunLock(storage, QUICK) as again:
        assert not again.stop_wanted.wait(3 * QUICK.beat_every_s)


def test_one_that_is_not_running_is_told_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    storage = killed_run(tmp_path, outcome=STOPPED)
    assert main(["runs", "stop", storage.uri]) == 0
    said = capsys.readouterr().out
    assert "not running. It has stopped in main, step 70 of 120; last checkpoint: main 60" in said
    finished = killed_run(tmp_path / "other", step=120, outcome=STOPPED)
    assert main(["runs", "stop", finished.uri]) == 0
    assert "not running. It has finished." in capsys.readouterr().out
    assert main(["runs", "stop", str(tmp_path)]) == 2
    assert "is not a run" in capsys.readouterr().err


def test_nobody_waits_for_a_holder_that_is_gone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stop_module, "POLL_S", 0.02)
    storage = killed_run(tmp_path, outcome=RUNNING)
    job = storage.read("config.yaml").decode() + "lock: {dead_after_s: 0.2}\n"
    storage.write("config.yaml", job.encode())
    storage.write(lock.LOCK_KEY, held())
    assert main(["runs", "stop", storage.uri]) == 2
    assert "ann on node-1, process 11 gave no sign of life" in capsys.readouterr().err


@pytest.mark.slow
def test_a_run_without_ray_saves_and_ends(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    job = pretrain_job(folder, warmup=None)
    job["main"]["steps"] = 100_000
    job["checkpoint"]["every_steps"] = 100_000
    job["lock"] = {"beat_every_s": 0.5, "dead_after_s": 600.0}
    job["ledger"] = {"beat_every_s": 0.5}
    command = [sys.executable, "-m", "jobs.cli", "pretrain", write(folder / "job.yaml", job)]
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'platform'}", "OMP_NUM_THREADS": "1"}
    storage = Storage.from_uri(folder / "runs" / "run")
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(command, env=environment, cwd=folder, stdout=log, stderr=log)
    try:
        _until_it_trains(process, storage, folder / "log")
        assert main(["runs", "stop", storage.uri]) == 0
        said = capsys.readouterr().out
        assert process.wait(TIMEOUT_S) == 143
    finally:
        process.kill()
        process.wait()
    saved = store.latest(storage.child("main/checkpoints"))
    assert saved
    assert f"It has stopped in main, step {saved} of 100000; last checkpoint: main {saved}." in said
    assert "stopped as asked" in (folder / "log").read_text()
    assert "asked to stop by" in (folder / "log").read_text()
    state = read_run(storage, time.time())
    assert (state.status, state.stage and state.stage.step) == (STOPPED, saved)


def _until_it_trains(process: subprocess.Popen[bytes], storage: Storage, log: Path) -> None:
    deadline = time.monotonic() + TIMEOUT_S
    while not storage.list("ledger"):
        assert process.poll() is None, log.read_text()[-3000:]
        assert time.monotonic() < deadline, "it does not begin"
        time.sleep(0.2)
