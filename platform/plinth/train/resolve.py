"""A stage as the job describes it, and the same once resolved: data sets opened, order and length known.

    StageSpec --resolve--> ResolvedStage --check (plinth.launch.check)--> launch (plinth.launch.fit)

The driver resolves a stage once. Loop, batches and engine take the resolved value as it is; a worker only
checks that the data sets are still the ones that the driver opened.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from plinth import config as configs
from plinth.checkpoint.config import CheckpointConfig, UploadHook
from plinth.checkpoint.evaluations import Evaluated
from plinth.data.assemble import Decode
from plinth.data.config import DataConfig
from plinth.data.plan import Cursor, Plan
from plinth.data.sources import Mixture, OpenSource, mix, open_sources
from plinth.digests import text_digest
from plinth.engine.config import OptimConfig, ZeroConfig
from plinth.errors import CheckpointError, ConfigError
from plinth.observe.config import GuardConfig, LedgerConfig, MetricsConfig
from plinth.storage import Storage, StorageOptions, scratch

Notes = dict[str, Any]


@dataclass(frozen=True)
class ProfileSpec:
    """What of a stage's beginning is measured, and where that goes; see `plinth.train.profile`."""

    storage: Storage
    """Folder of NAME.json and NAME.trace.json.gz, with the stage's name."""
    skipped: int
    """Steps before: the first ones compile, fill caches and start the reader."""
    measured: int
    """Steps whose time is taken apart."""
    traced: int
    """Steps after them that go into the trace, which makes them slower."""

    @property
    def steps(self) -> int:
        """All of them."""
        return self.skipped + self.measured + self.traced


@dataclass(frozen=True)
class StageSpec:
    """What a job says of a stage; picklable."""

    name: str
    """For messages, such as warmup or main."""
    storage: Storage
    """Folder of this stage in the run: checkpoints/, metrics.jsonl, tensorboard/."""
    build_stage: Callable[[Sequence[OpenSource]], Any]
    """Makes the `plinth.engine.stage.Stage`, given the data sets; raises a PlinthError where they do not
    fit it."""
    decode: Decode
    """Tensor columns of a table as arrays."""
    data: DataConfig
    global_batch_size: int
    micro_batch_size: int
    epochs: float | None = None
    """Length in passes over the data; or give steps."""
    steps: int | None = None
    """Length in optimizer steps; or give epochs."""
    steps_before: int = 0
    """Steps of the stages that come before this one, which its own continue in TensorBoard."""
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
    """What decides the result, kept in every checkpoint: a resumed run must agree in all of it."""
    check_resume: Callable[[Notes, Notes], None] | None = None
    """Given the notes of the last checkpoint and those of this run (`config`, `data`), raises a
    PlinthError unless the run may resume; `refuse_changes` when None."""
    run_id: str = ""
    """Tells this run from an earlier one of the same name, whose files may still be on a disk."""
    lock_token: str = ""
    """Of the lock under which the run is written; empty for a run without one."""
    scratch_dir: str | None = None
    """Local folder for files on their way to and from storage; the system's temporary folder when None."""
    on_upload: UploadHook | None = None
    """Called before each file of a checkpoint is uploaded; for fault injection."""
    evaluated: Evaluated | None = None
    """Which checkpoints are evaluated beside the training (`plinth.launch.beside`); None evaluates none."""
    profile: ProfileSpec | None = None
    """Measure the first steps; None in a run that is one."""

    @property
    def checkpoints(self) -> Storage:
        """Where the checkpoints are."""
        return self.storage.child("checkpoints")

    @property
    def scratch(self) -> Path:
        """A local folder of this user and this stage, whose name tells this run from others; `claim` of
        `plinth.storage.scratch` makes it."""
        digest = text_digest(f"{self.storage.uri} {self.run_id}", 6)
        return scratch.of_user(self.scratch_dir) / digest


@dataclass(frozen=True, kw_only=True)
class ResolvedStage(StageSpec):
    """A stage with nothing left to find out; make one with `resolve`. Sent to the workers as it is."""

    mixture: Mixture
    """The data sets and their order."""
    total_steps: int
    """Length in optimizer steps."""

    def __post_init__(self) -> None:
        """A change of what was resolved from would go unnoticed."""
        resolved = (self.mixture.config, self.plan.seed, self.plan.global_batch_size, self.total_steps)
        if resolved != (self.data, self.seed, self.global_batch_size, self.steps or self.total_steps):
            raise ValueError(f"{self.name}: change its StageSpec and resolve that, not the resolved stage")

    @property
    def plan(self) -> Plan:
        """The order of the data."""
        return self.mixture.plan

    @property
    def notes(self) -> Notes:
        """What a checkpoint keeps of the job, and what a resumed one is compared with."""
        return {"config": self.config, "data": self.plan.fingerprint}


def resolve(spec: StageSpec, sources: Sequence[OpenSource] | None = None) -> ResolvedStage:
    """Open the data sets, build the plan of their order, and work out the length.

    Args:
        sources: the data sets of `spec.data`, where the caller has opened them already.

    Raises:
        ConfigError: not exactly one of epochs and steps, no step at all, lanes that do not divide the batch.
        DataError: a data set that is not there or is empty.
    """
    opened = open_sources(spec.data, spec.storage_options) if sources is None else sources
    mixture = mix(spec.data, opened, spec.seed, spec.global_batch_size)
    given = {f.name: getattr(spec, f.name) for f in fields(StageSpec)}
    return ResolvedStage(**given, mixture=mixture, total_steps=_total_steps(spec, mixture.plan))


def _total_steps(spec: StageSpec, plan: Plan) -> int:
    name = spec.name
    if (spec.epochs is None) == (spec.steps is None):
        raise ConfigError(f"{name}.epochs is {spec.epochs} and {name}.steps is {spec.steps}.", "Give one.")
    steps = spec.steps if spec.steps is not None else math.ceil((spec.epochs or 0) * plan.steps_per_epoch)
    if steps < 1:
        raise ConfigError(f"{name} has {steps} steps.", f"Raise {name}.epochs or {name}.steps.")
    return steps


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


def first_cursor(notes: Notes, plan: Plan) -> Cursor:
    """Where a run reads on, given the notes of its checkpoint (none: from the start).

    In another order (other data, lanes or seed, accepted by whoever resumed it) a place inside a pass over
    the data means nothing: some samples would come twice and others not at all. The interrupted pass is left,
    and the next one begins.
    """
    cursor = Cursor(**notes["cursor"]) if notes else Cursor()
    if not notes or notes["data"] == plan.fingerprint or cursor.step == 0:
        return cursor
    return Cursor(cursor.epoch + 1, 0)
