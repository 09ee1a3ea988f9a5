"""Scans in the style of 7-Scenes: one folder with, for every frame,

    frame-NNNNNN.color.jpg|png   frame-NNNNNN.depth.png (16-bit mm)   frame-NNNNNN.pose.txt (camera -> world)

and, in the folder or the one above, `camera-intrinsics.txt` (3x3, of the depth camera). A file
`captions.json` is optional. Depth 0 and 65535 is none.

The official release (SCENE/seq-01/..., SCENE/TrainSplit.txt, SCENE/TestSplit.txt) has no intrinsics file; its
page (microsoft.com/en-us/research/project/rgb-d-dataset-7-scenes) gives the depth camera as focal length 585
and principal point (320, 240): `camera: 7-scenes`. Its splits call `sequence1` what is the folder seq-01.

Such scans come from KinectFusion, whose world is the first camera's: y points roughly down and nothing
is level. Poses are turned so that the world is z-up; up is estimated from the scan or given.
"""

from __future__ import annotations

import re
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from poma3d.geometry import rotation_to_z_up
from poma3d.sample import MILLIMETRE
from poma3d.scenes.config import SevenScenesConfig
from poma3d.scenes.files import (
    CAPTIONS_FILE,
    frame_stems,
    listed,
    read_depth,
    read_matrix,
    usual_size,
)
from poma3d.scenes.frame import BadFrame, Frame, LazyFrames
from poma3d.scenes.marks import Mark
from poma3d.scenes.orientation import estimate_up
from poma3d.scenes.scans import Scan, ScanReader

SOURCE = "seven_scenes"
DEPTH_SUFFIX = ".depth.png"
COLOUR_SUFFIXES = (".color.jpg", ".color.png")
INTRINSICS_FILE = "camera-intrinsics.txt"
CAMERAS = {"7-scenes": (585.0, 585.0, 320.0, 240.0)}
"""Published depth cameras by name: fx, fy, cx, cy."""
INTRINSICS_NUMBERS = 4
SPLITS = {"train": "TrainSplit.txt", "test": "TestSplit.txt"}


class SevenScenesReader(ScanReader[SevenScenesConfig, Scan]):
    """Reads scans in the style of 7-Scenes."""

    source = SOURCE
    title = "7-Scenes, or scans in its style"
    marks = (
        Mark("depth", (f"frame-*{DEPTH_SUFFIX}",)),
        Mark("colour", tuple(f"frame-*{suffix}" for suffix in COLOUR_SUFFIXES)),
        Mark("poses", ("frame-*.pose.txt",)),
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
        if config.camera is not None and config.camera not in CAMERAS:
            raise ValueError(f"camera is {config.camera}, expected one of {', '.join(CAMERAS)}")
        if config.camera is not None and config.intrinsics is not None:
            raise ValueError("camera and intrinsics are both given: give one of them")
        if config.intrinsics is not None and len(config.intrinsics) != INTRINSICS_NUMBERS:
            raise ValueError(f"intrinsics are {config.intrinsics}, expected [fx, fy, cx, cy]")
        if config.split is not None and config.split not in SPLITS:
            raise ValueError(f"split is {config.split}, expected one of {', '.join(SPLITS)}")

    def find(self, root: Path) -> list[str]:
        """Folders that hold depth frames, relative to the root; the root's name if it is a scan itself."""
        if frame_stems(root, DEPTH_SUFFIX):
            return [root.resolve().name]
        folders = sorted({path.parent for path in listed(root, f"**/*{DEPTH_SUFFIX}")})
        if not folders:
            raise ValueError(f"{root}: no scan here: no file named frame-000000{DEPTH_SUFFIX} or the like")
        if self.config.split is not None:
            folders = [folder for folder in folders if _in_split(folder, SPLITS[self.config.split])]
            if not folders:
                raise ValueError(f"{root}: no sequence that a {SPLITS[self.config.split]} beside it names")
        return [folder.relative_to(root).as_posix() for folder in folders]

    def folder(self, scene_id: str) -> Path:
        """The root itself where it is the scan."""
        root = Path(self.config.root)
        return root if frame_stems(root, DEPTH_SUFFIX) else root / scene_id

    def open(self, scene_id: str, folder: Path) -> Scan:
        """One scan, its world to be turned z-up."""
        frame_ids = frame_stems(folder, DEPTH_SUFFIX)
        if not frame_ids:
            raise ValueError(
                f"scene {scene_id}: no file named frame-000000{DEPTH_SUFFIX} or the like in {folder}"
            )
        intrinsics = self._intrinsics(scene_id, folder)
        size = usual_size([folder / f"{frame_id}{DEPTH_SUFFIX}" for frame_id in frame_ids])
        as_is = Scan(folder, frame_ids, np.eye(3), intrinsics, size)
        return replace(as_is, transform=rotation_to_z_up(self._up(scene_id, as_is)))

    def load(self, scan: Scan, frame_id: str) -> Frame:
        """One frame."""
        assert scan.intrinsics is not None
        pose = read_matrix(scan.folder / f"{frame_id}.pose.txt", (3, 4), "pose")
        colours = [scan.folder / f"{frame_id}{suffix}" for suffix in COLOUR_SUFFIXES]
        return Frame(
            frame_id=frame_id,
            depth=read_depth(scan.folder / f"{frame_id}{DEPTH_SUFFIX}", scan.size),
            intrinsics=scan.intrinsics,
            pose=scan.transform @ pose,
            picture=next((path for path in colours if path.exists()), colours[0]),
        )

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

    def _up(self, scene_id: str, scan: Scan) -> np.ndarray:
        if self.config.up is not None:
            return np.asarray(self.config.up, np.float64)
        try:
            return estimate_up(LazyFrames(scan.frame_ids, partial(self.load, scan)), MILLIMETRE)
        except ValueError as error:
            count = len(scan.frame_ids)
            raise ValueError(f"scene {scene_id}: none of its {count} frames can be used ({error})") from error


def _in_split(folder: Path, split: str) -> bool:
    """Whether the split beside a sequence's folder names it: `sequence1` is seq-01."""
    path = folder.parent / split
    if not path.is_file():
        return False
    named = re.findall(r"\d+", path.read_text(encoding="utf-8"))
    number = re.fullmatch(r"seq-(\d+)", folder.name)
    return number is not None and int(number[1]) in map(int, named)
