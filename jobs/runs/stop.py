"""`poma runs stop`: ask a run, or a sweep with all its trials, to save and end, from any machine that reaches
its folder, and wait.

The request is a file in the folder, which the driver finds as it gives its next sign of life
(`plinth.storage.lock`). No cluster is asked, so it works on a laptop, on Ray and on Kubernetes alike.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import yaml

from jobs.common.run_layout import CONFIG_KEY
from jobs.runs.state import RunState, read_run
from plinth.errors import EXIT_CODE, INTERRUPTED_EXIT_CODE, WorkersLostError
from plinth.observe.ledger import FAILED, FINISHED
from plinth.storage import Storage, StorageOptions
from plinth.storage.lock import is_gone, read_lock, request_stop
from plinth.storage.options import LockConfig
from plinth.sweep.records import JOB_KEY, SWEEP_KEY, Status, read_trials

POLL_S = 0.5
PRINT_EVERY_S = 5.0


def stop(run_uri: str, options: StorageOptions) -> int:
    """Stop a run and print how far it came; returns the exit code.

    Raises:
        StorageError: the folder holds no run, or cannot be read or written.
        WorkersLostError: the run gives no sign of life.
    """
    storage = Storage.from_uri(run_uri, options)
    is_sweep = storage.exists(SWEEP_KEY)
    if not is_sweep:
        read_run(storage, time.time())  # raises if it is neither
    lock = read_lock(storage)
    if lock is None or is_gone(lock):
        print(f"{storage.uri}: not running. {_standing(storage, is_sweep)[0]}")
        return 0
    request_stop(storage, lock)
    print(f"{storage.uri}: asked {lock['holder']} to save and end", flush=True)
    try:
        for waited_s in _until_released(storage, lock):
            print(f"  waiting for {waited_s:.0f} s: {_where(storage, is_sweep)}", flush=True)
    except KeyboardInterrupt:
        print(f"no longer waiting; it stays asked to stop: poma {_show(is_sweep)} {storage.uri}")
        return INTERRUPTED_EXIT_CODE
    text, has_failed = _standing(storage, is_sweep)
    print(f"{storage.uri}: {text}")
    return EXIT_CODE if has_failed else 0


def _standing(storage: Storage, is_sweep: bool) -> tuple[str, bool]:
    """How far it came, as a sentence, and whether it has failed."""
    if is_sweep:
        return "The same command resumes from there.", False
    state = read_run(storage, time.time())
    return standing(state), state.status == FAILED


def _where(storage: Storage, is_sweep: bool) -> str:
    if is_sweep:
        running = [t.record.name for t in read_trials(storage) if t.record.status is Status.running]
        return f"trials {', '.join(running)} save" if running else "no trial runs"
    return read_run(storage, time.time()).where or "before the first step"


def _show(is_sweep: bool) -> str:
    return "sweep show" if is_sweep else "runs show"


def standing(state: RunState) -> str:
    """How far a run that is not running came, and how to resume it."""
    if state.status == FINISHED:
        return "It has finished."
    saved = [f"{stage.name} {stage.committed[-1]}" for stage in state.stages if stage.committed]
    kept = f"last checkpoint: {saved[-1]}" if saved else "no checkpoint yet"
    where = f" in {state.where}" if state.where else ""
    more = f" `poma runs logs {state.uri}` says why." if state.status == FAILED else ""
    verb = "failed" if state.status == FAILED else "has stopped"
    return f"It {verb}{where}; {kept}. The same command resumes from there.{more}"


def _until_released(storage: Storage, lock: dict[str, Any]) -> Iterator[float]:
    """Wait until `lock` is released; yields the seconds waited every few seconds.

    Raises:
        WorkersLostError: its holder gives no sign of life.
    """
    patience_s = _dead_after_s(storage)
    began = heard = printed = time.monotonic()
    beat = lock["beat"]
    while True:
        time.sleep(POLL_S)
        held = read_lock(storage)
        if held is None or held["token"] != lock["token"]:
            return
        now = time.monotonic()
        if held["beat"] != beat:
            beat, heard = held["beat"], now
        if is_gone(held) or now - heard > patience_s:
            raise WorkersLostError(
                f"{lock['holder']} gave no sign of life for {now - heard:.0f} s and is taken for dead.",
                "There is nothing to stop; the same command resumes from the last checkpoint.",
            )
        if now - printed > PRINT_EVERY_S:
            printed = now
            yield now - began


def _dead_after_s(storage: Storage) -> float:
    """Seconds after which the run's own job takes a silent holder for dead."""
    key = CONFIG_KEY if storage.exists(CONFIG_KEY) else JOB_KEY
    given = yaml.safe_load(storage.read(key)).get("lock") or {}
    return float(given.get("dead_after_s", LockConfig.dead_after_s))
