"""Readers whose recordings state all poses at once: what they share.

A layout says which file marks a scan and gives the frames of one (`PosedReader.recording`); finding scans,
the world's up direction, pictures on their side and decoding are here. A frame that lacks something is a row
of `left_out`, with the reason.

    class MyReader(PosedReader[MyConfig]):
        source = "mine"
        markers = ("poses.txt",)
        known_up = Z_UP

        def recording(self, scene_id: str, folder: Path) -> Posed:
            scan = Posed(folder, scene_id=scene_id, camera=Camera(intrinsics, (480, 640)))
            scan.keep("000", pose, folder / "000.png", folder / "000.jpg")
            return scan

Legend: h w pixels.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import ClassVar, TypeVar

import numpy as np

from poma3d.geometry import rotation_to_z_up, same_view
from poma3d.scenes.config import PosedConfig, refuse_intrinsics
from poma3d.scenes.files import listed, read_depth, rigid
from poma3d.scenes.frame import BadFrame, ColourCamera, Frame, Reject
from poma3d.scenes.marks import Mark
from poma3d.scenes.scan_captions import CAPTIONS_FILE
from poma3d.scenes.scans import Scan, ScanReader, estimated_up, upright

Z_UP = (0.0, 0.0, 1.0)
CAPTIONS = Mark("captions", (CAPTIONS_FILE,), needed=False)
CAMERA_FILE_ERRORS = (
    OSError,
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    ArithmeticError,
    RecursionError,
)
"""What reading numbers from a JSON file raises, where it is missing, damaged or something else."""
NO_DEPTH, NO_POSE, NO_COLOUR = "no depth", "no pose", "no colour"
"""Reasons of frames that are left out, because the recording has nothing of the kind for them."""


@dataclass(frozen=True)
class Camera:
    """A pinhole camera for pictures of one size."""

    intrinsics: np.ndarray
    """float64 [4]: fx, fy, cx, cy in pixels; a pixel's centre has integer coordinates."""
    size: tuple[int, int] | None = None
    """(h, w) that they are for; None: that of the depth maps."""

    def at(self, hw: tuple[int, int]) -> np.ndarray:
        """Intrinsics [4] for depth maps of a size that show what the stated size shows.

        Raises:
            BadFrame: another aspect, which cannot show the same.
        """
        if self.size is None or self.size == hw:
            return self.intrinsics
        if not same_view(self.size, hw, None):
            raise BadFrame(
                "wrong shape", f"the camera is for {list(self.size)}, the depth map is {list(hw)} [h, w]"
            )
        down, across = hw[0] / self.size[0], hw[1] / self.size[1]
        fx, fy, cx, cy = self.intrinsics
        return np.array([fx * across, fy * down, (cx + 0.5) * across - 0.5, (cy + 0.5) * down - 0.5])


@dataclass(frozen=True)
class Posed(Scan):
    """A scan whose poses and cameras are known before any frame is decoded."""

    frame_ids: list[str] = field(default_factory=list)
    transform: np.ndarray = field(default_factory=lambda: np.eye(3))
    scene_id: str = ""
    camera: Camera | None = None
    """Of the depth maps; None where each frame has its own."""
    cameras: dict[str, Camera] = field(default_factory=dict)
    colour_camera: ColourCamera | None = None
    poses: dict[str, np.ndarray] = field(default_factory=dict)
    """float64 [3, 4] camera -> world of the recording, by frame id."""
    depths: dict[str, Path] = field(default_factory=dict)
    colours: dict[str, Path] = field(default_factory=dict)
    up: tuple[float, float, float] | None = None
    """Up direction of the recording's world, where the scan itself says so."""

    def keep(
        self, frame_id: str, pose: np.ndarray, depth: Path | None = None, colour: Path | None = None
    ) -> None:
        """Add a frame with its pose [3 or 4, 4], or leave it out where that is no rigid motion.

        Ids are unique: a second frame of the same is left out, too. A reader that decodes frames itself names
        no files.
        """
        try:
            if frame_id in self.poses:
                raise BadFrame("named twice", f"frame {frame_id} is there already")
            if not np.isfinite(pose).all():
                raise BadFrame("non-finite pose", str(np.asarray(pose)[0].tolist()))
            self.poses[frame_id] = rigid(pose)
        except BadFrame as bad:
            self.leave_out(frame_id, bad.reason, bad.value)
            return
        self.frame_ids.append(frame_id)
        if depth is not None:
            self.depths[frame_id] = depth
        if colour is not None:
            self.colours[frame_id] = colour

    def leave_out(self, frame_id: str, reason: str, value: str = "") -> None:
        """Note a frame that cannot be used."""
        self.left_out.append(Reject(self.scene_id, frame_id, reason, value))


def _world_pose(scan: Posed, frame_id: str) -> np.ndarray:
    pose: np.ndarray = scan.transform @ scan.poses[frame_id]
    return pose


P = TypeVar("P", bound=PosedConfig)


class PosedReader(ScanReader[P, Posed]):
    """`ScanReader` of a layout that states all poses; a layout adds `recording`."""

    markers: ClassVar[tuple[str, ...]] = ()
    """Globs relative to a scan's folder; a file that matches one of them marks a scan."""
    known_up: ClassVar[tuple[float, float, float] | None] = None
    """Up direction of the layout's worlds; None: estimated for each scan."""

    def __init__(self, config: P) -> None:
        super().__init__(config)
        refuse_intrinsics(getattr(config, "intrinsics", None))

    @abstractmethod
    def recording(self, scene_id: str, folder: Path) -> Posed:
        """The frames of one scan, in their order, poses as recorded.

        Raises:
            ValueError: a file of the scan as a whole is missing or damaged.
        """

    def find(self, root: Path) -> list[str]:
        """Folders of scans relative to the root; the root's name if it is a scan itself."""
        if self._is_scan(root):
            return [root.resolve().name]
        found = {
            path.parents[marker.count("/")]
            for marker in self.markers
            for path in listed(root, f"**/{marker}")
        }
        found = {folder for folder in found if self.holds_scan(folder)}
        if not found:
            raise ValueError(
                f"{root}: no scan here: no file such as {' or '.join(self.markers)} at any depth"
            )
        return sorted(folder.relative_to(root).as_posix() for folder in found)

    def folder(self, scene_id: str) -> Path:
        """The root itself where it is the scan."""
        root = Path(self.config.root)
        return root if self._is_scan(root) else root / scene_id

    def open(self, scene_id: str, folder: Path) -> Posed:
        """One scan, its world to be turned z-up, its pictures upright."""
        scan = self.recording(scene_id, folder)
        if not scan.frame_ids:
            if not scan.left_out:
                raise ValueError(f"scene {scene_id}: no frames in {folder}")
            return scan
        up, warnings = self._up(scan)
        scan = replace(scan, transform=rotation_to_z_up(up), warnings=scan.warnings + warnings)
        return upright(scan, _world_pose) if self.config.upright else scan

    def load(self, scan: Posed, frame_id: str) -> Frame:
        """One frame."""
        depth = read_depth(scan.depths[frame_id], None)
        camera = scan.cameras.get(frame_id, scan.camera)
        if camera is None:
            raise BadFrame("no intrinsics")
        return Frame(
            frame_id=frame_id,
            depth=depth,
            intrinsics=camera.at((depth.shape[0], depth.shape[1])),
            pose=_world_pose(scan, frame_id),
            picture=scan.colours[frame_id],
            colour_camera=scan.colour_camera,
        )

    def holds_scan(self, folder: Path) -> bool:
        """Whether a folder with a marker is a scan, for markers whose name others use, too."""
        return True

    def _is_scan(self, folder: Path) -> bool:
        return any(listed(folder, marker) for marker in self.markers) and self.holds_scan(folder)

    def _up(self, scan: Posed) -> tuple[np.ndarray, list[str]]:
        """Up in the recording's world: of the config, the layout, or the floors; and what is doubtful."""
        for given in (self.config.up, scan.up, self.known_up):
            if given is not None:
                return np.asarray(given, np.float64), []
        return estimated_up(scan.scene_id, self.source, scan, self.load)
