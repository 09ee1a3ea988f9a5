"""The job file of a language model that is trained on conversations about scenes."""

from __future__ import annotations

from dataclasses import dataclass, field

from jobs.common.ray_config import RayConfig
from jobs.finetune.config import EncoderConfig
from jobs.pretrain.config import StageLength
from plinth.checkpoint.config import CheckpointConfig
from plinth.data.config import ShardOptions
from plinth.engine.config import OptimConfig, ZeroConfig
from plinth.errors import ConfigError
from plinth.launch.config import FitConfig
from plinth.locations import Location, ResultLocation
from plinth.observe.config import GuardConfig, LedgerConfig, MetricsConfig
from plinth.schema import MISSING
from plinth.storage import StorageOptions
from plinth.storage.options import LockConfig
from poma3d.llm.config import PROJECTOR, ChatConfig, LlmConfig, LlmSceneConfig
from poma3d.seen.config import NONE, VOXELS

SCENE_CAPTIONS, VIEW_CAPTIONS = "scene_captions", "view_captions"
CAPTIONS = (SCENE_CAPTIONS, VIEW_CAPTIONS)
ANNOTATED = ("scanqa", "sqa3d", "hypo3d", "msnn", "rooms")


@dataclass
class ConversationsConfig:
    """Conversations of one kind."""

    kind: str = MISSING
    """Of annotations: scanqa, sqa3d, hypo3d, msnn, rooms. Of the data sets of scenes: scene_captions,
    view_captions (each about its view alone)."""
    annotations: list[Location] = field(default_factory=list)
    """Files of the split, questions and annotations alike, in any order; of captions none."""
    scans: Location | None = None
    """sqa3d: folder with the text file and the mesh of each scan, by which poses come to our frame. Without
    it conversations have no pose, and are counted."""
    directions: int = 4
    """msnn: among how many directions the answers are, 4 or 8."""
    requests: list[str] = field(default_factory=lambda: ["Describe what you see."])
    """Of captions: what is asked; one is drawn per epoch."""
    weight: float = 1.0
    """Passes over them in an epoch; 0.5 takes half of them in one epoch and the other half in the next."""


@dataclass
class SeenConfig:
    """Scenes and what is said about them."""

    conversations: list[ConversationsConfig] = field(default_factory=list)
    """Those that are mixed, by weight."""
    features: list[Location] = field(default_factory=list)
    """Where the encoder is frozen: outputs of `poma features`, of one encoder, with patches=true for scene
    tokens that are made of patches."""
    scenes: list[Location] = field(default_factory=list)
    """Data sets of scenes: for an encoder that is trained, for voxels, for captions."""


@dataclass
class FinetuneLlmJob:
    """`poma finetune`: conversations about scenes -> a language model that answers from scene tokens."""

    kind: str = "finetune_llm"
    """Which command this file is for."""
    name: str = MISSING
    """Name of the run: its folder is output/name."""
    output: ResultLocation = MISSING
    """Folder or URI that holds runs."""
    seed: int = 0
    """Seed of the data order, of what is drawn, of dropout and of new weights."""
    llm: LlmConfig = field(default_factory=LlmConfig)
    """The language model, and what of it is trained."""
    scene: LlmSceneConfig = field(default_factory=LlmSceneConfig)
    """What it gets of a scene."""
    chat: ChatConfig = field(default_factory=ChatConfig)
    """The text around it."""
    encoder: EncoderConfig | None = None
    """An encoder that is trained, too; null where it is frozen and its features are read."""
    train: SeenConfig = field(default_factory=SeenConfig)
    """What is trained on."""
    training: StageLength = field(default_factory=StageLength)
    """Batches and length of the training; its data.sources stay empty: they are made of the conversations."""
    optim: OptimConfig = field(default_factory=OptimConfig)
    """Optimizer and learning rate schedule."""
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
    shards: ShardOptions = field(default_factory=lambda: ShardOptions(row_group_rows=64))
    """How the conversations are stored."""
    storage: StorageOptions = field(default_factory=StorageOptions)
    """How to reach annotations, features, scenes, runs and a model in storage."""
    ray: RayConfig = field(default_factory=RayConfig)
    """Where the workers run."""

    def validate(self) -> None:
        """What can be said without opening anything.

        Raises:
            ConfigError: naming the key.
        """
        try:
            for part in (self.llm, self.scene, self.chat):
                part.validate()
        except ValueError as error:
            raise ConfigError(f"{error}.") from None
        self.shards.validate()
        if self.encoder is not None:
            self.encoder.validate()
        if self.scene.tokens == NONE and (self.encoder is not None or self.llm.tune == PROJECTOR):
            what = "an encoder is to be trained" if self.encoder is not None else "llm.tune is projector"
            raise ConfigError(
                f"scene.tokens is none, and {what}: nothing would learn.", "Change one of them."
            )
        if self.training.data.sources:
            raise ConfigError(
                "training.data.sources names data sets, but they are made of the conversations.",
                "Leave it empty.",
            )
        validate_seen(self, self.train, "train")


def needs_scenes(job: FinetuneLlmJob, seen: SeenConfig) -> str:
    """Why data sets of scenes are read; empty where they are not."""
    if job.encoder is not None:
        return "the encoder is trained"
    if job.scene.tokens == VOXELS:
        return "scene.tokens is voxels"
    if any(each.kind in CAPTIONS for each in seen.conversations):
        return "captions are among the conversations"
    return ""


def validate_seen(job: FinetuneLlmJob, seen: SeenConfig, key: str) -> None:
    """What can be said of conversations and scenes without opening them.

    Args:
        key: of `seen` in the job.

    Raises:
        ConfigError: naming the key.
    """
    if not seen.conversations:
        raise ConfigError(f"{key}.conversations is empty.", "Name at least one kind.")
    for i, each in enumerate(seen.conversations):
        where = f"{key}.conversations[{i}]"
        if each.kind not in (*ANNOTATED, *CAPTIONS):
            raise ConfigError(
                f"{where}.kind is '{each.kind}'.", f"Use one of {', '.join((*ANNOTATED, *CAPTIONS))}."
            )
        if each.kind in CAPTIONS and (each.annotations or not each.requests):
            raise ConfigError(
                f"{where}: {each.kind} are read from the scenes and asked for by requests.",
                "Leave annotations empty, and give at least one request.",
            )
        if each.kind in ANNOTATED and not each.annotations:
            raise ConfigError(f"{where}.annotations is empty.", "Name at least one file.")
        if not each.weight > 0:
            raise ConfigError(f"{where}.weight is {each.weight}, expected above 0.")
    why = needs_scenes(job, seen)
    if why and not seen.scenes:
        raise ConfigError(f"{key}.scenes is empty, and {why}.", "Name the data sets of the scenes.")
    if not why and seen.scenes:
        raise ConfigError(f"{key}.scenes is given, and nothing reads it.", "Leave it out.")
    reads_features = job.encoder is None and job.scene.tokens != NONE
    if reads_features and not seen.features:
        raise ConfigError(f"{key}.features is empty.", "Name outputs of `poma features`, or give an encoder.")
    if not reads_features and seen.features:
        why = "the encoder is trained" if job.encoder is not None else "scene.tokens is none"
        raise ConfigError(f"{key}.features is given, and {why}.", "Leave it out.")
