"""One writer per run: a lock in storage that its holder renews.

    LOCK.json    holder, token, beat      the count `beat` rises every few seconds while the holder lives
    STOP.json    token, by                a request from any machine to the holder of that token to stop
    FENCE.json   token, holder            the last process that took the lock; stays when the lock is released

A lock whose count stands still for a while is taken over; clocks are never compared. If its holder was a
process of this machine that is no longer running, it is taken over at once. The holder looks for a request to
stop at every heartbeat and ignores one for another token.

A holder that was taken over (it was suspended, or its store was away) may wake up and go on. Before it makes
anything count it looks at the fence (`refuse_if_taken_over`), finds another token and ends. On stores that
are not atomic, two processes that both believe to hold the lock are told apart in the same way.
"""

from __future__ import annotations

import getpass
import json
import logging
import os
import socket
import threading
import time
import uuid
from pathlib import Path
from typing import Any

from plinth.errors import ConfigError, StorageError, TakenOverError
from plinth.every import Every
from plinth.storage import MissingKeyError, Storage
from plinth.storage.json_objects import DamagedObjectError, read_json
from plinth.storage.options import LockConfig

LOCK_KEY, STOP_KEY, RUN_KEY, FENCE_KEY = "LOCK.json", "STOP.json", "run.json", "FENCE.json"
SETTLE_S = 0.5
"""Wait before checking whether another process wrote its lock at the same time."""

NEEDED = {LOCK_KEY: ("holder", "token", "beat"), STOP_KEY: ("token", "by"), FENCE_KEY: ("token", "holder")}
MEND_LOCK = "If nothing is writing there, delete it and run the command again."
MEND_RUN = "Restore it, or delete it: the run is then given another id."

log = logging.getLogger(__name__)


class RunLock:
    """Holds the lock of a run's folder, as a context manager. Entering it raises a ConfigError with the
    holder's name if another process has it."""

    stop_wanted: threading.Event
    """Set by a request to stop (`request_stop`)."""

    def __init__(self, storage: Storage, config: LockConfig) -> None:
        self._storage, self._config = storage, config
        self.stop_wanted = threading.Event()
        self._token = uuid.uuid4().hex
        self._heartbeats = 0
        self._beating: Every | None = None

    def __enter__(self) -> RunLock:
        if not self._storage.create(LOCK_KEY, self._body()):
            self._wait_for_death()
            self._storage.write(LOCK_KEY, self._body())
        time.sleep(SETTLE_S)  # not every object store is atomic: the last writer has the lock
        now = read_lock(self._storage)
        if now is None or now["token"] != self._token:
            raise self._refused(now or {"holder": "another process"})
        self._beating = Every(
            self._config.beat_every_s, self._beat, f"the heartbeat of {self._storage.uri} cannot be written"
        )
        return self

    def __exit__(self, *_: object) -> None:
        if self._beating is not None:
            self._beating.close()
        try:
            if (read_lock(self._storage) or {}).get("token") == self._token:
                self._storage.delete(STOP_KEY)
                self._storage.delete(LOCK_KEY)
        except StorageError as trouble:
            log.warning("the lock of %s is left in storage: %s", self._storage.uri, trouble.problem)

    def fence(self) -> str:
        """Write down for good who holds the lock; returns the token for `refuse_if_taken_over`."""
        self._storage.write(FENCE_KEY, json.dumps({"token": self._token, "holder": _holder()}).encode())
        return self._token

    def _wait_for_death(self) -> None:
        """Return when the holder has given no sign of life for `dead_after_s`.

        Raises:
            ConfigError: it has given one.
        """
        first = read_lock(self._storage)
        deadline = time.monotonic() + self._config.dead_after_s
        if first is not None and not is_gone(first):
            waits = f"waiting up to {self._config.dead_after_s:g} s for a heartbeat"
            log.info("%s is locked by %s; %s", self._storage.uri, first["holder"], waits)
        while first is not None and not is_gone(first) and time.monotonic() < deadline:
            time.sleep(self._config.beat_every_s / 4)
            now = read_lock(self._storage)
            if now is not None and (now["token"], now["beat"]) != (first["token"], first["beat"]):
                raise self._refused(now)
            first = now

    def _refused(self, other: dict[str, Any]) -> ConfigError:
        return ConfigError(
            f"{self._storage.uri} is being written by {other['holder']}.",
            "Wait for that run, stop it, or give this one another name.",
        )

    def _beat(self) -> None:
        """Renew the lock and look for a request to stop."""
        self._heartbeats += 1
        try:
            now = read_lock(self._storage)
        except DamagedObjectError as error:
            log.warning("%s It is written anew.", error.problem)
            now = None
        if now is not None and now["token"] != self._token:
            log.error("%s: %s has taken over, this run counted as dead", self._storage.uri, now["holder"])
            if self._beating is not None:
                self._beating.stop()
            self.stop_wanted.set()  # at its next step; the fence keeps what it saves from counting
            return
        self._storage.write(LOCK_KEY, self._body())
        self._look_for_request()

    def _look_for_request(self) -> None:
        request = None if self.stop_wanted.is_set() else _read(self._storage, STOP_KEY)
        if request is not None and request["token"] == self._token:
            log.info("asked to stop by %s: saving", request["by"])
            self.stop_wanted.set()

    def _body(self) -> bytes:
        pid = os.getpid()
        lock = {
            "holder": _holder(),
            "token": self._token,
            "beat": self._heartbeats,
            "machine": _machine(),
            "pid": pid,
            "process_start": _process_start(pid),
        }
        return json.dumps(lock).encode()


def read_lock(storage: Storage) -> dict[str, Any] | None:
    """The lock of a run's folder, if there is one."""
    return _read(storage, LOCK_KEY)


def refuse_if_taken_over(storage: Storage, token: str) -> None:
    """Call it before anything that is to count.

    Args:
        token: of the `RunLock` under which this is written; empty for a run without a lock.

    Raises:
        TakenOverError: another process has taken the lock since.
    """
    if not token:
        return
    try:
        fence = _read(storage, FENCE_KEY)
    except DamagedObjectError as error:
        log.warning("%s It does not say who holds the run.", error.problem)
        return
    if fence is not None and fence["token"] != token:
        raise TakenOverError(
            f"{storage.uri} was taken over by {fence['holder']}: this process had given no sign of life.",
            "Let that one go on; nothing of this one counts since then.",
        )


def request_stop(storage: Storage, lock: dict[str, Any]) -> None:
    """Ask the holder of `lock` to save and exit; it sees the request at its next heartbeat. A later holder of
    the folder's lock ignores it."""
    storage.write(STOP_KEY, json.dumps({"token": lock["token"], "by": _who()}).encode())


def is_gone(lock: dict[str, Any]) -> bool:
    """Whether the holder was a process of this machine that is no longer running."""
    return lock.get("machine") == _machine() and _process_start(lock["pid"]) != lock["process_start"]


def run_id(storage: Storage) -> str:
    """Identifies this run among earlier ones in the same folder; made at the first call."""
    fresh = uuid.uuid4().hex[:12]
    if storage.create(RUN_KEY, json.dumps({"id": fresh, "created": time.time()}).encode()):
        return fresh
    return str(read_json(storage, RUN_KEY, MEND_RUN, ("id",))["id"])


def _read(storage: Storage, key: str) -> dict[str, Any] | None:
    try:
        return read_json(storage, key, MEND_LOCK, NEEDED[key])
    except MissingKeyError:
        return None


def _who() -> str:
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a uid without a name, as containers are given: OSError since Python 3.13
        user = f"uid {os.getuid()}"
    return f"{user} on {socket.gethostname()}"


def _holder() -> str:
    return f"{_who()}, process {os.getpid()}"


def _machine() -> str:
    """Identifies this boot of this machine and its pid namespace."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return f"unknown {uuid.uuid4().hex}"


def _process_start(pid: int) -> int | None:
    """When a process began, in ticks since boot; tells it from a later process with the same pid."""
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[19])
    except (OSError, ValueError, IndexError):
        return None
