"""ScanNet as its exporter writes it to disk, one folder per scan:

    <scan>/depth/N.png (16-bit mm)   <scan>/color/N.jpg   <scan>/pose/N.txt (4x4 camera -> world)
    <scan>/intrinsic/intrinsic_depth.txt (4x4)            <scan>/<scan>.txt (with axisAlignment)

The axis alignment is applied to the poses; the hidden test scans have none and keep their world, which
is z-up too. Frames that were not localised have a pose of -inf and are rejected. Colour is larger than
depth and covers the same view; it is resized to the depth's grid. `captions.json` is optional, with
frame numbers as ids (`poma3d.scenes.files.read_captions`).
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from poma3d.scenes.config import ScanNetConfig
from poma3d.scenes.files import CAPTIONS_FILE, listed, read_depth, read_intrinsics, read_matrix, usual_size
from poma3d.scenes.frame import BadFrame, Frame
from poma3d.scenes.marks import Mark
from poma3d.scenes.scans import Scan, ScanReader

SOURCE = "scannet"
INTRINSICS_FILE = "intrinsic/intrinsic_depth.txt"


class ScanNetReader(ScanReader[ScanNetConfig, Scan]):
    """Reads exported ScanNet scans."""

    source = SOURCE
    title = "ScanNet as exported on disk"
    marks = (
        Mark("depth", ("depth/*.png",)),
        Mark("colour", ("color/*.jpg",)),
        Mark("poses", ("pose/*.txt",)),
        Mark("intrinsics of depth", (INTRINSICS_FILE,)),
        Mark("axis alignment", ("{scan}.txt",), needed=False),
        Mark("captions", (CAPTIONS_FILE,), needed=False),
    )

    def find(self, root: Path) -> list[str]:
        """Names of the folders that hold `depth/`."""
        found = sorted(folder.parent.name for folder in listed(root, "*/depth") if folder.is_dir())
        if not found:
            raise ValueError(f"{root}: no scan here: no folder such as scene0000_00/depth")
        return found

    def open(self, scene_id: str, folder: Path) -> Scan:
        """One scan, its poses to be aligned."""
        frame_ids = sorted((path.stem for path in listed(folder / "depth", "*.png")), key=_number)
        if not frame_ids:
            raise ValueError(f"scene {scene_id}: no frames named depth/0.png or the like in {folder}")
        return Scan(
            folder=folder,
            frame_ids=frame_ids,
            transform=read_axis_alignment(folder / f"{scene_id}.txt"),
            intrinsics=read_intrinsics(folder / INTRINSICS_FILE),
            size=usual_size([folder / "depth" / f"{frame_id}.png" for frame_id in frame_ids]),
        )

    def load(self, scan: Scan, frame_id: str) -> Frame:
        """One frame."""
        if scan.intrinsics is None:
            raise BadFrame("no intrinsics", f"no readable {INTRINSICS_FILE}")
        pose = read_matrix(scan.folder / "pose" / f"{frame_id}.txt", (4, 4), "pose")
        return Frame(
            frame_id=frame_id,
            depth=read_depth(scan.folder / "depth" / f"{frame_id}.png", scan.size),
            intrinsics=scan.intrinsics,
            pose=aligned(scan.transform, pose),
            picture=scan.folder / "color" / f"{frame_id}.jpg",
        )


def aligned(alignment: np.ndarray, pose: np.ndarray) -> np.ndarray:
    """A pose [4, 4] in the aligned world, [3, 4].

    Raises:
        BadFrame: the frame was not localised: -inf must not meet the alignment, where it would become NaN.
    """
    if not np.isfinite(pose).all():
        raise BadFrame("non-finite pose", str(pose[0].tolist()))
    return (alignment @ pose)[:3]


def read_axis_alignment(path: Path) -> np.ndarray:
    """The 4x4 axis alignment of a scan's text file; the identity without file or line.

    Raises:
        ValueError: the line does not hold 16 numbers.
    """
    if not path.exists():
        return np.eye(4)
    found = re.search(r"^\s*axisAlignment\s*=(.*)$", path.read_text(encoding="utf-8"), re.MULTILINE)
    if found is None:
        return np.eye(4)
    try:
        return np.array([float(number) for number in found[1].split()]).reshape(4, 4)
    except ValueError as error:
        raise ValueError(f"{path}: axisAlignment must be 16 numbers, found {found[1].strip()!r}") from error


def _number(name: str) -> tuple[int, str]:
    """Sorts frame 2 before frame 10."""
    digits = re.search(r"\d+", name)
    return (int(digits[0]) if digits else -1, name)
