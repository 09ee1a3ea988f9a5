"""The job file of `poma features`."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum

from jobs.common.ray_config import RayConfig
from plinth.counts import Count, CountOrZero
from plinth.data.config import ShardOptions
from plinth.errors import ConfigError
from plinth.locations import Location, ResultLocation
from plinth.schema import MISSING
from plinth.storage import StorageOptions
from plinth.storage.options import LockConfig
from poma3d.pretrained.config import TeacherConfig


class Weights(Enum):
    """Whose features."""

    trained = "trained"
    untrained = "untrained"
    """What the run's encoder was before training: the teacher's image tower on point maps. A control."""


@dataclass
class FeaturesJob:
    """`poma features`: a data set of scenes -> what a frozen encoder says of their views."""

    kind: str = "features"
    """Which command this file is for."""
    encoder: Location = MISSING
    """Folder of the run (output/name), or of an exported encoder."""
    weights: Weights = Weights.trained
    """trained: of the encoder's last checkpoint. untrained: what a run's encoder was before, as a control."""
    stage: str | None = None
    """Of a run: warmup or main; the last that has a checkpoint when empty."""
    step: Count | None = None
    """Of a run: which checkpoint; the last when empty."""
    teacher: TeacherConfig | None = None
    """Where the run's teacher lies now, if not where the run found it."""
    data: Location = MISSING
    """Folder or URI of the data set of scenes; with #3 at its end, its version 3."""
    output: ResultLocation = MISSING
    """Folder or URI of the features. The same command again resumes, and adds scenes that came since."""
    patches: bool = False
    """Keep the patch tokens too: 2 x patches x width bytes a view, where a feature is 2 x width."""
    batch_size: Count = 8
    """Scenes that pass through the encoder at once."""
    shards: ShardOptions = field(default_factory=lambda: ShardOptions(row_group_rows=16))
    """How a shard is written."""
    storage: StorageOptions = field(default_factory=StorageOptions)
    """How to reach encoder, data, output, and a teacher in storage."""
    lock: LockConfig = field(default_factory=LockConfig)
    """How the job makes sure that no other job writes the output."""
    workers: CountOrZero = 1
    """Copies of the encoder that run at a time; 0 does everything here, without Ray."""
    gpus_per_worker: float = 0.0
    """GPUs that a copy claims; 0 runs on CPUs."""
    cpus_per_worker: float = 1.0
    """CPUs that a copy claims."""
    ray: RayConfig = field(default_factory=RayConfig)
    """Where the copies run."""

    def validate(self) -> None:
        """Refuse values that cannot be.

        Raises:
            ConfigError: naming the field.
        """
        self.shards.validate()
        self.lock.validate()
        if self.weights is Weights.untrained and (self.stage or self.step):
            raise ConfigError(
                "weights is untrained, and stage or step name a checkpoint.", "Leave out one of the two."
            )
