"""Where scans lie, and how their frames become samples."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Any

from poma3d.counts import Count, CountOrZero
from poma3d.locations import Location

INTRINSICS_NUMBERS = 4


def refuse_intrinsics(intrinsics: Sequence[float] | None) -> None:
    """Refuse intrinsics that are given and not fx, fy, cx, cy.

    Raises:
        ValueError: naming them.
    """
    if intrinsics is not None and len(intrinsics) != INTRINSICS_NUMBERS:
        raise ValueError(f"intrinsics are {intrinsics}, expected [fx, fy, cx, cy]")


def refuse_camera(camera: str | None, intrinsics: Sequence[float] | None, known: Collection[str]) -> None:
    """Refuse a published camera that is not known, and one beside intrinsics.

    Args:
        known: names of the published cameras of a layout.

    Raises:
        ValueError: naming the field.
    """
    if camera is not None and camera not in known:
        raise ValueError(f"camera is {camera}, expected one of {', '.join(known)}")
    if camera is not None and intrinsics is not None:
        raise ValueError("camera and intrinsics are both given: give one of them")


def refuse_units(units_per_metre: float, usual: int) -> None:
    """Refuse a number of units of depth in a metre that cannot be.

    Raises:
        ValueError: naming the field and what is usual.
    """
    if not 0 < units_per_metre < math.inf:
        raise ValueError(f"units_per_metre is {units_per_metre}, expected a number such as {usual}")


@dataclass
class SevenScenesConfig:
    """Scans in the style of 7-Scenes."""

    root: Location = ""
    """A folder of one scan, or one with folders of scans at any depth below it."""
    up: list[float] | None = None
    """Up direction of the scans' world, as [0, -1, 0] for y down; estimated per scan when not given,
    with a warning where the estimate is not sure."""
    upright: bool = True
    """Turn the pictures upright, each by its own pose."""
    camera: str | None = None
    """Published depth camera of scans without camera-intrinsics.txt: 7-scenes for the official release."""
    intrinsics: list[float] | None = None
    """fx, fy, cx, cy of the depth camera in pixels; for scans without camera-intrinsics.txt."""
    colour_camera: list[float] | None = None
    """fx, fy, cx, cy of the colour camera in pixels of its pictures, which are brought to the depth's view;
    [525, 525, 320, 240] where not given and the depth camera is the 7-Scenes release's."""
    colour_offset_m: list[float] | None = None
    """Where the colour camera sits, seen from the depth camera: x to the right, y down, z ahead, in metres;
    [0.025, 0, 0], a Kinect's, where the depth camera is the 7-Scenes release's, else [0, 0, 0]."""
    registered: bool = False
    """Colour shows what depth shows, pixel by pixel, whatever the cameras are."""
    split: str | None = None
    """train or test: the sequences in the scenes' TrainSplit.txt or TestSplit.txt; all when not given."""


@dataclass
class ScanNetConfig:
    """ScanNet as exported on disk, or its .sens recordings."""

    root: Location = ""
    """The folder that holds the scans' folders."""
    scans: list[str] | None = None
    """Names of the scans to read, as in a split file; all when not given."""
    texts: Location | None = None
    """Folder with SCAN.txt or SCAN/SCAN.txt (axisAlignment) for scans that have none beside them, as in
    scannet_frames_25k; without, their poses stay unaligned and a warning says so."""


@dataclass
class ThreeRScanConfig:
    """3RScan as released."""

    root: Location = ""
    """The folder that holds the scans' folders."""
    scans: list[str] | None = None
    """Ids of the scans to read, as in a split file; all when not given."""
    up: list[float] = field(default_factory=lambda: [0.0, 0.0, 1.0])
    """Up direction of the scans' world."""
    upright: bool = True
    """Turn the pictures upright, each by its own pose."""


@dataclass
class ArkitScenesConfig:
    """ARKitScenes as released."""

    root: Location = ""
    """A folder with videos' folders at any depth below it, or one of those."""
    colour: str = "lowres_wide"
    """The folder in a video that holds colour; vga_wide where it was downloaded too."""
    upright: bool = True
    """Turn the pictures upright, each by its own pose."""


@dataclass
class ScenePointConfig:
    """ScenePoint as published."""

    root: Location = ""
    """Folder that holds the scenes' safetensors files, at any depth."""
    points: str = "point_map"
    """Tensor of the point maps."""
    colour: str = "color_images"
    """Tensor of the pictures; scenes without it have no colour."""
    view_captions_file: Location | None = None
    """JSONL file of view captions."""
    scene_captions_file: Location | None = None
    """JSON file of scene captions, such as SceneVerse's scene_cap.json."""
    up: list[float] = field(default_factory=lambda: [0.0, 0.0, 1.0])
    """Up direction of the scenes' world."""


@dataclass
class PosedConfig:
    """What the readers of `poma3d.scenes.posed` share."""

    root: Location = ""
    """A folder of one scan, or one with folders of scans at any depth below it."""
    scans: list[str] | None = None
    """Names of the scans to read, as their folders below the root; all when not given."""
    up: list[float] | None = None
    """Up direction of the scans' world, as [0, -1, 0] for y down; when not given what the layout says, or
    estimated per scan, with a warning where the estimate is not sure."""
    upright: bool = True
    """Turn the pictures upright, each by its own pose."""


@dataclass
class NerfstudioConfig(PosedConfig):
    """Captures with a transforms.json and depth maps."""

    depth_unit_m: float = 0.001
    """Metres per unit of depth, where the file has no integer_depth_scale."""


@dataclass
class TumConfig(PosedConfig):
    """TUM RGB-D."""

    camera: str | None = None
    """Published camera: freiburg1, freiburg2, freiburg3 or ros-default; by the folder's name when not
    given."""
    intrinsics: list[float] | None = None
    """fx, fy, cx, cy of the depth maps in pixels, for recordings of another camera."""
    units_per_metre: float = 5000.0
    """Units of depth."""


@dataclass
class Open3dConfig(PosedConfig):
    """Recordings of Open3D and Redwood."""

    camera: str | None = None
    """Known camera of recordings without a file of it: primesense."""
    intrinsics: list[float] | None = None
    """fx, fy, cx, cy of the depth maps in pixels; for recordings without a file of them."""
    units_per_metre: float = 1000.0
    """Units of depth."""


@dataclass
class ReplicaConfig(PosedConfig):
    """Replica as rendered for SLAM."""

    intrinsics: list[float] | None = None
    """fx, fy, cx, cy of the depth maps in pixels; for renders without cam_params.json."""


@dataclass
class MatterportConfig(PosedConfig):
    """Matterport3D, its undistorted pictures."""


@dataclass
class BundleFusionConfig(PosedConfig):
    """BundleFusion and 12-Scenes."""


@dataclass
class ScenezooConfig(PosedConfig):
    """Data sets that the package scenezoo reads."""

    dataset: str = "scannetppv2"
    """scenezoo's name of the data set: scannetppv2 (ScanNet++, its iPhone recordings), multiscan or
    structured3d; its root is the folder that scenezoo expects."""
    split: str | None = None
    """Official split of the data set; all scenes when not given."""
    options: dict[str, Any] | None = None
    """More arguments of scenezoo's get_frames, as {source: iphone_colmap}."""
    offline: bool = True
    """Let scenezoo download nothing, not even lists of splits."""


@dataclass
class ViewConfig:
    """How views are chosen and stored."""

    candidate_step: Count = 2
    """Every n-th frame is a candidate (fewer are skipped where a scene would not fill its views)."""
    voxel_m: float = 0.1
    """Edge of the voxels whose coverage is maximised, in metres."""
    coverage_stride: Count = 4
    """Every n-th row and column of a depth map counts for coverage."""
    captioned_first: bool = False
    """Take frames with captions before any without, where only some frames are captioned."""
    chunk_frames: CountOrZero = 0
    """Cut a long scan into sub-scenes of about this many consecutive frames, each one sample; 0: do not."""
    single_images: bool = False
    """Each candidate frame is a sample of its own (V = 1) in its camera's frame, without scene captions."""
    single_median_depth_m: float = 0.0
    """Scale single images to this median depth (2.5 suits depth known up to scale); 0 keeps metres."""
    min_valid_depth: float = 0.3
    """Frames with a smaller share of valid depth are rejected."""
    max_off_centre: float = 0.1
    """Frames whose principal point lies farther from the middle of the depth map, as a share of its side, are
    rejected: their intrinsics are of another image size. Up to 0.5, the edge, for cropped pictures."""
    max_disagreement_mm: float = 40.0
    """Scans whose neighbouring views disagree by more (median of |depth of a pixel seen from the other view -
    depth stored there|, in mm) get a warning with the mistake that explains it: 40 suits rooms."""
    colour: bool = True
    """Keep the colour pictures, which `embed` and `preview` need."""
    jpeg_quality: int = 90
    """Quality of the kept pictures."""

    def validate(self) -> None:
        """Raise ValueError for a value that cannot be."""
        for name in ("candidate_step", "coverage_stride", "jpeg_quality"):
            if getattr(self, name) < 1:
                raise ValueError(f"views: {name} is {getattr(self, name)}, expected at least 1")
        if self.voxel_m <= 0:
            raise ValueError(f"views: voxel_m is {self.voxel_m}, expected more than 0")
        if self.chunk_frames < 0 or self.single_median_depth_m < 0:
            raise ValueError(
                "views: chunk_frames and single_median_depth_m must not be negative; 0 means off"
            )
        if self.max_disagreement_mm <= 0:
            raise ValueError(
                f"views: max_disagreement_mm is {self.max_disagreement_mm}, expected millimetres above 0"
            )
        if not 0 < self.max_off_centre <= 0.5:
            raise ValueError(f"views: max_off_centre is {self.max_off_centre}, expected above 0 to 0.5")
        if not 0 <= self.min_valid_depth <= 1:
            raise ValueError(
                f"views: min_valid_depth is {self.min_valid_depth}, expected a share from 0 to 1"
            )
