"""What a reader of scenes yields.

A scene is a sequence of posed RGB-D frames. Frames of real scans are decoded when they are asked for
(`LazyFrames`), so a scan of thousands of frames costs nothing to open, and a frame that cannot be
used raises `BadFrame` at that moment, which `poma3d.scenes.views` turns into a `Reject`.

Legend: h w pixels of the source's depth grid (not yet the sample's).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, overload, runtime_checkable

import numpy as np

from poma3d.picture_files import UnreadablePicture, decode_picture
from poma3d.sample import MILLIMETRE, Classes


class BadFrame(Exception):
    """A frame that cannot be used: `reason` in a few fixed words, `value` what was found."""

    def __init__(self, reason: str, value: str = "") -> None:
        super().__init__(f"{reason}: {value}" if value else reason)
        self.reason = reason
        self.value = value


EMPTY_CAPTION, CAPTION_OF_NO_FRAME = CAPTION_REASONS = ("empty caption", "caption of no frame")
"""Reasons for leaving out a caption, while its frame stays."""
NO_CAMERA = np.ones(4), np.eye(4)[:3]
"""Intrinsics and pose that stand where a source has none."""


@dataclass(frozen=True)
class ColourCamera:
    """The camera that took the pictures, where it is not the depth's."""

    intrinsics: np.ndarray
    """float64 [4]: fx, fy, cx, cy in pixels of the picture as it is stored, at `size`."""
    size: tuple[int, int]
    """(h, w) of the pictures that the intrinsics are for; pictures of the same aspect are scaled."""
    from_depth: np.ndarray = field(default_factory=lambda: np.eye(4)[:3])
    """float64 [3, 4]: rigid motion from the depth camera's axes to this camera's, metres; the identity where
    both cameras are in one place."""


@dataclass
class Frame:
    """One posed RGB-D frame."""

    frame_id: str
    """Unique within its scene."""
    depth: np.ndarray
    """uint16 [h, w] along the optical axis, in the scene's `depth_scale`; 0 = none."""
    intrinsics: np.ndarray
    """float64 [4]: fx, fy, cx, cy in pixels of `depth`; a pixel's centre has integer coordinates."""
    pose: np.ndarray
    """float64 [3, 4] camera -> world, metres, world z-up."""
    picture: np.ndarray | Path | bytes | None = None
    """Colour: uint8 [any, any, 3], or the file that holds it, or that file's bytes. It shows what `depth`
    shows, in any resolution, unless it has a `colour_camera`."""
    captions: list[str] = field(default_factory=list)
    """What the view shows, the most complete caption first."""
    points: np.ndarray | None = None
    """float16 [h, w, 3] world coordinates in metres, (0, 0, 0) = none, of sources that have no camera: depth
    is then 1 where there is a point, and intrinsics and pose are `NO_CAMERA`'s."""
    picture_turns: int = 0
    """Quarter turns anticlockwise that bring `picture` to the way up of `depth`; 0 with a `colour_camera`,
    which says that itself."""
    turns: int = 0
    """Quarter turns anticlockwise that `depth` has made since it was stored."""
    colour_camera: ColourCamera | None = None
    """The camera of `picture`, from which `poma3d.scenes.colour` draws what `depth` shows; None: colour is
    registered to depth already."""

    def colour(self) -> np.ndarray | None:
        """uint8 [any, any, 3], decoded now; None when the frame has none. EXIF's orientation does not count:
        the recording's camera and pose say which way up a picture is.

        Raises:
            BadFrame: the file cannot be read.
        """
        pixels = self.picture
        if isinstance(pixels, Path | bytes):
            try:
                pixels = decode_picture(pixels, as_stored=True)
            except (OSError, UnreadablePicture) as error:
                name = pixels.name if isinstance(pixels, Path) else f"frame {self.frame_id}"
                raise BadFrame("unreadable colour", f"{name}: {error}") from error
        return np.ascontiguousarray(np.rot90(pixels, self.picture_turns)) if pixels is not None else None


class LazyFrames(Sequence[Frame]):
    """Frames that are decoded each time they are asked for; slices decode nothing."""

    def __init__(self, frame_ids: Sequence[str], load: Callable[[str], Frame]) -> None:
        self.frame_ids = list(frame_ids)
        self._load = load

    def __len__(self) -> int:
        return len(self.frame_ids)

    @overload
    def __getitem__(self, index: int) -> Frame: ...
    @overload
    def __getitem__(self, index: slice) -> LazyFrames: ...
    def __getitem__(self, index: int | slice) -> Frame | LazyFrames:
        """The frame, or a lazy slice.

        Raises:
            BadFrame: the frame cannot be used.
        """
        if isinstance(index, slice):
            return LazyFrames(self.frame_ids[index], self._load)
        return self._load(self.frame_ids[index])


@dataclass
class SceneFrames:
    """One scene as a reader gives it."""

    scene_id: str
    source: str
    """Kind of source, as stored in the sample."""
    frames: Sequence[Frame]
    """In the order of the recording."""
    captions: list[str] = field(default_factory=list)
    """What the scene holds, the most complete caption first."""
    depth_scale: float = MILLIMETRE
    """Metres per unit of the frames' depth."""
    left_out: list[Reject] = field(default_factory=list)
    """Frames of the recording that are not among `frames`, because something that they need is missing."""
    warnings: list[str] = field(default_factory=list)
    """What is doubtful about the scene as a whole, in words that all scenes with it share."""
    caption_rejects: list[Reject] = field(default_factory=list)
    """Captions that were left out, with one of `CAPTION_REASONS`."""
    world: np.ndarray | None = None
    """Rotation [3, 3] or rigid motion [4, 4] from the recording's world to that of the poses; None: the same.
    """
    is_rendered: bool = False
    """Drawn with the cameras that it names: its views need not be compared to find a wrong one."""

    def frame_id(self, place: int) -> str:
        """Id of a frame, without decoding it where frames are lazy."""
        if isinstance(self.frames, LazyFrames):
            return self.frames.frame_ids[place]
        return self.frames[place].frame_id


@dataclass(frozen=True)
class Reject:
    """A frame that was left out, or a caption (`CAPTION_REASONS`), and why."""

    scene_id: str
    frame_id: str
    reason: str
    value: str


@runtime_checkable
class NamesInputs(Protocol):
    """A reader that knows which files a scene is read from: changes of them are noticed after a build."""

    def inputs(self, scene_id: str) -> list[Path]:
        """Files, and folders of which everything counts."""


@runtime_checkable
class NamesClasses(Protocol):
    """A reader that knows which classes its captions name; the manifest keeps them for the linear probe."""

    def classes(self) -> Classes:
        """Each class with the words that name it."""


class Reader(Protocol):
    """A source of scenes, constructed from its config. Cheap to construct: every task makes one.

    A reader whose frames have `points` in place of cameras says so with the attribute `stores_points = True`.
    """

    def scene_ids(self) -> list[str]:
        """All scenes, in a fixed order."""

    def read(self, scene_id: str) -> SceneFrames:
        """One scene.

        Raises:
            ValueError: no such scene, or nothing in it that could be a frame.
        """
