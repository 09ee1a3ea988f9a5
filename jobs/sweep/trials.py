"""The trials of a sweep, whichever kind of training they are: values in place, length, measures."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Generic, TypeVar

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from jobs.finetune.config import FinetuneJob
from jobs.pretrain import config as pretraining
from jobs.pretrain.config import PretrainJob
from jobs.sweep.config import AnySweepJob
from plinth import config
from plinth.data.config import ReaderKind
from plinth.errors import ConfigError
from plinth.launch.config import Workers
from plinth.launch.placement import TrialPlacement
from plinth.storage import Storage
from plinth.sweep.records import TRIALS, Measured, StageLength, Values

S = TypeVar("S", bound=AnySweepJob)
J = TypeVar("J", PretrainJob, FinetuneJob)

FIXED_KEYS = ("kind", "name", "output", "fit", "ray", "storage", "lock", "ledger", "sweep")
"""What no trial of any kind may vary: it says where and on what it runs."""
PROBE = "probe"
"""Name of a trial that is only looked at."""


@dataclass(frozen=True)
class Trials(ABC, Generic[S, J]):
    """All trials of a sweep; picklable.

    Args:
        job: with absolute folders and pinned data sets: trials run in other folders and at other times.
        storage: the sweep's folder.
    """

    job: S
    storage: Storage

    fixed_keys: ClassVar[tuple[str, ...]] = FIXED_KEYS
    """Keys of the job that no trial may vary; with a section all that is in it."""

    @property
    def shares_warmup(self) -> bool:
        """Whether all trials start from the warm-up in `SHARED`."""
        return False

    @property
    @abstractmethod
    def stages(self) -> Mapping[str, pretraining.StageLength]:
        """The sections of the stages of a trial, in their order."""

    @abstractmethod
    def metrics(self) -> set[str]:
        """What a trial reports: of its training, and of `measured`."""

    @abstractmethod
    def measured(self) -> set[str]:
        """What `measure` gives."""

    @abstractmethod
    def measure(self, run: Storage, stage: str, step: int) -> dict[str, Measured]:
        """What a checkpoint of a trial is worth."""

    @abstractmethod
    def pinned(self, resumes: bool) -> S:
        """The job with absolute folders, every data set at its version: that of the first start."""

    def check(self) -> None:
        """Find mistakes in what trials are measured by; nothing where `admit` finds all.

        Raises:
            PlinthError: the first one.
        """

    @abstractmethod
    def decisive(self) -> dict[str, Any]:
        """The sections of the job that decide the result of a trial, `zero` and `sweep` aside."""

    @abstractmethod
    def plain(self) -> J:
        """The job without what makes it a sweep."""

    @abstractmethod
    def placed(self, job: J) -> J:
        """A job of full length as a trial's: stages shortened and read by threads, started from the warm-up
        that trials share, where they do."""

    @abstractmethod
    def admit(self, values: Values) -> None:
        """Find every mistake in a trial that can be found before it starts.

        Raises:
            PlinthError: the first one.
        """

    @abstractmethod
    def train(self, name: str, values: Values, placement: TrialPlacement, has_changed: bool) -> None:
        """Train a trial to its end in its reserved resources; resumes it."""

    @abstractmethod
    def lengths(self, values: Values) -> dict[str, StageLength]:
        """Lengths of the stages, in order."""

    def job_of(self, name: str, values: Values) -> J:
        """The job of a trial.

        Raises:
            ConfigError: naming the key that the job does not have, or whose type refuses the value.
        """
        job = self.full_job(values)
        job.name, job.output = name, self.storage.child(TRIALS).uri
        size = self.job.sweep.workers
        job.fit.workers = Workers(size, size)
        return self.placed(job)

    def full_job(self, values: Values) -> J:
        """The job of the sweep with values in place, of full length and in the sweep's own place.

        Raises:
            ConfigError: as `job_of`.
        """
        return with_values(self.plain(), values)

    def is_fixed(self, key: str) -> bool:
        """Whether a key is one that no trial may vary."""
        return any(key == fixed or key.startswith(f"{fixed}.") for fixed in self.fixed_keys)


def with_values(job: J, values: Values) -> J:
    """The job with dotted keys set.

    Raises:
        ConfigError: an unknown key, or a value that its type refuses.
    """
    layers: list[tuple[str, Any]] = [("the sweep's job", config.to_dict(job))]
    for key, value in values.items():
        layer = OmegaConf.create({})
        try:
            OmegaConf.update(layer, key, value)
        except OmegaConfBaseException as error:
            raise ConfigError(f"sweep.space.{key}: no key of a job ({error}).") from None
        layers.append((f"sweep.space.{key}", layer))
    return config.build(type(job), layers)


def without(job: AnySweepJob, schema: type[J], keys: tuple[str, ...]) -> J:
    """A sweep's job as one of `schema`, without its own keys."""
    plain = {key: value for key, value in config.to_dict(job).items() if key not in keys}
    return config.build(schema, [("the sweep's job", plain)])


def shortened(stage: pretraining.StageLength, part: float) -> None:
    """Make the stage of a trial a part as long, in place; read by threads: reading tasks would ask for CPUs
    beside those that the trial has reserved."""
    if stage.steps is not None:
        stage.steps = math.ceil(stage.steps * part)
    if stage.samples is not None:
        stage.samples = math.ceil(stage.samples * part)
    if stage.epochs is not None:
        stage.epochs *= part
    stage.data = replace(stage.data, reader=ReaderKind.threads)
