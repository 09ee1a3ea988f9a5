"""`poma checkpoints list|verify|repair|prune|pin`: list, check, mend, delete and pin what a run has saved."""

from __future__ import annotations

import argparse

from jobs.common.flags import storage_options
from jobs.common.run_layout import ALL_STAGES
from jobs.display.text import aligned
from plinth.checkpoint import maintenance
from plinth.checkpoint.config import CheckpointConfig
from plinth.checkpoint.maintenance import Finding
from plinth.checkpoint.store import DAMAGED_KEY, OtherFormatError, list_checkpoints, read_state
from plinth.errors import EXIT_CODE, CheckpointError, ConfigError
from plinth.storage import Storage
from plinth.storage.lock import read_lock
from plinth.units import MIB, counted


def run(arguments: argparse.Namespace) -> int:
    """Dispatch one of the actions; returns the exit code."""
    storage = Storage.from_uri(arguments.uri, storage_options(arguments))
    storage.check()
    if not any(list_checkpoints(folder) for _, folder in _folders(storage)):
        raise CheckpointError(
            f"{storage.uri} has no checkpoints.", "Give the folder of a run: output/name of its job."
        )
    if arguments.action == "list":
        print("\n".join(_table(storage)))
        return 0
    if arguments.action == "verify":
        return _verify(storage, arguments.stage, arguments.step)
    _refuse_if_running(storage)
    if arguments.action == "repair":
        return _repair(storage)
    if arguments.action == "prune":
        return _prune(storage, arguments)
    folder = storage.child(arguments.stage).child("checkpoints")
    if arguments.remove:
        maintenance.unpin(folder, arguments.step)
    else:
        maintenance.pin(folder, arguments.step, arguments.reason)
    print(f"{arguments.stage} {arguments.step}: {'unpinned' if arguments.remove else 'pinned'}")
    return 0


def _folders(storage: Storage) -> list[tuple[str, Storage]]:
    return [(stage, storage.child(stage).child("checkpoints")) for stage in ALL_STAGES]


def _refuse_if_running(storage: Storage) -> None:
    lock = read_lock(storage)
    if lock is not None:
        raise ConfigError(
            f"{storage.uri} is locked by {lock['holder']}.",
            "Stop that run first. If it is dead, the next `poma pretrain` takes the lock over.",
        )


def _table(storage: Storage) -> list[str]:
    rows = [["stage", "step", "of", "epoch", "MiB", "state"]]
    for stage, folder in _folders(storage):
        for info in list_checkpoints(folder):
            total, epoch, state = "", "", "unfinished: ignored"
            if info.is_committed:
                try:
                    total, epoch, state = _described(folder, info.step)
                except OtherFormatError as error:
                    state = f"not for this program: {error.problem}"
                except CheckpointError as error:
                    state = f"damaged: {error.problem}"
            elif folder.child(info.name).exists(DAMAGED_KEY):
                state = "damaged: repair has taken it out of use"
            pinned = ", pinned" if info.is_pinned else ""
            size = f"{info.size_bytes / MIB:.1f}"
            rows.append([stage, str(info.step), total, epoch, size, state + pinned])
    return [storage.uri, *aligned(rows, right=range(1, 5))]


def _described(folder: Storage, step: int) -> tuple[str, str, str]:
    saved = read_state(folder, step)
    by = saved["written_by"]
    state = f"committed by {counted(by['world_size'], 'worker')}, ZeRO {by['zero_stage']}, {by['precision']}"
    return str(saved["total_steps"]), str(saved["notes"]["cursor"]["epoch"]), state


def _verify(storage: Storage, stage: str | None, step: int | None) -> int:
    all_whole = True
    for name, folder in _folders(storage):
        if stage in (None, name) and list_checkpoints(folder):
            for finding in maintenance.verify(folder, step):
                all_whole &= finding.is_whole
                _say(name, finding)
    return 0 if all_whole else EXIT_CODE


def _repair(storage: Storage) -> int:
    found = [(name, finding) for name, folder in _folders(storage) for finding in maintenance.repair(folder)]
    for name, finding in found:
        _say(name, finding)
    if not found:
        print("nothing to repair")
    return 0


def _prune(storage: Storage, arguments: argparse.Namespace) -> int:
    settings = CheckpointConfig(
        keep_last=arguments.keep_last,
        keep_every_steps=arguments.keep_every,
        keep_best=arguments.keep_best,
    )
    settings.validate()
    would = "would delete" if arguments.dry_run else "deleted"
    for stage, folder in _folders(storage):
        for name in maintenance.retain(folder, settings, arguments.dry_run):
            print(f"{stage} {name}: {would}")
    return 0


def _say(stage: str, finding: Finding) -> None:
    bad = "OTHER" if finding.is_of_other_format else "DAMAGED"
    state = "ok" if finding.is_whole else bad
    print(f"{stage:8} {finding.step:>8}  {state:8} {finding.text}", flush=True)
