"""Scans in the style of 7-Scenes: one folder with, for every frame,

    frame-NNNNNN.color.jpg|png   frame-NNNNNN.depth.png (16-bit mm)   frame-NNNNNN.pose.txt (camera -> world)

and, in the folder or the one above, `camera-intrinsics.txt` (3x3, of the depth camera). A file
`captions.json` is optional. Depth 0 and 65535 is none.

Such scans come from KinectFusion, whose world is the first camera's: y points roughly down and nothing
is level. Poses are turned so that the world is z-up; up is estimated from the scan or given.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from poma3d.geometry import rotation_to_z_up
from poma3d.sample import MILLIMETRE
from poma3d.scenes.files import Captions, read_captions, read_depth, read_intrinsics, read_matrix, usual_size
from poma3d.scenes.frame import BadFrame, Frame, LazyFrames, SceneFrames
from poma3d.scenes.upright import estimate_up

SOURCE = "seven_scenes"
DEPTH_SUFFIX = ".depth.png"
COLOUR_SUFFIXES = (".color.jpg", ".color.png")
INTRINSICS_FILE = "camera-intrinsics.txt"


@dataclass
class SevenScenesConfig:
    """Scans in the style of 7-Scenes."""

    root: str = ""
    """A folder of one scan, or one with folders of scans at any depth below it."""
    up: list[float] | None = None
    """Up direction of the scans' world, as [0, -1, 0] for y down; estimated per scan when not given."""


@dataclass(frozen=True)
class _Scan:
    """What loading any frame of a scan needs."""

    folder: Path
    intrinsics: np.ndarray | None
    size: tuple[int, int] | None
    captions: Captions
    rotation: np.ndarray

    def load(self, frame_id: str) -> Frame:
        """One frame, or BadFrame."""
        if self.intrinsics is None:
            raise BadFrame("no intrinsics", f"no readable {INTRINSICS_FILE} in the scan's folder or above it")
        pose = read_matrix(self.folder / f"{frame_id}.pose.txt", (3, 4), "pose")
        colours = [self.folder / f"{frame_id}{suffix}" for suffix in COLOUR_SUFFIXES]
        return Frame(
            frame_id=frame_id,
            depth=read_depth(self.folder / f"{frame_id}{DEPTH_SUFFIX}", self.size),
            intrinsics=self.intrinsics,
            pose=self.rotation @ pose,
            picture=next((path for path in colours if path.exists()), colours[0]),
            captions=self.captions.views.get(frame_id, []),
        )


class SevenScenesReader:
    """Reads such scans: `poma3d.scenes.frame.Reader`."""

    def __init__(self, config: SevenScenesConfig) -> None:
        """Nothing is opened yet."""
        self.config = config

    def scene_ids(self) -> list[str]:
        """Folders that hold depth frames, relative to the root; the root's name if it is a scan itself.

        Raises:
            ValueError: there is none.
        """
        root = Path(self.config.root)
        if any(root.glob(f"*{DEPTH_SUFFIX}")):
            return [root.resolve().name]
        folders = sorted({path.parent for path in root.rglob(f"*{DEPTH_SUFFIX}")})
        if not folders:
            raise ValueError(f"{root}: no scan here: no file named frame-000000{DEPTH_SUFFIX} or the like")
        return [folder.relative_to(root).as_posix() for folder in folders]

    def read(self, scene_id: str) -> SceneFrames:
        """One scan; its frames are decoded when asked for.

        Raises:
            ValueError: no depth frame in its folder, no frame to tell up from, or a bad captions file.
        """
        folder = self._folder(scene_id)
        frame_ids = sorted(path.name.removesuffix(DEPTH_SUFFIX) for path in folder.glob(f"*{DEPTH_SUFFIX}"))
        if not frame_ids:
            raise ValueError(
                f"scene {scene_id}: no file named frame-000000{DEPTH_SUFFIX} or the like in {folder}"
            )
        intrinsics = read_intrinsics(folder / INTRINSICS_FILE)
        if intrinsics is None:
            intrinsics = read_intrinsics(folder.parent / INTRINSICS_FILE)
        size = usual_size([folder / f"{frame_id}{DEPTH_SUFFIX}" for frame_id in frame_ids])
        captions = read_captions(folder)
        as_is = LazyFrames(frame_ids, _Scan(folder, intrinsics, size, captions, np.eye(3)).load)
        scan = _Scan(folder, intrinsics, size, captions, rotation_to_z_up(self._up(scene_id, as_is)))
        return SceneFrames(scene_id, SOURCE, LazyFrames(frame_ids, scan.load), captions.scene)

    def _folder(self, scene_id: str) -> Path:
        root = Path(self.config.root)
        return root if any(root.glob(f"*{DEPTH_SUFFIX}")) else root / scene_id

    def _up(self, scene_id: str, frames: LazyFrames) -> np.ndarray:
        if self.config.up is not None:
            return np.asarray(self.config.up, np.float64)
        try:
            return estimate_up(frames, MILLIMETRE)
        except ValueError as error:
            raise ValueError(
                f"scene {scene_id}: none of its {len(frames)} frames can be used ({error})"
            ) from error
