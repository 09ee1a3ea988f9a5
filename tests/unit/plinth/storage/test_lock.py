"""One writer per run."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from plinth.errors import ConfigError, TakenOverError
from plinth.storage import Storage, lock
from plinth.storage.json_objects import DamagedObjectError
from plinth.storage.lock import RunLock, read_lock, refuse_if_taken_over, run_id
from plinth.storage.options import LockConfig

QUICK = LockConfig(beat_every_s=0.05, dead_after_s=0.4)
ROOT = Path(__file__).parents[4]


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    return Storage.from_uri(tmp_path)


def test_second_lock_is_refused_with_holder_name(storage: Storage) -> None:
    with RunLock(storage, QUICK):
        held = read_lock(storage)
        assert held is not None
        with pytest.raises(ConfigError, match=rf"is being written by .*process {os.getpid()}"):
            RunLock(storage, QUICK).__enter__()
        assert (read_lock(storage) or {})["token"] == held["token"]
    assert read_lock(storage) is None
    with RunLock(storage, QUICK):
        assert read_lock(storage) is not None


def test_silent_holder_on_other_machine_is_replaced(storage: Storage) -> None:
    other = {"holder": "x", "token": "t", "beat": 3, "machine": "other", "pid": 1, "process_start": 1}
    storage.write(lock.LOCK_KEY, json.dumps(other).encode())
    with RunLock(storage, QUICK):
        assert (read_lock(storage) or {})["token"] != "t"


HOLD = """
import sys, time
from plinth.storage.lock import RunLock
from plinth.storage.options import LockConfig
from plinth.storage import Storage
with RunLock(Storage.from_uri(sys.argv[1]), LockConfig()):
    print("held", flush=True)
    time.sleep(60)
"""


def test_killed_holder_on_this_machine_is_replaced_at_once(storage: Storage) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "platform")}
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, storage.uri], stdout=subprocess.PIPE, env=environment, text=True
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        holder.send_signal(signal.SIGKILL)
        holder.wait()
        with RunLock(storage, LockConfig(beat_every_s=1.0, dead_after_s=3600.0)):
            assert (read_lock(storage) or {})["pid"] == os.getpid()


@pytest.mark.parametrize("content", ["", '{"holder": "ann", "tok', "[]", "{}", '{"holder": "ann"}'])
def test_a_damaged_lock_is_named(content: str, storage: Storage) -> None:
    storage.write("LOCK.json", content.encode())
    with (
        pytest.raises(DamagedObjectError, match=r"LOCK\.json is damaged .*delete it"),
        RunLock(storage, QUICK),
    ):
        pass
    assert storage.read("LOCK.json") == content.encode()


def test_a_holder_mends_its_lock(storage: Storage) -> None:
    with RunLock(storage, QUICK):
        storage.write("LOCK.json", b"")
        deadline = time.monotonic() + 20
        while storage.read("LOCK.json") == b"" and time.monotonic() < deadline:
            time.sleep(0.02)
        assert read_lock(storage) is not None
    assert not storage.exists("LOCK.json")


def test_a_damaged_run_record_is_named(storage: Storage) -> None:
    storage.write("run.json", b'{"id": ')
    with pytest.raises(DamagedObjectError, match=r"run\.json is damaged"):
        run_id(storage)


def test_a_uid_without_a_name_can_hold_it(storage: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    """As containers are given one: no line in /etc/passwd, no USER."""
    for name in ("LOGNAME", "USER", "LNAME", "USERNAME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(os, "getuid", lambda: 1_000_650_000)
    with RunLock(storage, QUICK):
        held = read_lock(storage)
        assert held is not None
        assert held["holder"].startswith("uid 1000650000 on ")


def test_run_id_is_kept_until_folder_is_removed(storage: Storage) -> None:
    first = run_id(storage)
    assert run_id(storage) == first
    storage.delete(lock.RUN_KEY)
    assert run_id(storage) != first


def test_lock_config_needs_heartbeat_below_dead_after() -> None:
    with pytest.raises(ConfigError, match=r"lock\.beat_every_s is 5"):
        LockConfig(beat_every_s=5, dead_after_s=8).validate()


def test_holder_that_was_taken_over_is_refused_and_asked_to_stop(storage: Storage) -> None:
    other = {"holder": "ann", "token": "t", "beat": 3, "machine": "other", "pid": 1, "process_start": 1}
    with RunLock(storage, QUICK) as first:
        token = first.fence()
        refuse_if_taken_over(storage, token)
        deadline = time.monotonic() + 20
        while not first.stop_wanted.wait(0.02) and time.monotonic() < deadline:
            storage.write(lock.LOCK_KEY, json.dumps(other).encode())  # a beat may be writing at this moment
        assert first.stop_wanted.is_set()
    assert (read_lock(storage) or {})["holder"] == "ann", "its lock is not the first one's to remove"
    with RunLock(storage, QUICK) as second:  # silent as well by now
        refuse_if_taken_over(storage, second.fence())
    with pytest.raises(TakenOverError, match=rf"was taken over by .*process {os.getpid()}"):
        refuse_if_taken_over(storage, token)  # also now that the other has ended


def test_a_run_without_a_lock_asks_nobody(storage: Storage) -> None:
    with RunLock(storage, QUICK) as held:
        held.fence()
    refuse_if_taken_over(storage, "")
    with pytest.raises(TakenOverError):
        refuse_if_taken_over(storage, "x")


def test_a_damaged_fence_says_nothing_of_who_holds_the_run(
    storage: Storage, caplog: pytest.LogCaptureFixture
) -> None:
    storage.write("FENCE.json", b"{")
    refuse_if_taken_over(storage, "x")
    assert "FENCE.json is damaged" in caplog.text
