"""The job file of `poma lift`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from jobs.common.ray_config import RayConfig
from jobs.lift.images.config import ImageSetConfig
from plinth import config, plugins
from plinth.counts import Count, CountOrZero
from plinth.data.config import ShardOptions
from plinth.errors import ConfigError
from plinth.locations import ModelLocation, ResultLocation
from plinth.schema import MISSING
from plinth.storage import StorageOptions
from plinth.storage.options import LockConfig
from poma3d.lift.config import ConventionConfig, FilterConfig
from poma3d.pretrained.config import TeacherConfig

WHERE_IT_RUNS = ("inputs", "output", "storage", "lock", "workers", "ray")
"""Keys that do not change what an image becomes: they may differ between builds of a data set."""


@dataclass
class LifterConfig:
    """What lifts, and on what."""

    KINDS = ("given", "depth_pro", "vggt")
    OWN_METHODS = ("lift",)

    kind: str = "given"
    """given (depth and camera come with the images), depth_pro (metric) or vggt (up to scale); or a lifter of
    your own as module:Class (`poma3d.lift.lifter.Lifter`)."""
    options: dict[str, Any] | None = None
    """Settings of a lifter of your own: the fields of its Config."""
    source: ModelLocation = ""
    """Weights: a folder with config.json and *.safetensors, a storage URI of one, or a hub id."""
    revision: str | None = None
    """Commit of a hub id, or the expected revision of a folder."""
    allow_tensors: list[str] = field(default_factory=list)
    """Patterns (* for anything) of tensors that may be missing in the weights, unexpected, or of another
    shape; any other such tensor is an error. What is missing is drawn at random, for all workers alike."""
    batch_size: Count = 16
    """Images that pass through the model at once; halved for good when memory runs out."""
    actors: Count = 1
    """Copies of the model that run at a time."""
    gpus_per_actor: float = 0.0
    """GPUs that a copy claims; 0 runs on CPUs."""
    cpus_per_actor: float = 1.0
    """CPUs that a copy claims."""

    @property
    def needs_model(self) -> bool:
        """Whether there is a model to be loaded."""
        return self.kind != "given"


@dataclass
class SingleShapeConfig:
    """The sizes that all samples of the data set share; they have one view each."""

    height: Count = 224
    """Rows of a point map."""
    width: Count = 224
    """Columns of a point map."""
    captions: CountOrZero = 5
    """Captions kept of an image, C; the rest is cut."""
    scene_captions: CountOrZero = 4
    """Room for scene captions, S: single images have none, but data sets of a mixture share their shape."""


@dataclass
class LiftJob:
    """`poma lift`: sets of captioned images -> a data set of single views, or more of it."""

    kind: str = "lift"
    """Which command this file is for."""
    inputs: list[ImageSetConfig] = field(default_factory=list)
    """Sets of images. What the data set has of them already is left alone; the rest is added."""
    output: ResultLocation = MISSING
    """Folder or URI of the data set."""
    source: str = "images"
    """Stored as the samples' source."""
    lifter: LifterConfig = field(default_factory=LifterConfig)
    """How depth and camera come about."""
    shape: SingleShapeConfig = field(default_factory=SingleShapeConfig)
    """Sizes of the samples."""
    decode_side_px: Count | None = None
    """Larger images are brought to this longer side as they are decoded; empty for what the lifter wants
    (depth_pro 1536, the others 768, which is plenty for maps of 224 pixels). It sets memory, since a shard's
    images travel together: 1.3 MB per image of 768 pixels, 5.3 MB at 1536."""
    convention: ConventionConfig = field(default_factory=ConventionConfig)
    """Axes, scale and confidence."""
    gates: FilterConfig = field(default_factory=FilterConfig)
    """What is rejected."""
    teacher: TeacherConfig | None = None
    """Whose embeddings go into the shards; training refuses a data set without them."""
    images_per_shard: Count = 256
    """Images that are read, lifted and committed together: what a kill costs at most."""
    shards: ShardOptions = field(default_factory=ShardOptions)
    """How a shard is written."""
    storage: StorageOptions = field(default_factory=StorageOptions)
    """How to reach inputs, output, and weights in storage."""
    lock: LockConfig = field(default_factory=LockConfig)
    """How the job makes sure that no other job adds to the data set."""
    workers: CountOrZero = 2
    """CPU tasks of each kind that run at a time; 0 does everything here, without Ray."""
    ray: RayConfig = field(default_factory=RayConfig)
    """Where the tasks run."""

    def validate(self) -> None:
        """Refuse values that cannot be.

        Raises:
            ConfigError: naming the field.
        """
        self.shards.validate()
        self.lock.validate()
        try:
            self.gates.validate()
            self.convention.validate()
        except ValueError as error:
            raise ConfigError(f"{error}.") from None
        if not self.inputs:
            raise ConfigError("There is no input.", "List at least one set of images under inputs.")
        if self.images_per_shard < 1:
            raise ConfigError(f"images_per_shard is {self.images_per_shard}, expected 1 or more.")
        if self.decode_side_px is not None and self.decode_side_px < max(self.shape.height, self.shape.width):
            raise ConfigError(
                f"decode_side_px is {self.decode_side_px}, less than a side of the samples' grid.",
                "Decode images at least as large as they are stored.",
            )
        if self.lifter.batch_size < 1 or self.lifter.actors < 1:
            raise ConfigError("lifter.batch_size and lifter.actors must be 1 or more.")
        if self.teacher is not None and not self.convention.colour:
            raise ConfigError(
                "convention.colour is off, but the teacher embeds the colour pictures.",
                "Leave it on, or leave the teacher out.",
            )

    def recipe(self) -> dict[str, Any]:
        """What decides what an image becomes; images of one data set share it."""
        resolved = config.to_dict(self)
        kept = {k: v for k, v in resolved.items() if k not in WHERE_IT_RUNS}
        if kept["gates"]["require_caption"]:  # data sets from before this gate do not say
            del kept["gates"]["require_caption"]
        kept["lifter"] = {k: resolved["lifter"][k] for k in ("kind", "revision")}
        if self.lifter.allow_tensors:
            kept["lifter"]["allow_tensors"] = self.lifter.allow_tensors
        kept["lifter"] |= plugins.identity(self.lifter, "lifter")
        return kept
