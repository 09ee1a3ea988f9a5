"""3RScan as released, one folder per scan with its `sequence.zip` unpacked:

    <scan>/sequence/_info.txt                      sizes and m_calibrationDepthIntrinsic (4x4)
    <scan>/sequence/frame-NNNNNN.depth.pgm         16-bit, millimetres
    <scan>/sequence/frame-NNNNNN.color.jpg
    <scan>/sequence/frame-NNNNNN.pose.txt          4x4 camera -> world

The world is metric with z up (`up` can say otherwise). A phone held upright stores a rotated landscape image;
pictures are turned upright. `captions.json` is optional (`poma3d.scenes.files.read_captions`).
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from poma3d.geometry import rotation_to_z_up
from poma3d.scenes.config import ThreeRScanConfig
from poma3d.scenes.files import CAPTIONS_FILE, frame_stems, listed, read_depth, read_matrix, usual_size
from poma3d.scenes.frame import BadFrame, Frame
from poma3d.scenes.marks import Mark
from poma3d.scenes.orientation import quarter_turns
from poma3d.scenes.scans import Scan, ScanReader

SOURCE = "3rscan"
SEQUENCE, INFO_FILE = "sequence", "_info.txt"
DEPTH_SUFFIX = ".depth.pgm"
POSES_READ = 50
"""Poses that decide how the phone was held."""


class ThreeRScanReader(ScanReader[ThreeRScanConfig, Scan]):
    """Reads 3RScan."""

    source = SOURCE
    title = "3RScan"
    marks = (
        Mark("sizes and intrinsics", (f"{SEQUENCE}/{INFO_FILE}",)),
        Mark("depth", (f"{SEQUENCE}/frame-*{DEPTH_SUFFIX}",)),
        Mark("colour", (f"{SEQUENCE}/frame-*.color.jpg",)),
        Mark("poses", (f"{SEQUENCE}/frame-*.pose.txt",)),
        Mark("captions", (CAPTIONS_FILE,), needed=False),
    )

    def find(self, root: Path) -> list[str]:
        """Names of the folders that hold `sequence/_info.txt`."""
        found = sorted(path.parent.parent.name for path in listed(root, f"*/{SEQUENCE}/{INFO_FILE}"))
        if not found:
            raise ValueError(
                f"{root}: no scan here: no file such as SCAN/{SEQUENCE}/{INFO_FILE}; unpack the sequence.zip "
                "of every scan into a folder of that name"
            )
        return found

    def open(self, scene_id: str, folder: Path) -> Scan:
        """One scan; some of its poses say how the phone was held."""
        folder = folder / SEQUENCE
        frame_ids = frame_stems(folder, DEPTH_SUFFIX)
        if not frame_ids:
            raise ValueError(f"scene {scene_id}: no frames named frame-000000{DEPTH_SUFFIX} in {folder}")
        scan = Scan(
            folder=folder,
            frame_ids=frame_ids,
            transform=rotation_to_z_up(np.asarray(self.config.up, np.float64)),
            intrinsics=read_info_intrinsics(folder / INFO_FILE),
            size=usual_size([folder / f"{frame_id}{DEPTH_SUFFIX}" for frame_id in frame_ids]),
        )
        return replace(scan, turns=quarter_turns(_some_poses(scan)) if self.config.upright else 0)

    def load(self, scan: Scan, frame_id: str) -> Frame:
        """One frame."""
        assert scan.intrinsics is not None
        return Frame(
            frame_id=frame_id,
            depth=read_depth(scan.folder / f"{frame_id}{DEPTH_SUFFIX}", scan.size),
            intrinsics=scan.intrinsics,
            pose=_pose(scan, frame_id),
            picture=scan.folder / f"{frame_id}.color.jpg",
        )


def read_info_intrinsics(path: Path) -> np.ndarray:
    """fx, fy, cx, cy float64 [4] of the depth camera from `_info.txt`.

    Raises:
        ValueError: no such file, no such line, or not 16 numbers.
    """
    key = "m_calibrationDepthIntrinsic"
    try:
        found = re.search(rf"^\s*{key}\s*=(.*)$", path.read_text(encoding="utf-8"), re.MULTILINE)
        if found is None:
            raise ValueError("there is no such line")
        matrix = np.array([float(number) for number in found[1].split()]).reshape(4, 4)
    except (OSError, ValueError) as error:
        raise ValueError(f"{path}: {key} must be a line of 16 numbers ({error})") from error
    return np.array([matrix[0, 0], matrix[1, 1], matrix[0, 2], matrix[1, 2]])


def _pose(scan: Scan, frame_id: str) -> np.ndarray:
    """float64 [3, 4] in the z-up world, or BadFrame."""
    return scan.transform @ read_matrix(scan.folder / f"{frame_id}.pose.txt", (3, 4), "pose")


def _some_poses(scan: Scan) -> Iterator[np.ndarray]:
    for frame_id in scan.frame_ids[:: max(1, len(scan.frame_ids) // POSES_READ)]:
        with contextlib.suppress(BadFrame):
            yield _pose(scan, frame_id)
