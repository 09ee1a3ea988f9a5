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
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from poma3d.scenes.files import Captions, read_captions, read_depth, read_intrinsics, read_matrix, usual_size
from poma3d.scenes.frame import BadFrame, Frame, LazyFrames, SceneFrames

SOURCE = "scannet"
INTRINSICS_FILE = "intrinsic/intrinsic_depth.txt"


@dataclass
class ScanNetConfig:
    """ScanNet as exported on disk."""

    root: str = ""
    """The folder that holds the scans' folders."""
    scans: list[str] | None = None
    """Names of the scans to read, as in a split file; all when not given."""


@dataclass(frozen=True)
class _Scan:
    """What loading any frame of a scan needs."""

    folder: Path
    intrinsics: np.ndarray | None
    size: tuple[int, int] | None
    captions: Captions
    alignment: np.ndarray

    def load(self, frame_id: str) -> Frame:
        """One frame, or BadFrame."""
        if self.intrinsics is None:
            raise BadFrame("no intrinsics", f"no readable {INTRINSICS_FILE}")
        pose = read_matrix(self.folder / "pose" / f"{frame_id}.txt", (4, 4), "pose")
        if not np.isfinite(pose).all():  # before -inf meets the alignment and becomes NaN
            raise BadFrame("non-finite pose", str(pose[0].tolist()))
        return Frame(
            frame_id=frame_id,
            depth=read_depth(self.folder / "depth" / f"{frame_id}.png", self.size),
            intrinsics=self.intrinsics,
            pose=(self.alignment @ pose)[:3],
            picture=self.folder / "color" / f"{frame_id}.jpg",
            captions=self.captions.views.get(frame_id, []),
        )


class ScanNetReader:
    """Reads exported ScanNet scans: `poma3d.scenes.frame.Reader`."""

    def __init__(self, config: ScanNetConfig) -> None:
        """Nothing is opened yet."""
        self.config = config

    def scene_ids(self) -> list[str]:
        """Names of the scans.

        Raises:
            ValueError: no folder below the root holds `depth/`, or a named scan is not there.
        """
        root = Path(self.config.root)
        found = sorted(folder.parent.name for folder in root.glob("*/depth") if folder.is_dir())
        if not found:
            raise ValueError(f"{root}: no scan here: no folder such as scene0000_00/depth")
        if self.config.scans is None:
            return found
        missing = sorted(set(self.config.scans) - set(found))
        if missing:
            raise ValueError(
                f"{root}: {len(missing)} of the named scans are not here, the first is {missing[0]}"
            )
        return list(self.config.scans)

    def read(self, scene_id: str) -> SceneFrames:
        """One scan; its frames are decoded when asked for.

        Raises:
            ValueError: the scan has no depth frames, or a bad alignment or captions file.
        """
        folder = Path(self.config.root) / scene_id
        frame_ids = sorted((path.stem for path in (folder / "depth").glob("*.png")), key=_number)
        if not frame_ids:
            raise ValueError(f"scene {scene_id}: no frames named depth/0.png or the like in {folder}")
        captions = read_captions(folder)
        scan = _Scan(
            folder=folder,
            intrinsics=read_intrinsics(folder / INTRINSICS_FILE),
            size=usual_size([folder / "depth" / f"{frame_id}.png" for frame_id in frame_ids]),
            captions=captions,
            alignment=read_axis_alignment(folder / f"{scene_id}.txt"),
        )
        return SceneFrames(scene_id, SOURCE, LazyFrames(frame_ids, scan.load), captions.scene)


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
