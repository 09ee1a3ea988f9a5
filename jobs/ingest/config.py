"""The job file of `poma ingest`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from jobs.common.ray_config import RayConfig
from plinth.counts import Count, CountOrZero
from plinth.data.config import ShardOptions
from plinth.locations import ResultLocation
from plinth.schema import MISSING
from plinth.storage import StorageOptions
from poma3d.scenes.config import (
    ArkitScenesConfig,
    BundleFusionConfig,
    MatterportConfig,
    NerfstudioConfig,
    Open3dConfig,
    ReplicaConfig,
    ScanNetConfig,
    ScenePointConfig,
    ScenezooConfig,
    SevenScenesConfig,
    ThreeRScanConfig,
    TumConfig,
    ViewConfig,
)
from poma3d.synthetic.config import RoomsConfig

READERS = {
    "rooms": "poma3d.synthetic.rooms:RoomsReader",
    "seven_scenes": "poma3d.scenes.layouts.seven_scenes:SevenScenesReader",
    "scannet": "poma3d.scenes.layouts.scannet:ScanNetReader",
    "scannet_sens": "poma3d.scenes.layouts.scannet_sens:ScanNetSensReader",
    "three_rscan": "poma3d.scenes.layouts.three_rscan:ThreeRScanReader",
    "arkitscenes": "poma3d.scenes.layouts.arkitscenes:ArkitScenesReader",
    "scene_point": "poma3d.scenes.layouts.scene_point:ScenePointReader",
    "nerfstudio": "poma3d.scenes.layouts.nerfstudio:NerfstudioReader",
    "tum": "poma3d.scenes.layouts.tum:TumReader",
    "open3d": "poma3d.scenes.layouts.open3d:Open3dReader",
    "replica": "poma3d.scenes.layouts.replica:ReplicaReader",
    "matterport": "poma3d.scenes.layouts.matterport:MatterportReader",
    "bundle_fusion": "poma3d.scenes.layouts.bundle_fusion:BundleFusionReader",
    "scenezoo": "poma3d.scenes.layouts.scenezoo:ScenezooReader",
}
"""Built-in kinds of source; the settings of each are the section of its name in `ReaderConfig`."""


@dataclass
class ReaderConfig:
    """One source; only the section of its kind is used."""

    KINDS = tuple(READERS)
    OWN_METHODS = ("scene_ids", "read")

    kind: str = "rooms"
    """rooms (procedural), seven_scenes, scannet, scannet_sens, three_rscan, arkitscenes, scene_point,
    nerfstudio, tum, open3d, replica, matterport, bundle_fusion or scenezoo (ScanNet++, MultiScan,
    Structured3D); or a reader of your own as module:Class (`poma3d.scenes.frame.Reader`)."""
    options: dict[str, Any] | None = None
    """Settings of a reader of your own: the fields of its Config."""
    rooms: RoomsConfig = field(default_factory=RoomsConfig)
    """Procedural rooms."""
    seven_scenes: SevenScenesConfig = field(default_factory=SevenScenesConfig)
    """Scans in the layout of 7-Scenes."""
    scannet: ScanNetConfig = field(default_factory=ScanNetConfig)
    """Scans in ScanNet's exported layout."""
    scannet_sens: ScanNetConfig = field(default_factory=ScanNetConfig)
    """ScanNet's .sens recordings, as downloaded."""
    three_rscan: ThreeRScanConfig = field(default_factory=ThreeRScanConfig)
    """3RScan, its sequences unpacked."""
    arkitscenes: ArkitScenesConfig = field(default_factory=ArkitScenesConfig)
    """ARKitScenes, raw or 3DOD."""
    scene_point: ScenePointConfig = field(default_factory=ScenePointConfig)
    """ScenePoint's published point maps."""
    nerfstudio: NerfstudioConfig = field(default_factory=NerfstudioConfig)
    """Captures with a transforms.json and depth."""
    tum: TumConfig = field(default_factory=TumConfig)
    """TUM RGB-D."""
    open3d: Open3dConfig = field(default_factory=Open3dConfig)
    """Recordings of Open3D and Redwood."""
    replica: ReplicaConfig = field(default_factory=ReplicaConfig)
    """Replica as rendered for SLAM."""
    matterport: MatterportConfig = field(default_factory=MatterportConfig)
    """Matterport3D, its undistorted pictures."""
    bundle_fusion: BundleFusionConfig = field(default_factory=BundleFusionConfig)
    """BundleFusion and 12-Scenes."""
    scenezoo: ScenezooConfig = field(default_factory=ScenezooConfig)
    """ScanNet++, MultiScan and Structured3D, through the package scenezoo."""


@dataclass
class ShapeConfig:
    """The sizes that all samples of a data set share."""

    views: Count = 32
    """Views of a sample, V; 1 for single images."""
    height: Count = 224
    """Rows of a point map."""
    width: Count = 224
    """Columns of a point map."""
    captions: CountOrZero = 5
    """Captions kept of a view, C; the rest is cut."""
    scene_captions: CountOrZero = 4
    """Captions kept of a scene, S; the rest is cut."""


@dataclass
class HeldOutConfig:
    """Scans that are kept apart, to evaluate on."""

    output: ResultLocation | None = None
    """Folder or URI of the data set that they become."""
    every: CountOrZero = 0
    """Every n-th scan of the source is held out, beginning with the n-th; 0 holds out none."""


@dataclass
class IngestJob:
    """`poma ingest`: a source of scenes -> a data set."""

    kind: str = "ingest"
    """Which command this file is for."""
    output: ResultLocation = MISSING
    """Folder or URI of the data set."""
    held_out: HeldOutConfig = field(default_factory=HeldOutConfig)
    """Scans that are kept apart, to evaluate on."""
    overwrite: bool = False
    """Replace a data set that another job built there."""
    reader: ReaderConfig = field(default_factory=ReaderConfig)
    """Where the scenes come from."""
    shape: ShapeConfig = field(default_factory=ShapeConfig)
    """Sizes of the samples."""
    views: ViewConfig = field(default_factory=ViewConfig)
    """How frames become samples."""
    scenes_per_shard: Count = 64
    """Scenes that a task reads into one shard."""
    shards: ShardOptions = field(default_factory=ShardOptions)
    """How a shard is written."""
    storage: StorageOptions = field(default_factory=StorageOptions)
    """How to reach the output."""
    workers: CountOrZero | None = None
    """Tasks that run at a time; 0 reads here, without Ray. Empty for 2, and for 0 where there is one shard to
    write and no cluster to join."""
    ray: RayConfig = field(default_factory=RayConfig)
    """Where the tasks run."""
