"""What every job that trains says of a stage: lengths and sizes that can be, and its `StageSpec`."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from jobs.common.run_layout import RunJob, run_storage
from jobs.pretrain.config import StageLength
from jobs.pretrain.resume import NO_NAMES, KeyNames, check_resume
from plinth.data import config as data_config
from plinth.data.config import SourceConfig
from plinth.data.sources import OpenSource
from plinth.engine.config import OptimConfig
from plinth.errors import ConfigError
from plinth.train.resolve import StageSpec
from plinth.world import check_divisibility
from poma3d.sample import decode

TO_BE_MADE = SourceConfig("to be made")


def checks(job: RunJob, stages: Sequence[tuple[str, StageLength]]) -> list[Callable[[], object]]:
    """What can be said of the shared sections and of the stages, by their names, without opening anything;
    each raises a ConfigError."""
    settings = (job.fit, job.zero, job.checkpoint, job.metrics, job.guard, job.ledger, job.lock, job.optim)
    found: list[Callable[[], object]] = [one.validate for one in settings]
    for name, stage in stages:
        found += [partial(check, job, stage, name) for check in (_check_length, _check_sizes)]
    return found


def in_steps(stage: StageLength, name: str, warmup_steps: int) -> tuple[int | None, int]:
    """Length (None where it is in epochs) and warm-up of a stage in optimizer steps.

    Raises:
        ConfigError: a length or a warm-up is given twice.
    """
    size = stage.global_batch_size
    for key, others in (("samples", ("steps", "epochs")), ("warmup_samples", ("warmup_steps",))):
        twice = [other for other in others if getattr(stage, other) is not None]
        if getattr(stage, key) is not None and twice:
            raise ConfigError(f"{name}.{key} and {name}.{twice[0]} are both given.", "Give one of the two.")
    steps = stage.steps if stage.samples is None else math.ceil(stage.samples / size)
    if stage.warmup_samples is not None:
        return steps, math.ceil(stage.warmup_samples / size)
    return steps, warmup_steps if stage.warmup_steps is None else stage.warmup_steps


def optim_of(job: RunJob, stage: StageLength, name: str) -> OptimConfig:
    """The job's optimizer with the stage's own learning rate and warm-up."""
    lr = job.optim.lr if stage.lr is None else stage.lr
    return replace(job.optim, lr=lr, warmup_steps=in_steps(stage, name, job.optim.warmup_steps)[1])


def stage_spec(
    job: RunJob,
    stage: StageLength,
    name: str,
    build_stage: Callable[[Sequence[OpenSource]], Any],
    identity: dict[str, Any],
    accept_changes: bool,
    names: KeyNames = NO_NAMES,
) -> StageSpec:
    """What the platform trains.

    Args:
        job: with the sections that all such jobs have.
        stage: its data names what is read.
        identity: what decides the result.
        accept_changes: resume although the job differs from the one that wrote the last checkpoint.
        names: keys of the job for those of `identity` that are not common to all jobs.
    """
    names = names.and_also(_common_names(job, stage, name))
    return StageSpec(
        name=name,
        storage=run_storage(job).child(name),
        build_stage=build_stage,
        decode=decode,
        data=stage.data,
        global_batch_size=stage.global_batch_size,
        micro_batch_size=stage.micro_batch_size,
        epochs=stage.epochs,
        steps=in_steps(stage, name, 0)[0],
        seed=job.seed,
        optim=optim_of(job, stage, name),
        zero=job.zero,
        checkpoint=job.checkpoint,
        metrics=job.metrics,
        guard=job.guard,
        ledger=job.ledger,
        storage_options=job.storage,
        config=identity,
        check_resume=partial(check_resume, accept_changes, names=names),
    )


def _common_names(job: RunJob, stage: StageLength, name: str) -> KeyNames:
    """The keys of a stage's lengths, sizes and rates: where the job says them, now."""
    warmup = "optim.warmup_steps"
    if stage.warmup_samples is not None:
        warmup = f"{name}.warmup_samples (in steps)"
    elif stage.warmup_steps is not None:
        warmup = f"{name}.warmup_steps"
    sizes = {key: f"{name}.{key}" for key in ("global_batch_size", "micro_batch_size", "epochs")}
    labels = sizes | {
        "steps": f"{name}.steps" if stage.samples is None else f"{name}.samples (in steps)",
        "optim.lr": "optim.lr" if stage.lr is None else f"{name}.lr",
        "optim.warmup_steps": warmup,
        "data.weights": f"{name}.data.sources (their weights)",
        "data.versions": f"{name}.data.sources (their versions)",
    }
    return KeyNames({"data": f"{name}.data"}, labels)


def _check_length(job: RunJob, stage: StageLength, name: str) -> None:
    """Refuse a length that is given twice, or not at all, and a warm-up that is as long."""
    steps, warmup_steps = in_steps(stage, name, job.optim.warmup_steps)
    if (steps is None) == (stage.epochs is None):
        raise ConfigError(f"{name}.epochs is {stage.epochs} and {name}.steps is {steps}.", "Give one.")
    if steps is not None and warmup_steps >= max(steps, 1):
        lr = _common_names(job, stage, name).label("optim.lr")
        raise ConfigError(
            f"{name}: warmup_steps {warmup_steps} is not less than the stage's {steps} steps.",
            f"The learning rate would never reach {lr}: lower {name}.warmup_steps or train longer.",
        )


def _check_sizes(job: RunJob, stage: StageLength, name: str) -> None:
    """Refuse lanes and batches that do not divide by any number of workers that the job allows, and settings
    of reading that cannot be. Sources may still be made by the job."""
    data = stage.data if stage.data.sources else replace(stage.data, sources=[TO_BE_MADE])
    low, high = max(1, job.fit.workers.min), max(1, job.fit.workers.max)
    try:
        data_config.validate(data)
        check_divisibility(
            low if low == high else 1, stage.data.lanes, stage.global_batch_size, stage.micro_batch_size
        )
    except ConfigError as error:
        raise ConfigError(f"{name}: {error.problem}", error.fix) from None
