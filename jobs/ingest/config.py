"""The job file of `poma ingest`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TypeVar

from jobs.common.cluster import RayConfig
from jobs.ingest.readers import ReaderConfig
from plinth.config import MISSING
from plinth.data.config import ShardOptions
from plinth.storage import StorageOptions
from poma3d.scenes.config import ViewConfig

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
