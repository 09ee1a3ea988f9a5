"""Every mistake that can be found before anything starts or is written, each looked for once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from plinth.checkpoint import store
from plinth.data import config as data_config
from plinth.data.config import DataConfig
from plinth.errors import ConfigError
from plinth.launch.config import FitConfig
from plinth.train.resolve import ResolvedStage, refuse_changes
from plinth.world import check_divisibility, possible_world_sizes


@dataclass(frozen=True)
class CheckedRun:
    """Stages that were checked, with the numbers of workers that they may have; what `launch` takes."""

    fit: FitConfig
    stages: tuple[ResolvedStage, ...]
    sizes: tuple[int, ...]
    """Ascending."""

    def locked(self, run_id: str, lock_token: str) -> CheckedRun:
        """The same for the run that is locked now."""
        stages = (replace(stage, run_id=run_id, lock_token=lock_token) for stage in self.stages)
        return replace(self, stages=tuple(stages))


def check(fit: FitConfig, stages: Sequence[ResolvedStage]) -> CheckedRun:
    """Settings out of range, sizes that do not divide, storage that cannot be written, a run that was changed
    since its last checkpoint.

    Raises:
        PlinthError: the first one.
    """
    fit.validate()
    low, high = max(1, fit.workers.min), max(1, fit.workers.max)
    for stage in stages:
        data_config.validate(stage.data)
        for settings in (stage.zero, stage.checkpoint, stage.metrics, stage.guard, stage.ledger):
            settings.validate()
        check_divisibility(
            low if low == high else 1, stage.data.lanes, stage.global_batch_size, stage.micro_batch_size
        )
        stage.optim.validate(stage.total_steps)
    sizes = possible_sizes(stages, low, high)
    stages[0].storage.check(write=True)
    for stage in stages:
        if store.latest(stage.checkpoints) is not None:
            saved = store.read_state(stage.checkpoints)["notes"]
            (stage.check_resume or refuse_changes)(saved, stage.notes)
    return CheckedRun(fit, tuple(stages), tuple(sizes))


class Sized(Protocol):
    """What of a stage decides how many workers it may have."""

    @property
    def data(self) -> DataConfig:
        """Its lanes count."""
        ...

    @property
    def global_batch_size(self) -> int:
        """Samples of a step."""
        ...

    @property
    def micro_batch_size(self) -> int:
        """Samples that pass through the model at once."""
        ...


def possible_sizes(stages: Sequence[Sized], low: int, high: int) -> list[int]:
    """Numbers of workers from `low` to `high` that divide lanes and micro-batches of every stage, ascending.

    Raises:
        ConfigError: there is none.
    """
    every = set(range(1, max(stage.data.lanes for stage in stages) + 1))
    for stage in stages:
        every &= set(possible_world_sizes(stage.data.lanes, stage.global_batch_size, stage.micro_batch_size))
    sizes = sorted(size for size in every if low <= size <= high)
    if not sizes:
        raise ConfigError(
            f"No number of workers from {low} to {high} divides lanes and micro-batches of all stages.",
            f"Possible are {sorted(every)}.",
        )
    return sizes
