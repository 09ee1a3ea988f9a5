"""`poma plan JOB`: memory, time, storage and cost of a pretraining job, from files alone, before it starts.

The model is built without memory and counted; what cannot be known from files (how much of its peak a GPU
reaches, how many samples a future data set has) is assumed, and the page says so.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from jobs.common import models as teachers
from jobs.common.run_layout import STAGES, RunJob
from jobs.plan.data import Assumptions, DataFacts, data_facts, parse_assumptions
from jobs.plan.machines import Cluster, Gpu, NodeType
from jobs.plan.memory import Memory, divisors_up_to, dtype_of, largest_micro_batch, memory
from jobs.pretrain.config import PretrainJob, StageLength, stage_config
from plinth.engine.config import Precision
from plinth.errors import ConfigError, first_line
from plinth.units import SECONDS_PER_HOUR
from plinth.world import check_divisibility
from poma3d.cost.activations import Activations, StageSize, activations, meta_stage, outline, stage_size
from poma3d.cost.flops import StageFlops, stage_flops
from poma3d.network import model as models
from poma3d.network.vit import VitShape
from poma3d.pretrained.config import TeacherConfig
from poma3d.pretrained.towers import tower_shape

DEFAULT_MFU = 0.35
"""Share of a GPU's peak that training is taken to reach: 0.33 to 0.46 is published for large language models
on H100; this model's own has not been measured."""
ZERO_STAGES = (0, 1, 2, 3)
"""The first keeps no masters, so bf16 does without it."""
GPU_COUNTS = (8, 64, 512, 1024)
CLASS_TOKEN, ATTENTION_POOL = "class", "attention"
_BASE = {
    "grid": (14, 14),
    "patch": 16,
    "channels": 3,
    "width": 768,
    "layers": 12,
    "heads": 12,
    "mlp_width": 3072,
}
_CLIP = {"activation": "quick_gelu", "norm_eps": 1e-5, "pooling": CLASS_TOKEN}
PUBLISHED: dict[str, dict[str, Any]] = {
    "qihoo360/fg-clip-base": {**_BASE, **_CLIP, "joint": 512},
    "openai/clip-vit-base-patch16": {**_BASE, **_CLIP, "joint": 512},
    "google/siglip-base-patch16-224": {
        **_BASE, "activation": "gelu_pytorch_tanh", "norm_eps": 1e-6, "pooling": ATTENTION_POOL, "joint": 768,
    },
}  # fmt: skip
"""Image towers by hub id, so that a plan needs no download."""
PAPERS_TOWER = VitShape(**PUBLISHED["qihoo360/fg-clip-base"])
"""Of an encoder that is not there yet."""


@dataclass(frozen=True)
class Pace:
    """How fast a stage trains on a cluster."""

    gpu: Gpu
    mfu: float
    workers: int
    step_s: float
    samples_per_s: float
    steps: int | None
    steps_per_epoch: int | None

    @property
    def hours(self) -> float | None:
        """Hours of the whole stage; None while its steps are unknown."""
        return None if self.steps is None else self.steps * self.step_s / SECONDS_PER_HOUR

    @property
    def epoch_hours(self) -> float | None:
        """Hours of one pass over the data."""
        per_epoch = self.steps_per_epoch
        return None if per_epoch is None else per_epoch * self.step_s / SECONDS_PER_HOUR


@dataclass(frozen=True)
class ZeroPlan:
    """One ZeRO stage."""

    stage: int
    memory: Memory
    largest: int | None
    """Most samples of a micro-batch that fit a GPU of the cluster; None without one."""
    divides: int | None
    """The largest of those that divides the global batch over the workers."""


@dataclass(frozen=True)
class StoragePlan:
    """What storage must deliver to a number of GPUs."""

    gpus: int
    samples_per_s: float
    bytes_per_s: float
    requests_per_s: float


@dataclass(frozen=True, kw_only=True)
class BatchPlan:
    """The plan of a stage of any job that trains."""

    name: str
    size: StageSize
    global_batch_size: int
    micro_batch_size: int
    zero: list[ZeroPlan]
    fewest: int
    """Workers that a shrunk run keeps."""
    peak_at_fewest: int
    """Bytes of a GPU with so few workers, at the job's ZeRO stage: each holds a larger share."""
    pace: Pace | None


@dataclass(frozen=True, kw_only=True)
class StagePlan(BatchPlan):
    """The plan of a stage of pretraining."""

    data: DataFacts
    flops: StageFlops
    two_pass: bool
    storage: list[StoragePlan]


S_co = TypeVar("S_co", bound=BatchPlan, covariant=True)


@dataclass(frozen=True)
class JobCost:
    """Cost of all stages together on a cluster."""

    nodes: list[tuple[NodeType, int]]
    hours: float | None
    total: float | None
    missing: list[str]
    """Node types without a price."""


@dataclass(frozen=True)
class JobPlan(Generic[S_co]):
    """A job's plan."""

    job: RunJob
    workers: int
    cluster: Cluster | None
    stages: Sequence[S_co]
    cost: JobCost | None


def plan(job: PretrainJob, cluster: Cluster | None, mfu: float, assume: list[str]) -> JobPlan[StagePlan]:
    """The plan of a job of pretraining.

    Raises:
        PlinthError: a job that cannot be, or an option out of range.
    """
    check_mfu(mfu)
    job.zero.validate()
    assumed = parse_assumptions(assume, STAGES)
    vit = tower_of(job.teacher, job)
    gpu = cluster.train.gpu if cluster and cluster.train else None
    stages = [
        _plan_stage(job, name, vit, gpu, mfu, assumed)
        for name in STAGES
        if stage_config(job, name) is not None
    ]
    if not stages:
        raise ConfigError("The job has neither a warmup nor a main section.", "Give at least one.")
    return JobPlan(job, workers_of(job), cluster, stages, cost_of(cluster, workers_of(job), stages))


def check_mfu(mfu: float) -> None:
    """Refuse a share of the peak that cannot be.

    Raises:
        ConfigError: it is not in (0, 1].
    """
    if not 0 < mfu <= 1:
        raise ConfigError(f"--mfu is {mfu}, expected a share in (0, 1].")


def tower_of(teacher: TeacherConfig, job: PretrainJob) -> VitShape:
    """The shape of the teacher's image tower, without its weights.

    Raises:
        ConfigError: its config cannot be read; says why.
    """
    known = PUBLISHED.get(teacher.source)
    if known is not None:
        return VitShape(**known)
    from transformers import AutoConfig

    source = teachers.fetch(teacher.source, job.storage)
    try:
        config = AutoConfig.from_pretrained(
            source, revision=None if Path(source).is_dir() else teacher.revision
        )
        return tower_shape(config, ATTENTION_POOL if config.model_type == "siglip" else CLASS_TOKEN)
    except (OSError, ValueError, AttributeError) as error:
        raise ConfigError(
            f"teacher.source {teacher.source}: its config cannot be read ({first_line(error)}).",
            f"Give a folder with config.json, or one of {', '.join(PUBLISHED)}.",
        ) from None


def _plan_stage(
    job: PretrainJob, name: str, vit: VitShape, gpu: Gpu | None, mfu: float, assumed: Assumptions
) -> StagePlan:
    stage = stage_config(job, name)
    assert stage is not None
    data = data_facts(job, name, stage, vit.joint, assumed)
    tower, workers = outline(vit), workers_of(job)
    try:
        models.validate(job.model, stage.loss, data.shape, tower)
    except ValueError as error:
        raise ConfigError(str(error)) from None
    check_divisibility(workers, stage.data.lanes, stage.global_batch_size, stage.micro_batch_size)
    built = meta_stage(name, job.model, stage.loss, data.shape, tower)
    size, kept = stage_size(built), activations(built, dtype_of(job.zero))
    flops = stage_flops(name, job.model, stage.loss, data.shape, tower, job.seed)
    pairs, two_pass = flops.pairs(stage.global_batch_size), _two_pass(stage, workers)
    work = flops.per_sample(two_pass) * stage.global_batch_size / workers
    work += flops.contrast(stage.global_batch_size)
    pace = None if gpu is None else pace_of(job, stage, data.samples, work, gpu, mfu)
    fewest, at_fewest = fewest_of(job, stage, size, kept, pairs)
    return StagePlan(
        name=name,
        data=data,
        size=size,
        flops=flops,
        global_batch_size=stage.global_batch_size,
        micro_batch_size=stage.micro_batch_size,
        two_pass=two_pass,
        zero=memory_table(job, stage, size, kept, gpu, pairs, two_pass),
        fewest=fewest,
        peak_at_fewest=at_fewest,
        pace=pace,
        storage=[] if pace is None else [_storage(pace, data, count) for count in GPU_COUNTS],
    )


def workers_of(job: RunJob) -> int:
    """Most workers that a job trains on."""
    return max(1, job.fit.workers.max)


def _two_pass(stage: StageLength, workers: int) -> bool:
    """Whether a rank has more than one micro-batch, so that features are computed before the losses."""
    return stage.global_batch_size > workers * stage.micro_batch_size


def fewest_of(
    job: RunJob, stage: StageLength, size: StageSize, kept: Activations, pairs: int = 0
) -> tuple[int, int]:
    """Workers that a shrunk run keeps, and what a GPU of each holds, bytes."""
    fewest = max(1, job.fit.workers.min)
    held = memory(size, kept, job.zero, job.zero.stage, fewest, stage.micro_batch_size, pairs)
    return fewest, held.peak


def memory_table(
    job: RunJob,
    stage: StageLength,
    size: StageSize,
    kept: Activations,
    gpu: Gpu | None,
    pairs: int = 0,
    two_pass: bool = True,
) -> list[ZeroPlan]:
    """What a GPU holds at each ZeRO stage; without a GPU, not how much fits."""
    workers, batch, micro_batch, table = workers_of(job), stage.global_batch_size, stage.micro_batch_size, []
    for number in ZERO_STAGES if job.zero.precision is Precision.fp32 else ZERO_STAGES[1:]:
        largest = divides = None
        if gpu is not None:
            largest = largest_micro_batch(size, kept, job.zero, number, workers, gpu.memory_bytes, pairs)
            divides = max(divisors_up_to(largest, batch, workers), default=0)
        held = memory(size, kept, job.zero, number, workers, micro_batch, pairs, two_pass)
        table.append(ZeroPlan(number, held, largest, divides))
    return table


def pace_of(
    job: RunJob, stage: StageLength, samples: float | None, work: float, gpu: Gpu, mfu: float
) -> Pace:
    """How fast a stage trains.

    Args:
        samples: of an epoch; None if unknown.
        work: operations of a step on each GPU.
    """
    batch = stage.global_batch_size
    per_epoch = None if samples is None else math.ceil(samples / batch)
    steps = stage.steps
    if stage.samples is not None:
        steps = math.ceil(stage.samples / batch)
    if steps is None and per_epoch is not None and stage.epochs is not None:
        steps = math.ceil(stage.epochs * per_epoch)
    speed = mfu * (gpu.bf16_flops if job.zero.precision is Precision.bf16 else gpu.fp32_flops)
    step_s = work / speed
    return Pace(gpu, mfu, workers_of(job), step_s, batch / step_s, steps, per_epoch)


def _storage(pace: Pace, data: DataFacts, gpus: int) -> StoragePlan:
    samples = pace.samples_per_s / pace.workers * gpus
    return StoragePlan(gpus, samples, samples * data.bytes_per_sample, samples / data.samples_per_request)


def cost_of(cluster: Cluster | None, workers: int, stages: Sequence[BatchPlan]) -> JobCost | None:
    """The nodes that the workers need, the head and the data nodes, until the last stage ends."""
    if cluster is None or cluster.train is None:
        return None
    train = cluster.train
    nodes = [(train, math.ceil(workers / train.gpus)), *((n, n.most) for n in cluster.data)]
    if train is not cluster.head:
        nodes.append((cluster.head, 1))
    missing = [node.name for node, _ in nodes if node.hourly is None]
    hours = [stage.pace.hours if stage.pace else None for stage in stages]
    known = [h for h in hours if h is not None]
    total_hours = sum(known) if len(known) == len(hours) else None
    hourly = sum((node.hourly or 0.0) * count for node, count in nodes)
    total = None if total_hours is None or missing else total_hours * hourly
    return JobCost(nodes, total_hours, total, missing)
