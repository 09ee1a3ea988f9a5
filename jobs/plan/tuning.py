"""What the plans of a head and of a language model share: one stage, measured by a step on fake tensors."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from torch import nn

from jobs.common.run_layout import RunJob
from jobs.finetune.config import FinetuneJob
from jobs.finetune.llm.config import FinetuneLlmJob
from jobs.plan.estimate import (
    BatchPlan,
    JobPlan,
    check_mfu,
    cost_of,
    fewest_of,
    memory_table,
    pace_of,
    workers_of,
)
from jobs.plan.machines import Cluster
from jobs.pretrain.config import StageLength
from plinth.errors import ConfigError
from plinth.schema import MISSING
from plinth.world import check_divisibility
from poma3d.cost.activations import Activations, StageSize
from poma3d.cost.step import StepCost
from poma3d.heads.stage import QuestionStage
from poma3d.llm.stage import ConversationStage
from poma3d.network.vit import Block

TunedJob = TypeVar("TunedJob", FinetuneJob, FinetuneLlmJob)

LANGUAGE_MODEL, ENCODER = "language model", "encoder"
NAMES = {"llm": LANGUAGE_MODEL, "tower": "text tower"}
"""Parts of a stage, by the words of the page; the others have their own."""
SAMPLES = ("samples",)
"""What may be assumed of a data set that is not there yet."""


@dataclass(frozen=True)
class LengthPlan:
    """Activations of conversations of a length."""

    tokens: int
    kept: Activations
    again: Activations
    """Where the blocks of the language model are computed again."""
    is_jobs: bool
    """Whether it is the longest of the job."""


@dataclass(frozen=True, kw_only=True)
class TuningPlan(BatchPlan):
    """The plan of finetuning."""

    unit: str
    """What a sample is."""
    samples: float | None
    each: str
    """What is said of a sample, and in `origin` where that comes from."""
    origin: str
    parts: Mapping[str, StageSize]
    passes: Mapping[str, float]
    """Operations of a sample, by pass."""
    lengths: list[LengthPlan]
    again_key: str = ""
    """The key by which blocks are computed again."""

    @property
    def work(self) -> float:
        """Operations of a sample."""
        return sum(self.passes.values())


@dataclass(frozen=True)
class Measured:
    """A step that was measured, and what of it is computed again."""

    cost: StepCost
    samples: int
    """Of its batch."""
    parts: Mapping[str, StageSize]
    recomputed: Collection[str]

    @property
    def size(self) -> StageSize:
        """Of all parts together."""
        parts = self.parts.values()
        return StageSize(sum(p.parameters for p in parts), sum(p.trainable for p in parts), 0)

    @property
    def passes(self) -> dict[str, float]:
        """Operations of a sample, by pass."""
        cost = self.cost
        found = {
            "forward": cost.forward, "backward": cost.backward,
            "blocks again": cost.again(self.recomputed),
        }  # fmt: skip
        return {name: operations / self.samples for name, operations in found.items()}


@dataclass(frozen=True)
class Told:
    """What the page says of the data."""

    unit: str
    samples: float | None
    each: str
    origin: str


def of_one_stage(
    job: RunJob,
    name: str,
    stage: StageLength,
    measured: Measured,
    told: Told,
    cluster: Cluster | None,
    mfu: float,
    lengths: list[LengthPlan],
    again_key: str = "",
) -> JobPlan[TuningPlan]:
    """The plan of a job of one stage.

    Raises:
        ConfigError: sizes that do not divide, or an option out of range.
    """
    check_mfu(mfu)
    workers = workers_of(job)
    check_divisibility(workers, stage.data.lanes, stage.global_batch_size, stage.micro_batch_size)
    gpu = cluster.train.gpu if cluster and cluster.train else None
    kept = measured.cost.activations(measured.samples, measured.recomputed)
    work = sum(measured.passes.values()) * stage.global_batch_size / workers
    fewest, at_fewest = fewest_of(job, stage, measured.size, kept)
    made = TuningPlan(
        name=name,
        size=measured.size,
        global_batch_size=stage.global_batch_size,
        micro_batch_size=stage.micro_batch_size,
        zero=memory_table(job, stage, measured.size, kept, gpu),
        fewest=fewest,
        peak_at_fewest=at_fewest,
        pace=None if gpu is None else pace_of(job, stage, told.samples, work, gpu, mfu),
        unit=told.unit,
        samples=told.samples,
        each=told.each,
        origin=told.origin,
        parts={NAMES.get(part, part): size for part, size in measured.parts.items()},
        passes=measured.passes,
        lengths=lengths,
        again_key=again_key,
    )
    return JobPlan(job, workers, cluster, [made], cost_of(cluster, workers, [made]))


def keeps_blocks(job: TunedJob) -> TunedJob:
    """The same job, whose encoder computes no block again: a measured step keeps them all."""
    if job.encoder is None:
        return job
    return replace(job, encoder=replace(job.encoder, gradient_checkpointing=False))


def encoder_blocks(stage: QuestionStage | ConversationStage) -> dict[str, list[nn.Module]]:
    """The blocks of the encoder that is trained with a stage, by its name; nothing of a frozen one."""
    if stage.encoder is None:
        return {}
    return {ENCODER: [each for each in stage.encoder.modules() if isinstance(each, Block)]}


def their_config(
    source: str, known: Mapping[str, tuple[str, dict[str, Any]]], read: Callable[[], Any]
) -> Any:
    """transformers' configuration of a model, without a download where its sizes are known.

    Args:
        known: class and sizes by hub id.
        read: reads it from where it is.

    Raises:
        ConfigError: it cannot be read.
    """
    from transformers import AutoConfig

    if source in known and not Path(source).is_dir():
        kind, sizes = known[source]
        return AutoConfig.for_model(kind, **sizes)
    try:
        return read()
    except ValueError as error:
        raise ConfigError(
            f"{error}.",
            "Give a folder with its config.json, or plan where it can be downloaded; known without are "
            f"{', '.join(known)}.",
        ) from None


def is_open(uris: Collection[str]) -> bool:
    """Whether one of these is still to be said."""
    return any(Path(uri).name == MISSING for uri in uris)
