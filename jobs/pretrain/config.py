"""The job file of `poma pretrain`, composed from the configs of the modules that it joins."""

from __future__ import annotations

from dataclasses import dataclass, field

from jobs.common.ray_config import RayConfig
from jobs.evaluate.config import EncoderWeights, MeasureKind
from jobs.submit.config import KubernetesConfig
from plinth.checkpoint.config import CheckpointConfig
from plinth.counts import Count, CountOrZero
from plinth.data.config import DataConfig
from plinth.engine.config import OptimConfig, ZeroConfig
from plinth.launch.config import BesideConfig, FitConfig
from plinth.locations import Location, ResultLocation
from plinth.observe.config import GuardConfig, LedgerConfig, MetricsConfig
from plinth.schema import MISSING
from plinth.storage import StorageOptions
from plinth.storage.options import LockConfig
from poma3d.evaluate.config import ProbeConfig, RetrievalConfig
from poma3d.network.config import LossConfig, ModelConfig
from poma3d.pretrained.config import TeacherConfig


@dataclass
class StageLength:
    """What a stage reads, in which batches, how long and how fast."""

    data: DataConfig = field(default_factory=DataConfig)
    """What is read, and in which order."""
    global_batch_size: Count = 48
    """Samples of a step over all workers; they are each other's negatives."""
    micro_batch_size: Count = 6
    """Samples that pass through the model at once, on any number of workers. It sets memory; the loss and its
    gradient do not depend on it (dropout is drawn per micro-batch)."""
    epochs: float | None = None
    """Length in passes over the data; or give steps or samples."""
    steps: Count | None = None
    """Length in optimizer steps; or give epochs or samples."""
    samples: Count | None = None
    """Length in samples, whatever the batch size; or give epochs or steps."""
    lr: float | None = None
    """Peak learning rate of this stage, in place of optim.lr."""
    warmup_steps: CountOrZero | None = None
    """Warm-up of this stage, in place of optim.warmup_steps."""
    warmup_samples: CountOrZero | None = None
    """The same in samples, whatever the batch size; in place of warmup_steps."""


@dataclass
class StageConfig(StageLength):
    """One of the two pretraining stages."""

    loss: LossConfig = field(default_factory=LossConfig)
    """Weights of the loss terms."""


@dataclass
class EvaluateBesideConfig(BesideConfig):
    """Checkpoints measured on held-out scenes while the training goes on."""

    data: Location = MISSING
    """Folder or URI of a held-out data set, embedded by the job's teacher."""
    max_samples: Count | None = None
    """Only the first so many of its scenes; all when empty."""
    kinds: list[MeasureKind] = field(default_factory=lambda: list(MeasureKind))
    """What is measured: retrieval, and probe where the data set names classes."""
    weights: EncoderWeights = EncoderWeights.target
    """Of the main stage: target, the moving average, or student, the encoder that it follows."""
    retrieval: RetrievalConfig = field(default_factory=RetrievalConfig)
    """Zero-shot scene retrieval."""
    probe: ProbeConfig = field(default_factory=ProbeConfig)
    """Linear probe of the classes in view."""
    batch_size: Count = 16
    """Scenes that pass through the encoder at once."""


@dataclass
class PretrainJob:
    """`poma pretrain`: warm-up, then the main stage from the warm-up's weights."""

    kind: str = "pretrain"
    """Which command this file is for."""
    name: str = MISSING
    """Name of the run: its folder is output/name."""
    output: ResultLocation = MISSING
    """Folder or URI that holds runs."""
    seed: int = 0
    """Seed of the data order, masks, caption draws, augmentation, dropout and new weights."""
    teacher: TeacherConfig = field(default_factory=TeacherConfig)
    """Whose image tower the encoder starts from, and whose embeddings the data must hold."""
    model: ModelConfig = field(default_factory=ModelConfig)
    """The model, the same in both stages."""
    start: Location | None = None
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
    evaluate_beside: EvaluateBesideConfig | None = None
    """Checkpoints evaluated by tasks of their own beside the training; null evaluates none."""
    storage: StorageOptions = field(default_factory=StorageOptions)
    """How to reach data, runs and a teacher in storage."""
    ray: RayConfig = field(default_factory=RayConfig)
    """Where the workers run."""
    kubernetes: KubernetesConfig = field(default_factory=KubernetesConfig)
    """What `poma submit --render` writes beside the run's own containers."""


def stage_config(job: PretrainJob, name: str) -> StageConfig | None:
    """The stage's section of the job."""
    return {"warmup": job.warmup, "main": job.main}[name]
