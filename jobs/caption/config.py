"""The job file of `poma caption`."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from jobs.common.ray_config import RayConfig
from plinth import config, plugins
from plinth.counts import CountOrZero
from plinth.data.config import ShardOptions
from plinth.errors import ConfigError
from plinth.locations import Location, ResultLocation
from plinth.schema import MISSING
from plinth.storage import StorageOptions
from plinth.storage.options import LockConfig
from poma3d.pretrained.config import CaptionerConfig, TeacherConfig

WHERE_IT_RUNS = (
    "kind", "data", "output", "annotations", "teacher", "storage", "lock", "workers", "gpus_per_worker",
    "cpus_per_worker", "ray",
)  # fmt: skip
"""Keys that do not change which captions a view gets; annotations count by their content, the
teacher by its weights."""


class Existing(Enum):
    """What happens to captions that are there."""

    keep = "keep"
    compare = "compare"
    replace = "replace"


@dataclass
class CaptionJob:
    """`poma caption`: a data set that keeps its colour -> the same with captions, embedded."""

    kind: str = "caption"
    """Which command this file is for."""
    data: Location = MISSING
    """Folder or URI of the data set; with #3 at its end, its version 3. It stays as it is."""
    output: ResultLocation = MISSING
    """Folder or URI of the data set with captions. The same command again resumes, and adds new shards."""
    captioner: CaptionerConfig | None = None
    """The vision-language model; without one only the annotations are taken over."""
    teacher: TeacherConfig = field(default_factory=TeacherConfig)
    """Whose cosine between picture and caption decides which are kept; its embeddings are written too."""
    captions: int = 5
    """Captions kept of a view, C: the best of the model's."""
    scene_captions: int = 4
    """Captions kept of a scene, S."""
    existing: Existing = Existing.keep
    """keep: views and scenes that have captions stay as they are. compare: theirs and the model's, the best
    of both. replace: the model's, or the annotations', in their place."""
    annotations: Location | None = None
    """File or URI of scene captions by scene id, as SceneVerse's scene_cap.json."""
    summarise: bool = True
    """Scenes of several views without annotation get a summary of their views' captions by the model."""
    shards: ShardOptions = field(default_factory=ShardOptions)
    """How a shard is written."""
    storage: StorageOptions = field(default_factory=StorageOptions)
    """How to reach both data sets, the annotations, and models in storage."""
    lock: LockConfig = field(default_factory=LockConfig)
    """How the job makes sure that no other job writes the output."""
    workers: CountOrZero = 1
    """Copies of both models that run at a time; 0 does everything here, without Ray."""
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
        if self.captioner is None and self.annotations is None:
            raise ConfigError(
                "There is neither a captioner nor a file of annotations.", "Give captioner.source, or both."
            )
        try:
            if self.captioner is not None:
                self.captioner.validate()
        except ValueError as error:
            raise ConfigError(f"{error}.") from None
        for name in ("captions", "scene_captions"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)}, expected 1 or more.")
        if self.workers < 0:
            raise ConfigError(f"workers is {self.workers}, expected 0 or more.")

    def recipe(self) -> dict[str, Any]:
        """What decides the captions of a sample."""
        kept = {k: v for k, v in config.to_dict(self).items() if k not in WHERE_IT_RUNS}
        if self.captioner is not None:
            left_out = ["kind", "options", "source", "batch_size"]
            left_out += [] if self.captioner.allow_tensors else ["allow_tensors"]
            kept["captioner"] = {k: v for k, v in kept["captioner"].items() if k not in left_out}
            kept["captioner"] |= plugins.identity(self.captioner, "captioner")
        return kept
