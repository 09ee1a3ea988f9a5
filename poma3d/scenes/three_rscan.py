"""3RScan as released, one folder per scan with its `sequence.zip` unpacked:

    <scan>/sequence/_info.txt                      sizes and m_calibrationDepthIntrinsic (4x4)
    <scan>/sequence/frame-NNNNNN.depth.pgm         16-bit, millimetres
    <scan>/sequence/frame-NNNNNN.color.jpg
    <scan>/sequence/frame-NNNNNN.pose.txt          4x4 camera -> world

The world is metric with z up (`up` can say otherwise). The phone was held upright, so the pictures lie on
their side; they are turned. `captions.json` is optional (`poma3d.scenes.files.read_captions`).
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from poma3d.geometry import rotation_to_z_up
from poma3d.scenes.files import Captions, read_captions, read_depth, read_matrix, usual_size
from poma3d.scenes.frame import BadFrame, Frame, LazyFrames, SceneFrames
from poma3d.scenes.turns import quarter_turns, turned

SOURCE = "3rscan"
SEQUENCE, INFO_FILE = "sequence", "_info.txt"
DEPTH_SUFFIX = ".depth.pgm"
POSES_READ = 50
"""Poses by which it is told how the phone was held."""


@dataclass
class ThreeRScanConfig:
    """3RScan as released."""

    root: str = ""
    """The folder that holds the scans' folders."""
    scans: list[str] | None = None
    """Ids of the scans to read, as in a split file; all when not given."""
    up: list[float] = field(default_factory=lambda: [0.0, 0.0, 1.0])
    """Up direction of the scans' world."""
    upright: bool = True
    """Turn the pictures upright."""


@dataclass(frozen=True)
class _Scan:
    """What loading any frame of a scan needs."""

    folder: Path
    intrinsics: np.ndarray
    size: tuple[int, int] | None
    captions: Captions
    rotation: np.ndarray
    turns: int

    def pose(self, frame_id: str) -> np.ndarray:
        """float64 [3, 4] in the z-up world, or BadFrame."""
        return self.rotation @ read_matrix(self.folder / f"{frame_id}.pose.txt", (3, 4), "pose")

    def load(self, frame_id: str) -> Frame:
        """One frame, or BadFrame."""
        frame = Frame(
            frame_id=frame_id,
            depth=read_depth(self.folder / f"{frame_id}{DEPTH_SUFFIX}", self.size),
            intrinsics=self.intrinsics,
            pose=self.pose(frame_id),
            picture=self.folder / f"{frame_id}.color.jpg",
            captions=self.captions.views.get(frame_id, []),
        )
        return turned(frame, self.turns)


class ThreeRScanReader:
    """Reads 3RScan: `poma3d.scenes.frame.Reader`."""

    def __init__(self, config: ThreeRScanConfig) -> None:
        """Nothing is opened yet."""
        self.config = config

    def scene_ids(self) -> list[str]:
        """Ids of the scans.

        Raises:
            ValueError: no folder below the root holds `sequence/_info.txt`, or a named scan is not there.
        """
        root = Path(self.config.root)
        found = sorted(path.parent.parent.name for path in root.glob(f"*/{SEQUENCE}/{INFO_FILE}"))
        if not found:
            raise ValueError(
                f"{root}: no scan here: no file such as SCAN/{SEQUENCE}/{INFO_FILE}; unpack the sequence.zip "
                "of every scan into a folder of that name"
            )
        return named_scans(root, found, self.config.scans)

    def read(self, scene_id: str) -> SceneFrames:
        """One scan; its frames are decoded when asked for.

        Raises:
            ValueError: no frames, no intrinsics, or a bad captions file.
        """
        folder = Path(self.config.root) / scene_id / SEQUENCE
        frame_ids = sorted(path.name.removesuffix(DEPTH_SUFFIX) for path in folder.glob(f"*{DEPTH_SUFFIX}"))
        if not frame_ids:
            raise ValueError(f"scene {scene_id}: no frames named frame-000000{DEPTH_SUFFIX} in {folder}")
        captions = read_captions(folder.parent)
        size = usual_size([folder / f"{frame_id}{DEPTH_SUFFIX}" for frame_id in frame_ids])
        rotation = rotation_to_z_up(np.asarray(self.config.up, np.float64))
        as_is = _Scan(folder, read_info_intrinsics(folder / INFO_FILE), size, captions, rotation, turns=0)
        turns = quarter_turns(_poses(as_is, frame_ids)) if self.config.upright else 0
        scan = replace(as_is, turns=turns)
        return SceneFrames(scene_id, SOURCE, LazyFrames(frame_ids, scan.load), captions.scene)


def named_scans(root: Path, found: Sequence[str], named: Sequence[str] | None) -> list[str]:
    """The scans that a job names, or all that were found.

    Raises:
        ValueError: one that is named is not there.
    """
    if named is None:
        return list(found)
    missing = sorted(set(named) - set(found))
    if missing:
        raise ValueError(f"{root}: {len(missing)} of the named scans are not here, the first is {missing[0]}")
    return list(named)


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


def _poses(scan: _Scan, frame_ids: Sequence[str]) -> Iterator[np.ndarray]:
    for frame_id in frame_ids[:: max(1, len(frame_ids) // POSES_READ)]:
        with contextlib.suppress(BadFrame):
            yield scan.pose(frame_id)
