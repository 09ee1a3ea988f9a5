"""What a stage of a job is told, and the mistakes in it that can be found before anything starts."""

from __future__ import annotations

import math
import os
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from plinth import config as configs
from plinth.checkpoint import save_load as checkpoint
from plinth.checkpoint.config import CheckpointConfig
from plinth.checkpoint.upload import UploadHook
from plinth.data.batches import Decode
from plinth.data.config import DataConfig
from plinth.data.plan import Cursor, Plan
from plinth.data.sources import OpenSource, open_sources, plan_for
from plinth.digests import text_digest
from plinth.engine.config import OptimConfig, ZeroConfig
from plinth.errors import CheckpointError, ConfigError
from plinth.observe.config import GuardConfig, LedgerConfig, MetricsConfig
from plinth.storage import Storage, StorageOptions
from plinth.world import check_divisibility

Notes = dict[str, Any]


@dataclass
class StageRun:
    """Everything that a stage of a job needs; picklable, so that it can be sent to workers."""

    name: str
    """For messages, such as warmup or main."""
    storage: Storage
    """Folder of this stage in the run: checkpoints/, metrics.jsonl, tensorboard/."""
    build_stage: Callable[[Sequence[OpenSource]], Any]
    """Makes the Stage, given the data sets; raises a PlinthError where they do not fit it."""
    decode: Decode
    """Tensor columns of a table as arrays."""
    data: DataConfig
    global_batch_size: int
    micro_batch_size: int
    epochs: float | None = None
    """Length in passes over the data; or give steps."""
    steps: int | None = None
    """Length in optimizer steps; or give epochs."""
    seed: int = 0
    optim: OptimConfig = field(default_factory=OptimConfig)
    zero: ZeroConfig = field(default_factory=ZeroConfig)
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)
    metrics: MetricsConfig = field(default_factory=MetricsConfig)
    guard: GuardConfig = field(default_factory=GuardConfig)
    ledger: LedgerConfig = field(default_factory=LedgerConfig)
    storage_options: StorageOptions = field(default_factory=StorageOptions)
    """How to reach the data sets."""
    weights_from: Storage | None = None
    """Folder of a finished stage whose weights this one starts from."""
    config: dict[str, Any] = field(default_factory=dict)
    """The resolved job, kept in every checkpoint."""
    check_resume: Callable[[Notes, Notes], None] | None = None
    """Given the notes of the last checkpoint and those of this run (`config`, `data`), raises a
    PlinthError unless the run may go on; `refuse_changes` when None."""
    run_id: str = ""
    """Tells this run from an earlier one of the same name, whose files may still be on a disk."""
    scratch_dir: str | None = None
    """Local folder for files on their way to and from storage; the system's temporary folder when None."""
    on_upload: UploadHook | None = None
    """Called before each file of a checkpoint is uploaded; for fault injection."""

    @property
    def checkpoints(self) -> Storage:
        """Where the checkpoints are."""
        return self.storage.child("checkpoints")

    @property
    def scratch(self) -> Path:
        """A local folder of this user and this stage."""
        digest = text_digest(f"{self.storage.uri} {self.run_id}", 6)
        return Path(self.scratch_dir or tempfile.gettempdir()) / f"plinth-{os.getuid()}" / digest


def preflight(run: StageRun, world_size: int) -> None:
    """Find mistakes before anything starts: settings, sizes that do not divide, data sets that are not
    there, a run that was changed since its last checkpoint.

    Raises:
        PlinthError: the first one found.
    """
    run.zero.validate()
    run.checkpoint.validate()
    run.metrics.validate()
    run.guard.validate()
    run.ledger.validate()
    check_divisibility(world_size, run.data.lanes, run.global_batch_size, run.micro_batch_size)
    plan = plan_of(run)
    run.optim.validate(stage_steps(run, plan))
    run.storage.check(write=True)
    if checkpoint.latest(run.checkpoints) is not None:
        saved = checkpoint.read_state(run.checkpoints)["notes"]
        (run.check_resume or refuse_changes)(saved, notes_of(run, plan))


def refuse_changes(saved: Notes, now: Notes) -> None:
    """Refuse to resume with another job or other data.

    Raises:
        CheckpointError: naming the keys and both values.
    """
    changed = configs.changed_keys(saved["config"], now["config"])
    if changed:
        listed = "; ".join(f"{key} was {old} and is {new}" for key, old, new in changed)
        raise CheckpointError(
            f"The job has changed since the run's last checkpoint: {listed}.",
            "Go back to those values, or give the run another name.",
        )
    if saved["data"] != now["data"]:
        raise CheckpointError(
            "The data sets have changed since the run's last checkpoint.",
            "Bring the old ones back, or give the run another name.",
        )


def plan_of(run: StageRun) -> Plan:
    """The order of the data, from the manifests of its data sets."""
    sources = open_sources(run.data, run.storage_options)
    return plan_for(sources, run.data, run.seed, run.global_batch_size)


def stage_steps(run: StageRun, plan: Plan) -> int:
    """Length of the stage in optimizer steps.

    Raises:
        ConfigError: not exactly one of epochs and steps, or none at all.
    """
    if (run.epochs is None) == (run.steps is None):
        raise ConfigError(
            f"{run.name}.epochs is {run.epochs} and {run.name}.steps is {run.steps}.", "Give one of the two."
        )
    steps = run.steps if run.steps is not None else math.ceil((run.epochs or 0) * plan.steps_per_epoch)
    if steps < 1:
        raise ConfigError(f"{run.name} has {steps} steps.", f"Raise {run.name}.epochs or {run.name}.steps.")
    return steps


def first_cursor(notes: Notes, plan: Plan) -> Cursor:
    """Where a run reads on, given the notes of its checkpoint (none: from the start).

    In another order (other data, lanes or seed, accepted by whoever resumed it) a place inside a pass over
    the data means nothing: some samples would come twice and others not at all. The pass that was under way
    is left, and the next one begins.
    """
    cursor = Cursor(**notes["cursor"]) if notes else Cursor()
    if not notes or notes["data"] == plan.fingerprint or cursor.step == 0:
        return cursor
    return Cursor(cursor.epoch + 1, 0)


def notes_of(run: StageRun, plan: Plan) -> Notes:
    """What a checkpoint keeps of the job, and what a resumed one is compared with."""
    return {"config": run.config, "data": plan.fingerprint}
