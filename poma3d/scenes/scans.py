"""What the readers of recorded scans share: which scans there are, captions, frames decoded on demand."""

from __future__ import annotations

import contextlib
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Generic, Protocol, TypeVar

import numpy as np

from poma3d.sample import MILLIMETRE
from poma3d.scenes.frame import BadFrame, Frame, LazyFrames, Reject, SceneFrames
from poma3d.scenes.marks import Mark
from poma3d.scenes.orientation import estimate_up, turned, upright_turns
from poma3d.scenes.scan_captions import read_captions


class HasRoot(Protocol):
    """Config of such a reader; `scans`, where it has that, names the scans to read."""

    root: str


@dataclass(frozen=True)
class Scan:
    """What loading any frame of a scan needs; a reader may add fields."""

    folder: Path
    frame_ids: list[str]
    transform: np.ndarray
    """From the world of the recording to the z-up one: rotation [3, 3] or rigid motion [4, 4]."""
    intrinsics: np.ndarray | None = None
    """float64 [4]: fx, fy, cx, cy of the depth camera; None where they cannot be read."""
    size: tuple[int, int] | None = None
    """(h, w) of the depth maps that the intrinsics are for."""
    turns: Mapping[str, int] = field(default_factory=dict)
    """Quarter turns anticlockwise that bring each picture upright (`poma3d.scenes.orientation`), by frame id;
    pictures that are not in it stay as they are."""
    depth_scale: float = MILLIMETRE
    left_out: list[Reject] = field(default_factory=list)
    """Frames that are not among `frame_ids`: none is left out without a word."""
    warnings: list[str] = field(default_factory=list)
    """What is doubtful about the scan; `SceneFrames.warnings`."""


def without_depth(scene_id: str, posed: Iterable[str], frame_ids: Iterable[str]) -> list[Reject]:
    """Rows for the frames that have a pose and no depth map, such as of a copy that stopped.

    Args:
        posed: ids of the frames that have a pose.
        frame_ids: of those that have a depth map.
    """
    lost = sorted(set(posed) - set(frame_ids))
    return [Reject(scene_id, frame_id, "no depth", "it has a pose and no depth map") for frame_id in lost]


C = TypeVar("C", bound=HasRoot)
S = TypeVar("S", bound=Scan)


def upright(scan: S, pose: Callable[[S, str], np.ndarray]) -> S:
    """The scan with the turns that bring each picture upright by its own pose.

    Args:
        pose: camera -> z-up world [3, 4] of a frame; one that raises BadFrame leaves its picture as it is.
    """

    def pose_or_none(frame_id: str) -> np.ndarray | None:
        with contextlib.suppress(BadFrame):
            return pose(scan, frame_id)
        return None

    turns = upright_turns([pose_or_none(frame_id) for frame_id in scan.frame_ids])
    return replace(scan, turns=dict(zip(scan.frame_ids, turns, strict=True)))


def estimated_up(
    scene_id: str, source: str, scan: S, load: Callable[[S, str], Frame]
) -> tuple[np.ndarray, list[str]]:
    """Up in the world of a scan that does not say: a unit vector [3], and a warning where it is not sure.

    Raises:
        ValueError: no frame can be used.
    """
    try:
        found = estimate_up(LazyFrames(scan.frame_ids, partial(load, scan)), scan.depth_scale)
    except ValueError as error:
        count = len(scan.frame_ids)
        raise ValueError(f"scene {scene_id}: none of its {count} frames can be used ({error})") from error
    unsure = (
        "which way is up was estimated and is not sure: look at `poma shards preview`, or set "
        f"reader.{source}.up"
    )
    return found.direction, [] if found.is_sure else [unsure]


class ScanReader(ABC, Generic[C, S]):
    """`poma3d.scenes.frame.Reader` of one layout, which is three methods: `find`, `open` and `load`."""

    source = ""
    """Stored as the samples' source."""
    title = ""
    """The layout in a few words, for `poma ingest --detect`."""
    above: tuple[str, ...] = ()
    """Names of files in the folder above a scan's that it is read with."""
    marks: tuple[Mark, ...] = ()
    """Files of a scan, for the same (`poma3d.scenes.marks`)."""

    def __init__(self, config: C) -> None:
        self.config = config

    @abstractmethod
    def find(self, root: Path) -> list[str]:
        """Ids of all scans below a folder, in a fixed order.

        Raises:
            ValueError: there is none; says which file marks a scan.
        """

    @abstractmethod
    def open(self, scene_id: str, folder: Path) -> S:
        """One scan, no frame of it decoded.

        Raises:
            ValueError: it has no frames, or a file of the scan as a whole is missing or damaged.
        """

    @abstractmethod
    def load(self, scan: S, frame_id: str) -> Frame:
        """Decode one frame, as it is stored.

        Raises:
            BadFrame: it cannot be used.
        """

    def folder(self, scene_id: str) -> Path:
        """Folder of a scan."""
        return Path(self.config.root) / scene_id

    def inputs(self, scene_id: str) -> list[Path]:
        """What a scan is read from: its folder, and files that lie above it (`above`)."""
        folder = self.folder(scene_id)
        beside = [folder.resolve().parent / name for name in self.above]
        return [folder, *(path for path in beside if path.is_file())]

    def scene_ids(self) -> list[str]:
        """The scans that the config names, or all.

        Raises:
            ValueError: there is none, or one that is named is not there.
        """
        if not self.config.root:
            raise ValueError("root is not given: name the folder that holds the scans")
        root = Path(self.config.root)
        if not root.is_dir():
            what = "is a file" if root.exists() else "does not exist"
            raise ValueError(f"root is {root}, which {what}: name the folder that holds the scans")
        found, named = self.find(root), getattr(self.config, "scans", None)
        if named is None:
            return found
        if twice := [scene for scene, count in Counter(named).items() if count > 1]:
            raise ValueError(f"scans names {len(twice)} scans more than once, the first is {twice[0]}")
        if missing := sorted(set(named) - set(found)):
            raise ValueError(
                f"{root}: {len(missing)} of the named scans are not here, the first is {missing[0]}"
            )
        return list(named)

    def read(self, scene_id: str) -> SceneFrames:
        """One scan; its frames are decoded when asked for.

        Raises:
            ValueError: what `open` refuses, or a bad captions file.
        """
        folder = self.folder(scene_id)
        scan = self.open(scene_id, folder)
        known = [*scan.frame_ids, *(reject.frame_id for reject in scan.left_out)]
        captions = read_captions(scene_id, folder, known)

        def load(frame_id: str) -> Frame:
            frame = self.load(scan, frame_id)
            frame.captions = captions.views.get(frame_id, [])
            return turned(frame, scan.turns.get(frame_id, 0))

        frames = LazyFrames(scan.frame_ids, load)
        return SceneFrames(
            scene_id,
            self.source,
            frames,
            captions.scene,
            scan.depth_scale,
            scan.left_out,
            scan.warnings,
            captions.rejects,
            scan.transform,
        )
