"""Maintenance of written checkpoints: retention, verification, repair, pins."""

from __future__ import annotations

import json
import math
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from plinth.checkpoint import evaluations, store, upload
from plinth.checkpoint.config import Best, CheckpointConfig
from plinth.checkpoint.evaluations import Evaluated
from plinth.checkpoint.store import CheckpointInfo, OtherFormatError
from plinth.errors import CheckpointError
from plinth.storage import Storage


@dataclass(frozen=True)
class Finding:
    """What `verify` or `repair` found about one checkpoint."""

    step: int
    is_whole: bool
    text: str
    is_of_other_format: bool = False
    """Not whole for this program, which cannot read it: nothing says that it is damaged."""


def kept(
    storage: Storage,
    config: CheckpointConfig,
    found: Sequence[CheckpointInfo],
    evaluated: Evaluated | None = None,
) -> set[int]:
    """Steps of the committed checkpoints that the settings keep: the newest, those of certain steps, the
    best, the pinned, and those that are being evaluated or wait for it."""
    committed = [info.step for info in found if info.is_committed]
    keep = set(committed[-config.keep_last :] if config.keep_last else committed)
    keep |= set(committed[-1:]) | {info.step for info in found if info.is_pinned}
    if config.keep_every_steps:
        keep |= {step for step in committed if step % config.keep_every_steps == 0}
    results = evaluations.read(storage) if config.keep_best or evaluated is not None else []
    if evaluated is not None:
        keep |= {*evaluated.unevaluated(committed, results), *evaluations.held(storage)}
    if config.keep_best:
        measured = {one.step: one.numbers.get(config.best_metric) for one in results}
        metrics = {
            step: _metric(storage, step, config.best_metric) if measured.get(step) is None else measured[step]
            for step in committed
        }
        known = [(v, step) for step, v in metrics.items() if v is not None and math.isfinite(v)]
        ordered = sorted(known, reverse=config.best is Best.highest)
        keep |= {step for _, step in ordered[: config.keep_best]}
    return keep


def retain(
    storage: Storage, config: CheckpointConfig, dry_run: bool = False, evaluated: Evaluated | None = None
) -> list[str]:
    """Delete what the settings do not keep, and uncommitted ones older than the newest committed.

    Args:
        evaluated: which ones are evaluated beside the training.

    Returns:
        Names of the deleted checkpoints (of those that would be deleted in a dry run).
    """
    found = store.list_checkpoints(storage)
    committed = [info.step for info in found if info.is_committed]
    if not committed:
        return []
    keep = kept(storage, config, found, evaluated)
    deleted = [info for info in found if info.step not in keep and info.step < committed[-1]]
    for info in deleted if not dry_run else []:
        folder = storage.child(info.name)
        folder.delete(store.COMMIT_KEY)  # first, so that a half-deleted one does not look whole
        for key, _ in folder.list():
            folder.delete(key)
    return [info.name for info in deleted]


def verify(storage: Storage, step: int | None = None) -> Iterator[Finding]:
    """Download every committed checkpoint (or one) and compare it with its record.

    Raises:
        CheckpointError: there is none, or none of that step.
    """
    found = [i for i in store.list_checkpoints(storage) if i.is_committed and step in (None, i.step)]
    if not found:
        raise store.no_such(storage, step)
    for info in found:
        local = Path(tempfile.mkdtemp(prefix="plinth-verify-"))
        try:
            wrong = store.whats_wrong(storage, info.step, local)
        except OtherFormatError as error:
            yield Finding(info.step, False, error.problem, is_of_other_format=True)
            continue
        finally:
            shutil.rmtree(local, ignore_errors=True)
        yield Finding(info.step, not wrong, wrong or f"whole, {info.size_bytes / 1e6:.1f} MB")


def repair(storage: Storage) -> Iterator[Finding]:
    """Repair the checkpoints of a run that no process writes: commit those that all ranks had uploaded, take
    damaged ones out of use (their record is renamed, nothing is deleted), remove files that no record names.
    Those of another format version stay as they are.
    """
    for info in store.list_checkpoints(storage):
        folder = storage.child(info.name)
        if not info.is_committed and any(
            _commits(storage, info.step, token) for token in upload.tokens(storage, info.step)
        ):
            yield Finding(info.step, True, "was complete but not committed: committed now")
        elif not info.is_committed:
            yield Finding(info.step, False, "never finished: every run ignores it")
            continue
        wrong = next(iter(verify(storage, info.step)))
        if wrong.is_of_other_format:
            yield wrong
            continue
        if not wrong.is_whole:
            store.take_out_of_use(storage, info.step)
            yield Finding(
                info.step, False, f"{wrong.text}: taken out of use ({store.DAMAGED_KEY} keeps its record)"
            )
            continue
        for key in upload.leftovers(storage, info.step):
            folder.delete(key)
            yield Finding(info.step, True, f"{key}, which no record names: removed")


def pin(storage: Storage, step: int, reason: str) -> None:
    """Keep a checkpoint, whatever the settings are; a CheckpointError if it is not committed."""
    _committed(storage, step).write(store.PIN_KEY, json.dumps({"reason": reason}).encode())


def unpin(storage: Storage, step: int) -> None:
    """Undo `pin`: the settings decide again; a CheckpointError if it is not committed."""
    _committed(storage, step).delete(store.PIN_KEY)


def _commits(storage: Storage, step: int, token: str) -> bool:
    try:
        return upload.commit_if_whole(storage, step, token)
    except CheckpointError:  # one rank never uploaded its part
        return False


def _committed(storage: Storage, step: int) -> Storage:
    if step not in [info.step for info in store.list_checkpoints(storage) if info.is_committed]:
        raise store.no_such(storage, step)
    return storage.child(store.folder_name(step))


def _metric(storage: Storage, step: int, name: str) -> float | None:
    try:
        state: dict[str, Any] = store.read_record(storage, step)["state"]
    except CheckpointError:
        return None
    value = state.get("metrics", {}).get(name)
    return None if value is None else float(value)
