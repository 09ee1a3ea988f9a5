"""Rank logs: what a killed process leaves, what a failure says, and what goes to storage."""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from plinth.errors import StorageError
from plinth.observe import rank_logs
from plinth.observe.failures import read_failures
from plinth.observe.rank_logs import RankLog, salvage
from plinth.storage import Storage

PLANTED = "pl4nted-s3cret"
LONGEST_WAIT_S = 30.0
CHILD = """
import logging, sys, time
from pathlib import Path
from typing import Any
from plinth.observe.rank_logs import RankLog
logging.getLogger("plinth").setLevel(logging.INFO)
with RankLog(Path(sys.argv[1]), "first", 1) as rank_log:
    logging.getLogger("plinth.train.loop").info("hello from rank %d", 1)
    for step in range(100):
        rank_log.batch(step, [f"room-{step}", "room-x"], "warmup")
    print("ready", flush=True)
    time.sleep(600)
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "rank_log"


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    return Storage.from_uri(tmp_path / "run")


def names(storage: Storage) -> list[str]:
    return [key for key, _ in storage.list()]


def killed_child(folder: Path) -> int:
    """Pid of a process that was killed without warning while it had a rank log open."""
    child = subprocess.Popen([sys.executable, "-c", CHILD, str(folder)], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    assert child.stdout.readline() == "ready\n"
    child.send_signal(signal.SIGKILL)
    child.wait()
    child.stdout.close()
    return child.pid


def test_killed_process_leaves_last_batches(folder: Path, storage: Storage) -> None:
    pid = killed_child(folder)
    lines = [json.loads(line) for line in (folder / "first-rank1.batches").read_text().splitlines()]
    assert [line["step"] for line in lines][-4:] == [96, 97, 98, 99]
    assert len(lines) <= rank_logs.BATCHES_BEFORE_CUT
    salvage(folder, storage)
    (failure,) = read_failures(storage)
    assert (failure.attempt, failure.rank, failure.pid) == ("first", 1, pid)
    assert (failure.error, failure.step, failure.sample_ids) == ("vanished", 99, ["room-99", "room-x"])
    assert failure.stage == "warmup"
    assert failure.time == pytest.approx(time.time(), abs=60)
    assert b"plinth.train.loop: hello from rank 1" in storage.read("logs/first-rank1.log")
    assert not list(folder.iterdir()), "nobody writes these any more"


def test_files_of_a_living_process_stay(folder: Path, storage: Storage) -> None:
    with RankLog(folder, "first", 0) as rank_log:
        rank_log.batch(3, ["a"])
        salvage(folder, storage)
        assert names(storage) == ["logs/first-rank0.batches", "logs/first-rank0.log"]
        assert (folder / "first-rank0.log").exists()
        rank_log.batch(4, ["b"])
    salvage(folder, storage)
    assert not list(folder.iterdir())
    assert read_failures(storage) == []
    assert storage.read("logs/first-rank0.log").decode().splitlines()[-1].endswith("ended")


def test_a_log_that_is_being_opened_is_of_no_dead_process(
    folder: Path, storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another rank clears up what an earlier attempt left while this one opens its log."""
    lock = rank_logs.fcntl.flock

    def late(file: Any, how: int) -> None:
        monkeypatch.setattr(rank_logs.fcntl, "flock", lock)
        salvage(folder, storage)
        lock(file, how)

    folder.mkdir(parents=True, exist_ok=True)
    monkeypatch.setattr(rank_logs.fcntl, "flock", late)
    with RankLog(folder, "a", 0) as rank_log:
        rank_log.batch(1, ["x"])
        salvage(folder, storage)
        assert (folder / "a-rank0.log").exists()
    salvage(folder, storage)
    assert storage.exists("logs/a-rank0.log")


def test_an_end_that_was_expected_is_no_failure(folder: Path, storage: Storage) -> None:
    rank_log = RankLog(folder, "first", 0)
    rank_log.__enter__()
    rank_log.batch(3, ["a"])
    rank_log.expect_end()
    assert rank_log._handler is not None
    rank_log._handler.close()  # as when the process is ended
    salvage(folder, storage)
    assert read_failures(storage) == []
    rank_log.__exit__(None, None, None)


def test_an_end_that_was_expected_and_did_not_come(folder: Path) -> None:
    with RankLog(folder, "first", 0) as rank_log:
        rank_log.batch(3, ["a"])
        rank_log.expect_end()
        assert not (folder / "first-rank0.batches").exists()
        rank_log.batch(4, ["b"])
        assert json.loads((folder / "first-rank0.batches").read_text())["step"] == 4


def test_failure_record_has_error_step_and_samples(folder: Path, storage: Storage) -> None:
    def fail() -> None:
        with RankLog(folder, "first", 3) as rank_log:
            rank_log.batch(7, ["room-1", "room-2"], "main")
            raise ValueError(f"no depth; asked with token={PLANTED}")

    with pytest.raises(ValueError, match="no depth"):
        fail()
    salvage(folder, storage)
    (failure,) = read_failures(storage)
    assert (failure.rank, failure.stage, failure.step) == (3, "main", 7)
    assert failure.sample_ids == ["room-1", "room-2"]
    assert (failure.error, failure.message) == ("ValueError", "no depth; asked with token=***")
    assert (failure.pid, failure.is_collective) == (os.getpid(), False)
    assert "in fail" in failure.traceback
    stacks = storage.read("logs/first-rank3.stacks").decode()
    assert "test_rank_logs.py" in stacks
    text = storage.read("logs/first-rank3.log").decode()
    assert "ValueError: no depth" in text
    assert PLANTED not in text + failure.traceback
    assert "logs/first-rank3.batches" not in names(storage)


def test_only_the_first_error_counts(folder: Path, storage: Storage) -> None:
    with RankLog(folder, "first", 0) as rank_log:
        rank_log.failed(KeyError("cause"))
        rank_log.failed(RuntimeError("Connection closed by peer"))
    salvage(folder, storage)
    assert [failure.error for failure in read_failures(storage)] == ["KeyError"]


def test_messages_are_redacted_and_the_handler_goes(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PLANTED_API_KEY", PLANTED)
    package = logging.getLogger("plinth")
    monkeypatch.setattr(package, "level", logging.INFO)
    before = list(package.handlers)
    with RankLog(folder, "first", 0):
        logging.getLogger("plinth.storage").info("asking with %s", PLANTED)
    logging.getLogger("plinth.storage").info("after the end")
    assert package.handlers == before
    text = (folder / "first-rank0.log").read_text()
    assert "plinth.storage: asking with ***" in text
    assert "after the end" not in text


def test_hang_dumps_stacks_of_all_threads(folder: Path) -> None:
    def stuck_in_the_other_thread() -> None:
        release.wait(LONGEST_WAIT_S)

    release = threading.Event()
    thread = threading.Thread(target=stuck_in_the_other_thread)
    thread.start()
    stacks = folder / "first-rank0.stacks"
    with RankLog(folder, "first", 0) as rank_log:
        rank_log.arm(3600.0)
        rank_log.arm(0.05)
        deadline = time.monotonic() + LONGEST_WAIT_S
        while "test_hang_dumps" not in stacks.read_text() and time.monotonic() < deadline:
            time.sleep(0.02)
    release.set()
    thread.join()
    text = stacks.read_text()
    assert "Timeout" in text
    assert "stuck_in_the_other_thread" in text
    assert "test_hang_dumps" in text


def test_storage_that_is_away_keeps_the_files(
    folder: Path, storage: Storage, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*_: object) -> None:
        raise StorageError("the store is away.")

    with RankLog(folder, "first", 0) as rank_log:
        rank_log.failed(ValueError("x"))
    with monkeypatch.context() as patch, caplog.at_level(logging.WARNING, logger="plinth"):
        patch.setattr(Storage, "upload", refuse)
        salvage(folder, storage)
    assert "the store is away" in caplog.text
    assert (folder / "first-rank0.failure.json").exists()
    salvage(folder, storage)
    assert len(read_failures(storage)) == 1
    salvage(folder / "nowhere", storage)


def test_copied_rank_log_survives_lost_host(folder: Path, storage: Storage, tmp_path: Path) -> None:
    other_host = tmp_path / "other-host"
    with RankLog(folder, "first", 0) as here, RankLog(other_host, "first", 1) as lost:
        lost.keep_copied(storage, every_s=0.01)
        lost.batch(5, ["room-5"])
        deadline = time.monotonic() + LONGEST_WAIT_S
        while not storage.exists("logs/first-rank1.log") and time.monotonic() < deadline:
            time.sleep(0.02)
        here.batch(5, ["room-6"])
        assert read_failures(storage) == [], "nobody has failed yet"
        here.failed(RuntimeError("gloo: Connection closed by peer"))
        salvage(folder, storage)  # and never in the other folder
        failures = read_failures(storage)
    assert [(f.rank, f.error, f.step, f.sample_ids) for f in failures] == [
        (1, "vanished", 5, ["room-5"]),
        (0, "RuntimeError", 5, ["room-6"]),
    ]


def test_copied_batches_are_removed_after_clean_exit(folder: Path, storage: Storage) -> None:
    with RankLog(folder, "first", 0) as rank_log:
        rank_log.batch(5, ["room-5"])
        salvage(folder, storage)
        assert storage.exists("logs/first-rank0.batches")
    salvage(folder, storage)
    assert names(storage) == ["logs/first-rank0.log"]


def test_failed_copy_of_rank_log_is_logged_once(
    folder: Path, storage: Storage, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*_: object) -> None:
        tries.append(1)
        if len(tries) > 2:
            enough.set()
        raise StorageError("the store is away.")

    tries: list[int] = []
    enough = threading.Event()
    monkeypatch.setattr(Storage, "upload", refuse)
    with caplog.at_level(logging.WARNING, logger="plinth"), RankLog(folder, "first", 0) as rank_log:
        rank_log.keep_copied(storage, every_s=0.01)
        assert enough.wait(LONGEST_WAIT_S)
    assert sum("the store is away" in message for message in caplog.messages) == 1


def test_a_full_disk_stops_nothing(
    folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    class Full:
        def write(self, text: str) -> None:
            raise OSError(28, "No space left on device")

        def close(self) -> None:
            pass

    with caplog.at_level(logging.WARNING, logger="plinth"), RankLog(folder, "first", 0) as rank_log:
        assert rank_log._batches is not None
        rank_log._batches.close()
        monkeypatch.setattr(rank_log, "_batches", Full())
        rank_log.batch(1, ["a"])
        rank_log.batch(2, ["b"])
    assert sum("No space left" in message for message in caplog.messages) == 1
    monkeypatch.setattr(Path, "mkdir", lambda *a, **k: (_ for _ in ()).throw(OSError(28, "No space left")))
    with RankLog(folder / "new", "second", 0) as rank_log:
        rank_log.batch(1, ["a"])
        rank_log.arm(1.0)
        rank_log.failed(ValueError("x"))
