"""The toy stage on a disk that is full for a while: see `tests.helpers.full_disk`.

    python -m tests.helpers.toy.full_disk FOLDER WORK     inside `unshare -Urm`; FOLDER is empty, WORK is new

The disk holds the system's temporary folder, and so logs, metrics and checkpoints on their way. It is full
from the second checkpoint to the fifth: whatever is freed is taken at once. Prints a line for each checkpoint
that is in storage, and the last step.
"""

from __future__ import annotations

import os
import sys
import tempfile
import threading
from pathlib import Path
from typing import Any

from plinth.checkpoint import store
from plinth.checkpoint.config import CheckpointConfig
from plinth.engine import process
from plinth.train import attempt
from plinth.train.control import Control
from plinth.train.loop import run_stage
from tests.helpers.full_disk import fill, mount
from tests.helpers.toy.run import toy_run

EVERY, STEPS = 2, 16
FULL_FROM, FULL_UNTIL = 2, 5
FAILED_IN_A_ROW = FULL_UNTIL - FULL_FROM + 1


class Filling(Control):
    """Fills the disk when a checkpoint has begun, and empties it at a later one."""

    def __init__(self, filler: Path) -> None:
        super().__init__()
        self.filler, self.checkpoints = filler, 0
        self.is_over = threading.Event()
        self.thread = threading.Thread(target=self.keep_full)

    def keep_full(self) -> None:
        while not self.is_over.wait(0.005):
            fill(self.filler)

    def report(self, summary: dict[str, Any]) -> None:
        self.checkpoints += 1
        if self.checkpoints == FULL_FROM:
            fill(self.filler)
            self.thread.start()
        if self.checkpoints == FULL_UNTIL:
            self.is_over.set()
            self.thread.join()
            self.filler.unlink()


def main(disk: Path, work: Path) -> None:
    """Train over a full disk."""
    mount(disk)
    os.environ["TMPDIR"] = str(disk)
    tempfile.tempdir = None
    config = CheckpointConfig(every_steps=EVERY, keep_last=0, max_failed=FAILED_IN_A_ROW)
    run = toy_run(work, steps=STEPS, checkpoint=config, scratch_dir=None)
    started, control = process.start(threads=1), Filling(disk / "filler")
    with attempt.begin(started, run.storage.child("logs"), run.run_id, control, 60.0) as this:
        end = run_stage(run, started, control, this)
    for info in store.list_checkpoints(run.checkpoints):
        if info.is_committed:
            print("checkpoint", info.step, sep="\t")  # noqa: T201
    print("last", end.summary["step"], sep="\t")  # noqa: T201


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
