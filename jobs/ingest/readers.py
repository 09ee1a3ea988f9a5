"""From the config of a source to its reader."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum

from plinth.errors import ConfigError
from poma3d.scenes.arkitscenes import ArkitScenesConfig, ArkitScenesReader
from poma3d.scenes.frame import Reader
from poma3d.scenes.scannet import ScanNetConfig, ScanNetReader
from poma3d.scenes.scannet_sens import ScanNetSensConfig, ScanNetSensReader
from poma3d.scenes.scene_point import ScenePointConfig, ScenePointReader
from poma3d.scenes.seven_scenes import SevenScenesConfig, SevenScenesReader
from poma3d.scenes.three_rscan import ThreeRScanConfig, ThreeRScanReader
from poma3d.synthetic.rooms import RoomsConfig, RoomsReader


class SourceKind(Enum):
    """Layouts that can be read."""

    rooms = "rooms"
    seven_scenes = "seven_scenes"
    scannet = "scannet"
    scannet_sens = "scannet_sens"
    three_rscan = "three_rscan"
    arkitscenes = "arkitscenes"
    scene_point = "scene_point"


@dataclass
class ReaderConfig:
    """One source; only the section of its kind is used."""

    kind: SourceKind = SourceKind.rooms
    """rooms (procedural), seven_scenes, scannet, scannet_sens, three_rscan, arkitscenes or scene_point."""
    rooms: RoomsConfig = field(default_factory=RoomsConfig)
    """Procedural rooms."""
    seven_scenes: SevenScenesConfig = field(default_factory=SevenScenesConfig)
    """Scans in the layout of 7-Scenes."""
    scannet: ScanNetConfig = field(default_factory=ScanNetConfig)
    """Scans in ScanNet's exported layout."""
    scannet_sens: ScanNetSensConfig = field(default_factory=ScanNetSensConfig)
    """ScanNet's .sens recordings, as downloaded."""
    three_rscan: ThreeRScanConfig = field(default_factory=ThreeRScanConfig)
    """3RScan, its sequences unpacked."""
    arkitscenes: ArkitScenesConfig = field(default_factory=ArkitScenesConfig)
    """ARKitScenes, raw or 3DOD."""
    scene_point: ScenePointConfig = field(default_factory=ScenePointConfig)
    """ScenePoint's published point maps."""

    @property
    def stores_points(self) -> bool:
        """Whether the source has no cameras, so that its points are stored as they are."""
        return self.kind is SourceKind.scene_point


def make_reader(cfg: ReaderConfig) -> Reader:
    """The reader of a source.

    Raises:
        ConfigError: its folder is missing, or a value cannot be.
    """
    readers: dict[SourceKind, Callable[[], Reader]] = {
        SourceKind.rooms: lambda: RoomsReader(cfg.rooms),
        SourceKind.seven_scenes: lambda: SevenScenesReader(cfg.seven_scenes),
        SourceKind.scannet: lambda: ScanNetReader(cfg.scannet),
        SourceKind.scannet_sens: lambda: ScanNetSensReader(cfg.scannet_sens),
        SourceKind.three_rscan: lambda: ThreeRScanReader(cfg.three_rscan),
        SourceKind.arkitscenes: lambda: ArkitScenesReader(cfg.arkitscenes),
        SourceKind.scene_point: lambda: ScenePointReader(cfg.scene_point),
    }
    try:
        return readers[cfg.kind]()
    except ValueError as error:
        raise ConfigError(f"reader.{cfg.kind.name}: {error}") from None
