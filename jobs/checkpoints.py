"""`poma checkpoints list`: what a run has saved."""

from __future__ import annotations

import argparse

from jobs.pretrain import STAGES
from jobs.shards import storage_options
from plinth.errors import CheckpointError
from plinth.storage import Storage
from plinth.train.checkpoint import list_checkpoints, read_state


def run(arguments: argparse.Namespace) -> int:
    """Print one line per checkpoint of each stage; returns the exit code."""
    storage = Storage.from_uri(arguments.uri, storage_options(arguments))
    storage.check()
    lines = [line for stage in STAGES for line in _lines(storage, stage)]
    if not lines:
        raise CheckpointError(
            f"{storage.uri} has no checkpoints.", "Give the folder of a run: output/name of its job."
        )
    print(f"{storage.uri}\n{'stage':8} {'step':>8} {'of':>8} {'epoch':>6} {'MiB':>9}  state")
    print("\n".join(lines))
    return 0


def _lines(storage: Storage, stage: str) -> list[str]:
    folder = storage.child(stage).child("checkpoints")
    lines = []
    for info in list_checkpoints(folder):
        total, epoch, state = "", "", "unfinished: ignored"
        if info.is_committed:
            saved = read_state(folder, info.step)
            by = saved["written_by"]
            total, epoch = saved["total_steps"], saved["notes"]["cursor"]["epoch"]
            state = f"committed by {by['world_size']} worker(s), ZeRO {by['zero_stage']}, {by['precision']}"
        size = info.size_bytes / 2**20
        lines.append(f"{stage:8} {info.step:>8} {total:>8} {epoch:>6} {size:>9.1f}  {state}")
    return lines
