"""The job file of `poma embed`."""

from __future__ import annotations

from dataclasses import dataclass, field

from jobs.common.ray_config import RayConfig
from plinth.counts import CountOrZero
from plinth.data.config import ShardOptions
from plinth.locations import ResultLocation
from plinth.schema import MISSING
from plinth.storage import StorageOptions
from poma3d.pretrained.config import TeacherConfig


@dataclass
class EmbedJob:
    """`poma embed`: a data set -> the same with a teacher's embeddings."""

    kind: str = "embed"
    """Which command this file is for."""
    data: ResultLocation = MISSING
    """Folder or URI of the data set."""
    teacher: TeacherConfig = field(default_factory=TeacherConfig)
    """Whose embeddings."""
    image_tokens: bool = False
    """Keep the teacher's patch tokens too, for dense distillation: about 2 x patches x width bytes a view."""
    shards: ShardOptions = field(default_factory=ShardOptions)
    """How a shard is written."""
    storage: StorageOptions = field(default_factory=StorageOptions)
    """How to reach the data set, and a teacher in storage."""
    workers: CountOrZero | None = None
    """Tasks that run at a time, each with a copy of the teacher; 0 embeds here, without Ray. Empty for 2, and
    for 0 where there is one shard and no cluster to join."""
    gpus_per_worker: float = 0.0
    """GPUs that a task claims; 0 runs on CPUs."""
    ray: RayConfig = field(default_factory=RayConfig)
    """Where the tasks run."""
