"""The job files: every command's schema, composed from the configs of the modules that it joins."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from jobs.caption_config import CaptionJob
from jobs.cluster import RayConfig
from jobs.lift_config import LiftJob
from jobs.readers import ReaderConfig
from jobs.teacher_config import TeacherTrainConfig
from plinth import config
from plinth.config import MISSING
from plinth.data.plan import DataConfig
from plinth.data.shards import ShardOptions
from plinth.errors import ConfigError
from plinth.fit import FitConfig
from plinth.lock import LockConfig
from plinth.storage import StorageOptions
from plinth.sweep.config import SweepConfig
from plinth.train.checkpoint_config import CheckpointConfig
from plinth.train.incidents import GuardConfig
from plinth.train.ledger import LedgerConfig
from plinth.train.metrics import MetricsConfig
from plinth.train.schedules import OptimConfig
from plinth.train.zero import ZeroConfig
from poma3d.evaluate.probe import ProbeConfig
from poma3d.evaluate.retrieval import RetrievalConfig
from poma3d.model import LossConfig, ModelConfig
from poma3d.scenes.views import ViewConfig
from poma3d.teacher import TeacherConfig

T = TypeVar("T")


@dataclass
class ShapeConfig:
    """The sizes that all samples of a data set share."""

    views: int = 32
    """Views of a sample, V; 1 for single images."""
    height: int = 224
    """Rows of a point map."""
    width: int = 224
    """Columns of a point map."""
    captions: int = 5
    """Captions kept of a view, C; the rest is cut."""
    scene_captions: int = 4
    """Captions kept of a scene, S; the rest is cut."""


@dataclass
class IngestJob:
    """`poma ingest`: a source of scenes -> a data set."""

    kind: str = "ingest"
    """Which command this file is for."""
    output: str = MISSING
    """Folder or URI of the data set."""
    overwrite: bool = False
    """Replace a data set that another job built there."""
    reader: ReaderConfig = field(default_factory=ReaderConfig)
    """Where the scenes come from."""
    shape: ShapeConfig = field(default_factory=ShapeConfig)
    """Sizes of the samples."""
    views: ViewConfig = field(default_factory=ViewConfig)
    """How frames become samples."""
    scenes_per_shard: int = 64
    """Scenes that a task reads into one shard."""
    shards: ShardOptions = field(default_factory=ShardOptions)
    """How a shard is written."""
    storage: StorageOptions = field(default_factory=StorageOptions)
    """How to reach the output."""
    workers: int = 2
    """Tasks that run at a time; 0 reads here, without Ray."""
    ray: RayConfig = field(default_factory=RayConfig)
    """Where the tasks run."""


@dataclass
class EmbedJob:
    """`poma embed`: a data set -> the same with a teacher's embeddings."""

    kind: str = "embed"
    """Which command this file is for."""
    data: str = MISSING
    """Folder or URI of the data set."""
    teacher: TeacherConfig = field(default_factory=TeacherConfig)
    """Whose embeddings."""
    image_tokens: bool = False
    """Keep the teacher's patch tokens too, for dense distillation: about 2 x patches x width bytes a view."""
    shards: ShardOptions = field(default_factory=ShardOptions)
    """How a shard is written."""
    storage: StorageOptions = field(default_factory=StorageOptions)
    """How to reach the data set, and a teacher in storage."""
    workers: int = 2
    """Tasks that run at a time, each with a copy of the teacher; 0 embeds here, without Ray."""
    gpus_per_worker: float = 0.0
    """GPUs that a task claims; 0 runs on CPUs."""
    ray: RayConfig = field(default_factory=RayConfig)
    """Where the tasks run."""


@dataclass
class StageConfig:
    """One of the two pretraining stages."""

    data: DataConfig = field(default_factory=DataConfig)
    """What is read, and in which order."""
    global_batch_size: int = 48
    """Samples of a step over all workers; they are each other's negatives."""
    micro_batch_size: int = 6
    """Samples that pass through the model at once, on any number of workers. It sets memory; the loss and its
    gradient do not depend on it (dropout is drawn per micro-batch)."""
    epochs: float | None = None
    """Length in passes over the data; or give steps or samples."""
    steps: int | None = None
    """Length in optimizer steps; or give epochs or samples."""
    samples: int | None = None
    """Length in samples, whatever the batch size; or give epochs or steps."""
    lr: float | None = None
    """Peak learning rate of this stage, in place of optim.lr."""
    warmup_steps: int | None = None
    """Warm-up of this stage, in place of optim.warmup_steps."""
    warmup_samples: int | None = None
    """The same in samples, whatever the batch size; in place of warmup_steps."""
    loss: LossConfig = field(default_factory=LossConfig)
    """Weights of the loss terms."""


@dataclass
class PretrainJob:
    """`poma pretrain`: warm-up, then the main stage from the warm-up's weights."""

    kind: str = "pretrain"
    """Which command this file is for."""
    name: str = MISSING
    """Name of the run: its folder is output/name."""
    output: str = MISSING
    """Folder or URI that holds runs."""
    seed: int = 0
    """Seed of the data order, masks, caption draws, augmentation, dropout and new weights."""
    teacher: TeacherConfig = field(default_factory=TeacherConfig)
    """Whose image tower the encoder starts from, and whose embeddings the data must hold."""
    model: ModelConfig = field(default_factory=ModelConfig)
    """The model, the same in both stages."""
    start: str | None = None
    """A stage of another run (output/name/warmup) whose weights the first stage of this one starts from."""
    warmup: StageConfig | None = None
    """Stage 1: view alignment on maps of single images; left out when null."""
    main: StageConfig | None = None
    """Stage 2: view and scene alignment and POMA-JEPA; left out when null."""
    optim: OptimConfig = field(default_factory=OptimConfig)
    """Optimizer and learning rate schedule of both stages."""
    zero: ZeroConfig = field(default_factory=ZeroConfig)
    """What is sharded over the workers, and in which precision."""
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)
    """When checkpoints are written, and how many are kept."""
    guard: GuardConfig = field(default_factory=GuardConfig)
    """What counts as going wrong in training, and what is done about it."""
    ledger: LedgerConfig = field(default_factory=LedgerConfig)
    """How the run's time is accounted."""
    lock: LockConfig = field(default_factory=LockConfig)
    """How the run makes sure that nobody else writes to it."""
    metrics: MetricsConfig = field(default_factory=MetricsConfig)
    """What is logged, and how often."""
    fit: FitConfig = field(default_factory=FitConfig)
    """Workers and what each has."""
    storage: StorageOptions = field(default_factory=StorageOptions)
    """How to reach data, runs and a teacher in storage."""
    ray: RayConfig = field(default_factory=RayConfig)
    """Where the workers run."""


@dataclass
class EvaluateJob:
    """`poma evaluate`: an encoder on held-out scenes."""

    kind: str = "evaluate"
    """Which command this file is for."""
    run: str = MISSING
    """Folder of the run (output/name), or of an exported encoder."""
    data: str = MISSING
    """Folder or URI of the held-out data set, embedded by the run's teacher."""
    teacher: TeacherConfig = field(default_factory=TeacherConfig)
    """The run's teacher; it embeds the queries."""
    retrieval: RetrievalConfig = field(default_factory=RetrievalConfig)
    """Zero-shot scene retrieval."""
    probe: ProbeConfig = field(default_factory=ProbeConfig)
    """Linear probe of the classes in view."""
    batch_size: int = 16
    """Scenes that pass through the encoder at once."""
    output: str | None = None
    """Where evaluation.json goes; beside the run when empty."""
    storage: StorageOptions = field(default_factory=StorageOptions)
    """How to reach run, data and a teacher in storage."""


@dataclass
class ExportJob:
    """`poma export`: a run's target encoder -> safetensors + config."""

    kind: str = "export"
    """Which command this file is for."""
    run: str = MISSING
    """Folder of the run: output/name."""
    output: str = MISSING
    """Folder or URI that gets config.json and model.safetensors."""
    stage: str | None = None
    """warmup or main; empty for the last stage that has a checkpoint."""
    step: int | None = None
    """Step of the checkpoint; empty for the last."""
    storage: StorageOptions = field(default_factory=StorageOptions)
    """How to reach run and output."""


@dataclass
class DemoJob:
    """`poma demo`: everything from rooms to a report, in one folder."""

    kind: str = "demo"
    """Which command this file is for."""
    folder: str = "demo"
    """Where data, teacher, runs and the report go. What is already there is not made again."""
    rooms: IngestJob = field(default_factory=IngestJob)
    """Training rooms: scenes of several views. Its output is set by the demo."""
    images: IngestJob = field(default_factory=IngestJob)
    """Single views of rooms for the warm-up. Its output is set by the demo."""
    held_out: IngestJob = field(default_factory=IngestJob)
    """Rooms that nothing trains on. Its output is set by the demo."""
    teacher: TeacherTrainConfig = field(default_factory=TeacherTrainConfig)
    """The tiny CLIP that is trained on the training rooms' colour images and captions."""
    image_tokens: bool = False
    """Keep the teacher's patch tokens, for dense distillation."""
    pretrain: PretrainJob = field(default_factory=PretrainJob)
    """Both stages. Data, teacher and output are set by the demo."""
    evaluate: EvaluateJob = field(default_factory=EvaluateJob)
    """Retrieval and probe on the held-out rooms. Run, data and teacher are set by the demo."""


@dataclass
class TrialEvaluation:
    """What every trial is measured by at its checkpoints, beside its training metrics."""

    data: str = MISSING
    """Folder or URI of a held-out data set, embedded by the job's teacher."""
    retrieval: RetrievalConfig = field(default_factory=RetrievalConfig)
    """Zero-shot scene retrieval."""
    probe: ProbeConfig = field(default_factory=ProbeConfig)
    """Linear probe of the classes in view."""
    batch_size: int = 16
    """Scenes that pass through the encoder at once."""


@dataclass
class SweepJob(PretrainJob):
    """`poma sweep`: many trials of one pretraining job."""

    kind: str = "sweep"
    """Which command this file is for."""
    evaluation: TrialEvaluation | None = None
    """Measures for sweep.metric; null if a training metric will do."""
    sweep: SweepConfig = field(default_factory=SweepConfig)
    """What is varied, how it is judged, and how much of it."""


SCHEMAS: dict[str, type] = {
    "ingest": IngestJob,
    "lift": LiftJob,
    "caption": CaptionJob,
    "embed": EmbedJob,
    "pretrain": PretrainJob,
    "evaluate": EvaluateJob,
    "export": ExportJob,
    "sweep": SweepJob,
    "demo": DemoJob,
}


def load(schema: type[T], path: Path, overrides: Sequence[str]) -> T:
    """Read a job file for one command.

    Raises:
        ConfigError: not a job of that kind, or what `plinth.config.load` refuses.
    """
    kind = kind_of(path)
    wanted = next(name for name, known in SCHEMAS.items() if known is schema)
    if kind != wanted:
        raise ConfigError(f"{path} is a job for `poma {kind}`.", f"Run `poma {kind} {path}`.")
    return config.load(schema, path, overrides)


def show(path: Path, overrides: Sequence[str], help_keys: bool) -> int:
    """Print the resolved job, or all its keys with their meaning."""
    schema = SCHEMAS[kind_of(path)]
    if not help_keys:
        print(config.to_yaml(config.load(schema, path, overrides)), end="")
        return 0
    for key in config.describe(schema):
        print(f"{key.name}: {key.type} = {_shown(key.default)}\n    {key.help}")
    return 0


def kind_of(path: Path) -> str:
    """Which command a job file is for.

    Raises:
        ConfigError: it does not say, or says what is none.
    """
    kind = config.read(path).get("kind")
    if kind not in SCHEMAS:
        raise ConfigError(f"{path}: kind is {kind!r}.", f"Say which job it is: one of {', '.join(SCHEMAS)}.")
    return str(kind)


def _shown(value: Any) -> str:
    return str(getattr(value, "name", value))
