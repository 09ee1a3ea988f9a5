"""The job file of `poma finetune`, composed from the configs of the modules that it joins."""

from __future__ import annotations

from dataclasses import dataclass, field

from jobs.common.ray_config import RayConfig
from jobs.pretrain.config import StageLength
from plinth.checkpoint.config import CheckpointConfig
from plinth.counts import Count
from plinth.data.config import ShardOptions
from plinth.engine.config import OptimConfig, ZeroConfig
from plinth.errors import ConfigError
from plinth.launch.config import FitConfig
from plinth.locations import Location, ResultLocation
from plinth.observe.config import GuardConfig, LedgerConfig, MetricsConfig
from plinth.schema import MISSING
from plinth.storage import StorageOptions
from plinth.storage.options import LockConfig
from poma3d.evaluate.config import BootstrapConfig
from poma3d.heads.config import QUESTION, HeadConfig, HeadSceneConfig, ProtocolConfig, TextConfig
from poma3d.pretrained.config import TeacherConfig
from poma3d.seen.config import VOXELS

TRAIN, VAL, TEST = "train", "val", "test"
SCORED = (VAL, TEST)


@dataclass
class SplitConfig:
    """One split: its annotations, and the features of its scenes."""

    annotations: list[Location] = field(default_factory=list)
    """Files of the split, questions and annotations alike, in any order."""
    features: list[Location] = field(default_factory=list)
    """Outputs of `poma features`, of one encoder, with patches=true for scene.tokens=voxels; scenes that no
    question names are no harm."""
    scenes: list[Location] = field(default_factory=list)
    """Data sets of scenes: where the encoder is trained, in place of features; for scene.tokens=voxels, also
    beside them: those that they were made of, with every scene that has features."""


@dataclass
class QaConfig(ProtocolConfig):
    """Which task, and the protocol by name."""

    task: str = MISSING
    """Kind of the annotations: scanqa, sqa3d, hypo3d, msnn, rooms."""
    directions: int = 4
    """msnn: among how many directions the answers are, 4 or 8; they are the vocabulary."""
    vocabulary: Location | None = None
    """File with the list of answers: a JSON list, or the answer_dict.json of SQA3D or Hypo3D (whose numbers
    are not used: classes are in alphabetical order, as in the authors' line). Else all answers of the
    training annotations, sorted."""
    scans: Location | None = None
    """sqa3d with scene.tokens=voxels: folder with the text file and the mesh of each scan, by which poses
    come to our frame. Without it questions have no pose, and are counted."""
    select_on: str = VAL
    """The split on which the best checkpoint is chosen: val or test. The public code chooses on the split
    that it reports; it is printed beside every figure."""


@dataclass
class EncoderConfig:
    """An encoder that is trained with its head, on the point maps of `scenes`."""

    source: Location = MISSING
    """Folder of a run (output/name) or of an exported encoder: the weights that it starts from."""
    teacher: TeacherConfig | None = None
    """Where the run's teacher lies now, if not where the run found it."""
    lr: float | None = None
    """Peak learning rate of the encoder, in place of that of the head or the language model."""
    gradient_checkpointing: bool = False
    """Compute activations again in the backward pass: less memory, a third more time."""
    cached_scenes: Count = 64
    """Scenes that a worker keeps decoded in memory. Batches are read ahead, so keep at least the scenes of
    `data.prefetch_batches` + 2 of this worker's batches; with fewer, scenes are read twice."""

    def validate(self) -> None:
        """Refuse values that cannot be.

        Raises:
            ConfigError: naming the field.
        """
        if self.lr is not None and not self.lr > 0:
            raise ConfigError(f"encoder.lr is {self.lr}, expected above 0.", "Without encoder it is frozen.")


@dataclass
class EvaluateConfig:
    """How the kept checkpoints are scored after training."""

    batch_size: Count = 64
    """Questions that pass through the head at once."""
    answers: Count = 10
    """How many answers of each question the prediction files hold, best first."""
    bootstrap: BootstrapConfig = field(default_factory=BootstrapConfig)
    """Intervals of the figures, over scenes."""


@dataclass
class FinetuneJob:
    """`poma finetune`: questions about scenes whose features are there -> a head."""

    kind: str = "finetune"
    """Which command this file is for."""
    name: str = MISSING
    """Name of the run: its folder is output/name."""
    output: ResultLocation = MISSING
    """Folder or URI that holds runs."""
    seed: int = 0
    """Seed of the data order, situation draws, dropout and new weights."""
    qa: QaConfig = field(default_factory=QaConfig)
    """Which task, and the protocol by name."""
    train: SplitConfig = field(default_factory=SplitConfig)
    """What is trained on."""
    val: SplitConfig | None = None
    """A split that is scored."""
    test: SplitConfig | None = None
    """Another one."""
    shuffle_scenes: bool = False
    """A control: every question is given another scene's views, in training and in evaluation alike."""
    encoder: EncoderConfig | None = None
    """An encoder that is trained with the head; null where it is frozen and its features are read."""
    scene: HeadSceneConfig = field(default_factory=HeadSceneConfig)
    """What the head gets of a scene."""
    text: TextConfig = field(default_factory=TextConfig)
    """The text tower."""
    head: HeadConfig = field(default_factory=HeadConfig)
    """Sizes of the head."""
    heads: StageLength = field(default_factory=StageLength)
    """Batches and length of the training; its data.sources stay empty: they are made of the questions."""
    evaluate: EvaluateConfig = field(default_factory=EvaluateConfig)
    """How the kept checkpoints are scored after training."""
    optim: OptimConfig = field(default_factory=OptimConfig)
    """Optimizer and learning rate schedule."""
    zero: ZeroConfig = field(default_factory=ZeroConfig)
    """What is sharded over the workers, and in which precision."""
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)
    """When checkpoints are written, and how many are kept: the best is chosen among those that are."""
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
    shards: ShardOptions = field(default_factory=lambda: ShardOptions(row_group_rows=16))
    """How the questions are stored: few rows in a group, so that many groups mix."""
    storage: StorageOptions = field(default_factory=StorageOptions)
    """How to reach annotations, features, runs and a text tower in storage."""
    ray: RayConfig = field(default_factory=RayConfig)
    """Where the workers run."""

    @property
    def splits(self) -> dict[str, SplitConfig]:
        """Those that the job has, by name."""
        found = {TRAIN: self.train, VAL: self.val, TEST: self.test}
        return {name: split for name, split in found.items() if split is not None}

    def validate(self) -> None:
        """What can be said without opening anything.

        Raises:
            ConfigError: naming the key.
        """
        try:
            for part in (self.qa, self.scene, self.text, self.head):
                part.validate()
        except ValueError as error:
            raise ConfigError(f"{error}.") from None
        self.shards.validate()
        if self.qa.select_on not in SCORED:
            raise ConfigError(f"qa.select_on is '{self.qa.select_on}'.", f"Use one of {', '.join(SCORED)}.")
        if self.qa.select_on not in self.splits:
            seen = "features" if self.encoder is None else "scenes"
            raise ConfigError(
                f"qa.select_on is {self.qa.select_on}, and the job has no such split.",
                f"Give {self.qa.select_on}.annotations and {self.qa.select_on}.{seen}.",
            )
        self._validate_seen()
        if self.heads.data.sources:
            raise ConfigError(
                "heads.data.sources names data sets, but a head's are made of the questions.",
                "Leave it empty.",
            )

    def _validate_seen(self) -> None:
        """A trained encoder sees scenes, a frozen one has features; cells have their places from scenes."""
        is_placed = self.scene.tokens == VOXELS
        wanted = {"features": self.encoder is None, "scenes": self.encoder is not None or is_placed}
        for name, split in self.splits.items():
            for key, is_wanted in wanted.items():
                if getattr(split, key) and not is_wanted:
                    other = "scenes" if key == "features" else "features"
                    why = "with" if self.encoder is not None else "without"
                    raise ConfigError(
                        f"{name}.{key} is given {why} an encoder that is trained.",
                        f"Give {name}.{other} in its place.",
                    )
            for key in ("annotations", *(key for key, is_wanted in wanted.items() if is_wanted)):
                if not getattr(split, key):
                    raise ConfigError(f"{name}.{key} is empty.", "Name at least one.")
        if is_placed and self.head.inputs == QUESTION:
            raise ConfigError(
                "head.inputs is question, and scene.tokens is voxels, which nothing would look at.",
                "Leave the scene section out.",
            )
        if self.qa.scans is not None and not is_placed:
            raise ConfigError(
                "qa.scans is given, and without scene.tokens=voxels no pose is looked at.", "Leave it out."
            )
        if self.encoder is None:
            return
        self.encoder.validate()
        if self.head.inputs == QUESTION:
            raise ConfigError(
                "head.inputs is question, and an encoder is to be trained that nothing would look at.",
                "Leave the encoder section out.",
            )
