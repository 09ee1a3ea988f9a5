"""`poma plan JOB`: memory, time, storage and cost of a pretraining job, from files alone, before it starts.

The model is built without memory and counted; what cannot be known from files (how much of its peak a GPU
reaches, how many samples a data set has that is not there yet) is assumed, and the page says so.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jobs.common import models as teachers
from jobs.common.run_layout import STAGES
from jobs.plan.data import DataFacts, data_facts, parse_assumptions
from jobs.plan.machines import Cluster, Gpu, NodeType
from jobs.plan.memory import Memory, divisors_up_to, dtype_of, largest_micro_batch, memory
from jobs.pretrain.config import PretrainJob, stage_config
from plinth.engine.config import Precision
from plinth.errors import ConfigError
from plinth.units import SECONDS_PER_HOUR
from plinth.world import check_divisibility
from poma3d.cost.activations import StageSize, activations, meta_stage, outline, stage_size
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


@dataclass(frozen=True)
class Pace:
    """How fast a stage goes on a cluster."""

    gpu: Gpu
    mfu: float
    workers: int
    step_s: float
    samples_per_s: float
    steps: int | None
    steps_per_epoch: int | None

    @property
    def hours(self) -> float | None:
        """Of the whole stage."""
        return None if self.steps is None else self.steps * self.step_s / SECONDS_PER_HOUR

    @property
    def epoch_hours(self) -> float | None:
        """Of one pass over the data."""
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
    """The largest of those that cuts the global batch evenly over the workers."""


@dataclass(frozen=True)
class StoragePlan:
    """What storage must give to so many GPUs."""

    gpus: int
    samples_per_s: float
    bytes_per_s: float
    requests_per_s: float


@dataclass(frozen=True)
class StagePlan:
    """Everything that is told about a stage."""

    name: str
    data: DataFacts
    size: StageSize
    flops: StageFlops
    global_batch_size: int
    micro_batch_size: int
    two_pass: bool
    zero: list[ZeroPlan]
    fewest: int
    """Workers at least, when the run shrinks."""
    peak_at_fewest: int
    """Bytes of a GPU then, at the job's ZeRO stage: each holds a larger share."""
    pace: Pace | None
    storage: list[StoragePlan]


@dataclass(frozen=True)
class Cost:
    """Of all stages together on a cluster."""

    nodes: list[tuple[NodeType, int]]
    hours: float | None
    total: float | None
    missing: list[str]
    """Node types without a price."""


@dataclass(frozen=True)
class Plan:
    """A job's plan."""

    job: PretrainJob
    workers: int
    cluster: Cluster | None
    stages: list[StagePlan]
    cost: Cost | None


def plan(job: PretrainJob, cluster: Cluster | None, mfu: float, assume: list[str]) -> Plan:
    """Work the plan out.

    Raises:
        PlinthError: a job that cannot be, or an option out of range.
    """
    if not 0 < mfu <= 1:
        raise ConfigError(f"--mfu is {mfu}, expected a share in (0, 1].")
    job.zero.validate()
    assumed = parse_assumptions(assume)
    workers = max(1, job.fit.workers.max)
    vit = tower_of(job.teacher, job)
    stages = [
        _plan_stage(job, name, vit, workers, cluster, mfu, assumed)
        for name in STAGES
        if stage_config(job, name) is not None
    ]
    if not stages:
        raise ConfigError("The job has neither a warmup nor a main section.", "Give at least one.")
    return Plan(job, workers, cluster, stages, _cost(cluster, workers, stages))


def tower_of(cfg: TeacherConfig, job: PretrainJob) -> VitShape:
    """The shape of the teacher's image tower, without its weights.

    Raises:
        ConfigError: its config cannot be read; says why.
    """
    known = PUBLISHED.get(cfg.source)
    if known is not None:
        return VitShape(**known)
    from transformers import AutoConfig

    source = teachers.fetch(cfg.source, job.storage)
    try:
        config = AutoConfig.from_pretrained(source, revision=None if Path(source).is_dir() else cfg.revision)
        return tower_shape(config, ATTENTION_POOL if config.model_type == "siglip" else CLASS_TOKEN)
    except (OSError, ValueError, AttributeError) as error:
        raise ConfigError(
            f"teacher.source {cfg.source}: its config cannot be read ({str(error).splitlines()[0]}).",
            f"Give a folder with config.json, or one of {', '.join(PUBLISHED)}.",
        ) from None


def _plan_stage(
    job: PretrainJob, name: str, vit: VitShape, workers: int, cluster: Cluster | None, mfu: float,
    assumed: dict[tuple[str, str], int],
) -> StagePlan:  # fmt: skip
    stage = stage_config(job, name)
    assert stage is not None
    data = data_facts(job, name, stage, vit.joint, assumed)
    tower = outline(vit)
    try:
        models.validate(job.model, stage.loss, data.shape, tower)
    except ValueError as error:
        raise ConfigError(str(error)) from None
    check_divisibility(workers, stage.data.lanes, stage.global_batch_size, stage.micro_batch_size)
    built = meta_stage(name, job.model, stage.loss, data.shape, tower)
    size, kept = stage_size(built), activations(built, dtype_of(job.zero))
    flops = stage_flops(name, job.model, stage.loss, data.shape, tower, job.seed)
    node = cluster.train if cluster else None
    gpu = node.gpu if node else None
    two_pass = stage.global_batch_size > workers * stage.micro_batch_size
    pairs = flops.pairs(stage.global_batch_size)
    zero = []
    for number in ZERO_STAGES if job.zero.precision is Precision.fp32 else ZERO_STAGES[1:]:
        largest = divides = None
        if gpu is not None:
            largest = largest_micro_batch(size, kept, job.zero, number, workers, gpu.memory_bytes, pairs)
            divides = max(divisors_up_to(largest, stage.global_batch_size, workers), default=0)
        held = memory(size, kept, job.zero, number, workers, stage.micro_batch_size, pairs, two_pass)
        zero.append(ZeroPlan(number, held, largest, divides))
    fewest = max(1, job.fit.workers.min)
    at_fewest = memory(size, kept, job.zero, job.zero.stage, fewest, stage.micro_batch_size, pairs)
    pace = None
    if gpu is not None:
        per_epoch = None if data.samples is None else math.ceil(data.samples / stage.global_batch_size)
        steps = stage.steps
        if stage.samples is not None:
            steps = math.ceil(stage.samples / stage.global_batch_size)
        if steps is None and per_epoch is not None and stage.epochs is not None:
            steps = math.ceil(stage.epochs * per_epoch)
        speed = mfu * (gpu.bf16_flops if job.zero.precision is Precision.bf16 else gpu.fp32_flops)
        work = flops.per_sample(two_pass) * stage.global_batch_size / workers
        step_s = (work + flops.contrast(stage.global_batch_size)) / speed
        pace = Pace(gpu, mfu, workers, step_s, stage.global_batch_size / step_s, steps, per_epoch)
    return StagePlan(
        name, data, size, flops, stage.global_batch_size, stage.micro_batch_size, two_pass, zero,
        fewest, at_fewest.peak, pace,
        [] if pace is None else [_storage(pace, data, count) for count in GPU_COUNTS],
    )  # fmt: skip


def _storage(pace: Pace, data: DataFacts, gpus: int) -> StoragePlan:
    samples = pace.samples_per_s / pace.workers * gpus
    return StoragePlan(gpus, samples, samples * data.bytes_per_sample, samples / data.samples_per_request)


def _cost(cluster: Cluster | None, workers: int, stages: list[StagePlan]) -> Cost | None:
    """The nodes that the workers need, the head, and the data nodes beside them, for as long as it takes."""
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
    return Cost(nodes, total_hours, total, missing)
