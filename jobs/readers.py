"""From the config of a source to its reader."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum

from plinth.errors import ConfigError
from poma3d.scenes.frame import Reader
from poma3d.scenes.rooms import RoomsConfig, RoomsReader
from poma3d.scenes.scannet import ScanNetConfig, ScanNetReader
from poma3d.scenes.seven_scenes import SevenScenesConfig, SevenScenesReader


class SourceKind(Enum):
    """Layouts that can be read."""

    rooms = "rooms"
    seven_scenes = "seven_scenes"
    scannet = "scannet"


@dataclass
class ReaderConfig:
    """One source; only the section of its kind is used."""

    kind: SourceKind = SourceKind.rooms
    """rooms (procedural), seven_scenes or scannet."""
    rooms: RoomsConfig = field(default_factory=RoomsConfig)
    """Procedural rooms."""
    seven_scenes: SevenScenesConfig = field(default_factory=SevenScenesConfig)
    """Scans in the layout of 7-Scenes."""
    scannet: ScanNetConfig = field(default_factory=ScanNetConfig)
    """Scans in ScanNet's exported layout."""


def make_reader(cfg: ReaderConfig) -> Reader:
    """The reader of a source.

    Raises:
        ConfigError: its folder is missing, or a value cannot be.
    """
    try:
        if cfg.kind is SourceKind.rooms:
            return RoomsReader(cfg.rooms)
        if cfg.kind is SourceKind.seven_scenes:
            return SevenScenesReader(cfg.seven_scenes)
        return ScanNetReader(cfg.scannet)
    except ValueError as error:
        raise ConfigError(f"reader.{cfg.kind.name}: {error}") from None
