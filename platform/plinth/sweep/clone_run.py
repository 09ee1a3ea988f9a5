"""Cloning another run's state: weights, optimizer and EMA, at its last committed checkpoint."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

from plinth.checkpoint.store import COMMIT_KEY, folder_name, latest
from plinth.errors import CheckpointError
from plinth.storage import Storage

CHECKPOINTS = "checkpoints"


def clone_run(donor: Storage, own: Storage, stages: Sequence[str]) -> tuple[str, int]:
    """Replace the checkpoints of the run `own` by the newest of the run `donor`, in each stage.

    Returns:
        The last stage that the donor has a checkpoint of, and its step there.

    Raises:
        CheckpointError: the donor has none.
    """
    found = [(stage, step) for stage in stages if (step := _latest(donor, stage)) is not None]
    if not found:
        raise CheckpointError(f"{donor.uri} has no committed checkpoint to clone.")
    for stage in stages:
        _clear(own.child(stage).child(CHECKPOINTS))
    for stage, step in found:
        _copy(donor.child(stage).child(CHECKPOINTS), own.child(stage).child(CHECKPOINTS), folder_name(step))
    return found[-1]


def _latest(run: Storage, stage: str) -> int | None:
    return latest(run.child(stage).child(CHECKPOINTS))


def _clear(storage: Storage) -> None:
    """The commit records first: a checkpoint without one does not count, so no partial one ever does."""
    keys = [key for key, _ in storage.list()]
    for key in sorted(keys, key=lambda key: not key.endswith(COMMIT_KEY)):
        storage.delete(key)


def _copy(source: Storage, target: Storage, folder: str) -> None:
    keys = [key for key, _ in source.list(folder)]
    with tempfile.TemporaryDirectory() as scratch:
        local = Path(scratch) / "file"
        for key in sorted(keys, key=lambda key: key.endswith(COMMIT_KEY)):
            source.download(key, local)
            target.upload(local, key)
