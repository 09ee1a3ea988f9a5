"""What checkpoints were found to be worth by evaluations beside the training.

    checkpoints/
      EVALUATIONS.jsonl   a line per checkpoint and data set; stays when retention deletes the checkpoint
      EVALUATING.json     which checkpoint is being evaluated: retention leaves it alone

The run's driver writes both, retention and the run's page read them.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Container, Iterable, Sequence
from dataclasses import asdict, dataclass, field

from plinth.storage import MissingKeyError, Storage
from plinth.storage.json_objects import DamagedObjectError, filled, read_json

LINES_KEY, UNDER_WAY_KEY = "EVALUATIONS.jsonl", "EVALUATING.json"


@dataclass(frozen=True)
class Evaluated:
    """Which checkpoints of a stage are evaluated."""

    data: str
    """The data set with the hash of its manifest: results of another one do not count."""
    every_steps: int
    """Those whose step is a multiple of this, and the last of the stage."""
    last_step: int
    keep_waiting: int
    """How many may wait for their evaluation; retention keeps the newest ones of them."""

    def unevaluated(
        self, committed: Sequence[int], found: Iterable[Evaluation], failed: Container[int] = ()
    ) -> list[int]:
        """Steps that are to be evaluated and were not, ascending; at most the newest `keep_waiting`.

        Args:
            failed: steps that are not tried again.
        """
        done = {one.step for one in found if one.data == self.data}
        due = (step for step in committed if step % self.every_steps == 0 or step == self.last_step)
        return [step for step in due if step not in done and step not in failed][-self.keep_waiting :]


@dataclass(frozen=True)
class Evaluation:
    """One checkpoint on one data set."""

    step: int
    token: str
    """Of the checkpoint's commit record: one that was written anew is another checkpoint."""
    data: str
    numbers: dict[str, float] = field(default_factory=dict)
    time: float = 0.0
    """When it ended (`time.time()`)."""
    took_s: float = 0.0


def read(storage: Storage) -> list[Evaluation]:
    """The evaluations of a stage, as they came.

    Args:
        storage: the folder of its checkpoints.
    """
    try:
        text = storage.read(LINES_KEY).decode(errors="replace")
    except MissingKeyError:
        return []
    found = []
    for line in text.split("\n"):
        with contextlib.suppress(ValueError, RecursionError):  # a torn line is evaluated again
            found.append(filled(Evaluation, json.loads(line)))
    return found


def write(storage: Storage, found: Iterable[Evaluation]) -> None:
    """Replace what is there; one process at a time, the one that holds the run's lock."""
    storage.write(LINES_KEY, "".join(json.dumps(asdict(one)) + "\n" for one in found).encode())


def hold(storage: Storage, step: int) -> None:
    """From now on retention leaves the checkpoint alone, and any other may go."""
    storage.write(UNDER_WAY_KEY, json.dumps({"step": step}).encode())


def release(storage: Storage) -> None:
    """Undo `hold`."""
    storage.delete(UNDER_WAY_KEY)


def held(storage: Storage) -> set[int]:
    """The steps that retention leaves alone: one or none."""
    try:
        return {int(read_json(storage, UNDER_WAY_KEY, "Delete it.", ("step",))["step"])}
    except (MissingKeyError, DamagedObjectError, TypeError, ValueError):
        return set()
