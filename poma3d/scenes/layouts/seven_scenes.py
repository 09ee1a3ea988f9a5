"""Scans in the style of 7-Scenes: one folder with, for every frame,

    frame-NNNNNN.color.jpg|png   frame-NNNNNN.depth.png (16-bit mm)   frame-NNNNNN.pose.txt (camera -> world)

and, in the folder or the one above, `camera-intrinsics.txt` (3x3, of the depth camera). A file
`captions.json` is optional. Depth 0 and 65535 is none.

The official release (SCENE/seq-01/..., SCENE/TrainSplit.txt, SCENE/TestSplit.txt) has no intrinsics file; its
page (microsoft.com/en-us/research/project/rgb-d-dataset-7-scenes) gives the depth camera as focal length 585
and principal point (320, 240): `camera: 7-scenes`. Its splits call `sequence1` what is the folder seq-01.

Colour of the release is **not** registered to depth: its camera, of focal length 525 (OpenNI's for a Kinect),
sits 25 mm to the right (wiki.ros.org/kinect_calibration/technical). Wherever the depth camera is the
release's (585 is the focal length of a Kinect's infrared camera), pictures are brought to the depth's view
(`poma3d.scenes.colour`). On 16 views of "redkitchen" edges of picture and depth matched best at 0.90 of the
scale and 2.5 pixels of 224 beside; after it at 1.00 and half a pixel. `colour_camera` names another camera,
`registered` says that there is none; without either, scans of other depth cameras are taken as registered,
with a warning.

Such scans come from KinectFusion, whose world is the first camera's: y points roughly down and nothing
is level. Poses are turned so that the world is z-up; up is estimated from the scan or given.
Pictures of a camera that was held on its side are turned upright (`upright`), each by its own pose.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from poma3d.geometry import rotation_to_z_up
from poma3d.scenes.config import INTRINSICS_NUMBERS, SevenScenesConfig, refuse_camera, refuse_intrinsics
from poma3d.scenes.files import (
    first_there,
    frame_stems,
    listed,
    read_depth,
    read_matrix,
    read_pose,
    usual_size,
)
from poma3d.scenes.frame import BadFrame, ColourCamera, Frame
from poma3d.scenes.marks import Mark
from poma3d.scenes.scan_captions import CAPTIONS_FILE
from poma3d.scenes.scans import Scan, ScanReader, estimated_up, upright, without_depth
from poma3d.scenes.text_files import read_text

SOURCE = "seven_scenes"
DEPTH_SUFFIX = ".depth.png"
POSE_SUFFIX = ".pose.txt"
COLOUR_SUFFIXES = (".color.jpg", ".color.png")
INTRINSICS_FILE, OTHER_CAMERAS = CAMERA_FILES = ("camera-intrinsics.txt", "info.txt")
"""This layout's, and that of BundleFusion and 12-Scenes, whose frames have the same names."""
RELEASE = "7-scenes"
CAMERAS = {RELEASE: (585.0, 585.0, 320.0, 240.0)}
"""Published depth cameras by name: fx, fy, cx, cy."""
RELEASE_SIZE = (480, 640)
RELEASE_COLOUR = (525.0, 525.0, 320.0, 240.0)
KINECT_OFFSET_M, NO_OFFSET_M = (0.025, 0.0, 0.0), (0.0, 0.0, 0.0)
SAME_CAMERA_PX = 0.5
"""Intrinsics that differ by less are one camera's."""
UNTOLD_COLOUR = (
    "colour is taken to be registered to depth, which no file says: set reader.seven_scenes.registered=true, "
    "or colour_camera=[fx, fy, cx, cy]"
)
OFFSET_NUMBERS = 3
SPLITS = {"train": "TrainSplit.txt", "test": "TestSplit.txt"}


@dataclass(frozen=True)
class Recorded(Scan):
    """A scan whose colour may have a camera of its own."""

    colour_camera: ColourCamera | None = None


class SevenScenesReader(ScanReader[SevenScenesConfig, Recorded]):
    """Reads scans in the style of 7-Scenes."""

    source = SOURCE
    above = CAMERA_FILES
    title = "7-Scenes, or scans in its style"
    marks = (
        Mark("depth", (f"frame-*{DEPTH_SUFFIX}",)),
        Mark("colour", tuple(f"frame-*{suffix}" for suffix in COLOUR_SUFFIXES)),
        Mark("poses", (f"frame-*{POSE_SUFFIX}",)),
        Mark(
            "intrinsics",
            (INTRINSICS_FILE, f"../{INTRINSICS_FILE}"),
            instead="camera",
            advice="7-scenes for the official release, else give intrinsics",
        ),
        Mark("captions", (CAPTIONS_FILE,), needed=False),
    )

    def __init__(self, config: SevenScenesConfig) -> None:
        super().__init__(config)
        refuse_camera(config.camera, config.intrinsics, CAMERAS)
        refuse_intrinsics(config.intrinsics)
        if config.registered and config.colour_camera is not None:
            raise ValueError("registered and colour_camera are both given: give one of them")
        if config.colour_camera is not None and len(config.colour_camera) != INTRINSICS_NUMBERS:
            raise ValueError(f"colour_camera is {config.colour_camera}, expected [fx, fy, cx, cy]")
        if config.colour_offset_m is not None and len(config.colour_offset_m) != OFFSET_NUMBERS:
            raise ValueError(f"colour_offset_m is {config.colour_offset_m}, expected [x, y, z]")
        if config.split is not None and config.split not in SPLITS:
            raise ValueError(f"split is {config.split}, expected one of {', '.join(SPLITS)}")

    def find(self, root: Path) -> list[str]:
        """Folders that hold depth frames, relative to the root; the root's name if it is a scan itself."""
        if frame_stems(root, DEPTH_SUFFIX) and not self._has_other_cameras(root):
            return [root.resolve().name]
        found = sorted({path.parent for path in listed(root, f"**/*{DEPTH_SUFFIX}")})
        if not found:
            raise ValueError(f"{root}: no scan here: no file named frame-000000{DEPTH_SUFFIX} or the like")
        folders = [folder for folder in found if not self._has_other_cameras(folder)]
        if not folders:
            raise ValueError(
                f"{root}: the scans have their cameras in {OTHER_CAMERAS}: read them with "
                "reader.kind=bundle_fusion"
            )
        if self.config.split is not None:
            folders = [folder for folder in folders if _in_split(folder, SPLITS[self.config.split])]
            if not folders:
                raise ValueError(f"{root}: no sequence that a {SPLITS[self.config.split]} beside it names")
        return [folder.relative_to(root).as_posix() for folder in folders]

    def _has_other_cameras(self, folder: Path) -> bool:
        """Whether its frames are BundleFusion's or 12-Scenes', which have the same names."""
        if self.config.camera is not None or self.config.intrinsics is not None:
            return False
        here = folder.resolve()
        names = {name: (here / name).is_file() or (here.parent / name).is_file() for name in CAMERA_FILES}
        return names[OTHER_CAMERAS] and not names[INTRINSICS_FILE]

    def folder(self, scene_id: str) -> Path:
        """The root itself where it is the scan."""
        root = Path(self.config.root)
        return root if frame_stems(root, DEPTH_SUFFIX) else root / scene_id

    def open(self, scene_id: str, folder: Path) -> Recorded:
        """One scan, its world to be turned z-up."""
        frame_ids = frame_stems(folder, DEPTH_SUFFIX)
        if not frame_ids:
            raise ValueError(
                f"scene {scene_id}: no file named frame-000000{DEPTH_SUFFIX} or the like in {folder}"
            )
        intrinsics = self._intrinsics(scene_id, folder)
        size = usual_size([folder / f"{frame_id}{DEPTH_SUFFIX}" for frame_id in frame_ids])
        lost = without_depth(scene_id, frame_stems(folder, POSE_SUFFIX), frame_ids)
        as_is = Recorded(folder, frame_ids, np.eye(3), intrinsics, size, left_out=lost)
        colour_camera, warnings = self._colour_camera(as_is)
        if self.config.up is not None:
            up = np.asarray(self.config.up, np.float64)
        else:
            up, doubts = estimated_up(scene_id, self.source, as_is, self.load)
            warnings += doubts
        scan = replace(as_is, transform=rotation_to_z_up(up), colour_camera=colour_camera, warnings=warnings)
        return upright(scan, _pose) if self.config.upright else scan

    def load(self, scan: Recorded, frame_id: str) -> Frame:
        """One frame."""
        assert scan.intrinsics is not None
        return Frame(
            frame_id=frame_id,
            depth=read_depth(scan.folder / f"{frame_id}{DEPTH_SUFFIX}", scan.size),
            intrinsics=scan.intrinsics,
            pose=_pose(scan, frame_id),
            picture=_picture(scan.folder, frame_id),
            colour_camera=scan.colour_camera,
        )

    def _colour_camera(self, scan: Recorded) -> tuple[ColourCamera | None, list[str]]:
        """Of the config, or the release's; None where colour is registered. And what is doubtful about it."""
        config = self.config
        assert scan.intrinsics is not None
        pictures_hw = usual_size([_picture(scan.folder, frame_id) for frame_id in scan.frame_ids])
        if config.registered or pictures_hw is None:
            return None, []
        apart = np.abs(scan.intrinsics - np.array(CAMERAS[RELEASE])).max()
        released = scan.size == RELEASE_SIZE and apart < SAME_CAMERA_PX
        if config.colour_camera is None and not released:
            return None, [UNTOLD_COLOUR]
        of_release = RELEASE_COLOUR, RELEASE_SIZE
        camera, size = of_release if config.colour_camera is None else (config.colour_camera, pictures_hw)
        offset = config.colour_offset_m or (KINECT_OFFSET_M if released else NO_OFFSET_M)
        from_depth = np.concatenate([np.eye(3), -np.array(offset, np.float64)[:, None]], axis=1)
        return ColourCamera(np.array(camera, np.float64), size, from_depth), []

    def _intrinsics(self, scene_id: str, folder: Path) -> np.ndarray:
        """Of the config, else of the scan's folder or the one above it."""
        config = self.config
        if config.intrinsics is not None:
            return np.asarray(config.intrinsics, np.float64)
        if config.camera is not None:
            return np.asarray(CAMERAS[config.camera], np.float64)
        for place in (folder, folder.resolve().parent):
            if (place / INTRINSICS_FILE).is_file():
                try:
                    matrix = read_matrix(place / INTRINSICS_FILE, (3, 3), "intrinsics")
                except BadFrame as bad:
                    raise ValueError(f"scene {scene_id}: {place / INTRINSICS_FILE}: {bad.value}") from None
                return np.array([matrix[0, 0], matrix[1, 1], matrix[0, 2], matrix[1, 2]])
        raise ValueError(
            f"scene {scene_id}: no {INTRINSICS_FILE} in {folder} or above it: set "
            "reader.seven_scenes.camera=7-scenes for the official release, or "
            "reader.seven_scenes.intrinsics=[fx, fy, cx, cy]"
        )


def _pose(scan: Recorded, frame_id: str) -> np.ndarray:
    """float64 [3, 4] in the z-up world, or BadFrame."""
    return scan.transform @ read_pose(scan.folder / f"{frame_id}{POSE_SUFFIX}")


def _picture(folder: Path, frame_id: str) -> Path:
    """The frame's colour file, or where it should be."""
    return first_there(folder, (f"{frame_id}{suffix}" for suffix in COLOUR_SUFFIXES))


def _in_split(folder: Path, split: str) -> bool:
    """Whether the split beside a sequence's folder names it: `sequence1` is seq-01."""
    path = folder.parent / split
    if not path.is_file():
        return False
    named = re.findall(r"\d+", read_text(path))
    number = re.fullmatch(r"seq-(\d+)", folder.name)
    return number is not None and int(number[1]) in map(int, named)
