"""ARKitScenes as released (raw or 3DOD), one folder per video:

    lowres_depth/<video>_<time>.png                16-bit, millimetres, 256 x 192
    lowres_wide/<video>_<time>.png                 colour on the same grid
    lowres_wide_intrinsics/<video>_<time>.pincam   width height fx fy cx cy
    lowres_wide.traj                               time, axis-angle (3), translation (3): world -> camera

Poses are fewer than pictures: a frame is a depth map with a pose and intrinsics of its time. The trajectory
is world to camera and is inverted here; the world is metric with z up. Phones and tablets were held every
way round; pictures are turned upright. `captions.json` is optional, with the depth files' stems as ids.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from poma3d.geometry import scale_intrinsics
from poma3d.scenes.config import ArkitScenesConfig
from poma3d.scenes.files import CAPTIONS_FILE, listed, read_depth
from poma3d.scenes.frame import BadFrame, Frame
from poma3d.scenes.marks import Mark
from poma3d.scenes.orientation import quarter_turns
from poma3d.scenes.scans import Scan, ScanReader

SOURCE = "arkitscenes"
DEPTH, INTRINSICS, TRAJECTORY = "lowres_depth", "lowres_wide_intrinsics", "lowres_wide.traj"
SAME_TIME_S = 0.005
"""Names of files carry milliseconds, the trajectory more: what lies this close is of one moment."""
TRAJECTORY_COLUMNS, PINCAM_NUMBERS = 7, 6
SMALL_ANGLE = 1e-12


@dataclass(frozen=True)
class Video(Scan):
    """A video: every frame has a pose and a camera of its own."""

    poses: dict[str, np.ndarray] = field(default_factory=dict)
    cameras: dict[str, Path] = field(default_factory=dict)


class ArkitScenesReader(ScanReader[ArkitScenesConfig, Video]):
    """Reads ARKitScenes."""

    source = SOURCE
    title = "ARKitScenes, raw or 3DOD"
    marks = (
        Mark("trajectory", (TRAJECTORY,)),
        Mark("depth", (f"{DEPTH}/*.png",)),
        Mark("colour", ("lowres_wide/*.png", "vga_wide/*.png")),
        Mark("intrinsics", (f"{INTRINSICS}/*.pincam",)),
        Mark("captions", (CAPTIONS_FILE,), needed=False),
    )

    def find(self, root: Path) -> list[str]:
        """Folders of videos relative to the root; the root's name if it is one itself."""
        if (root / TRAJECTORY).is_file():
            return [root.resolve().name]
        found = sorted(path.parent.relative_to(root).as_posix() for path in listed(root, f"**/{TRAJECTORY}"))
        if not found:
            raise ValueError(f"{root}: no video here: no file named {TRAJECTORY} at any depth")
        return found

    def folder(self, scene_id: str) -> Path:
        """The root itself where it is the video."""
        root = Path(self.config.root)
        return root if (root / TRAJECTORY).is_file() else root / scene_id

    def open(self, scene_id: str, folder: Path) -> Video:
        """One video: the depth files that have a pose and a camera of their time."""
        times, poses = read_trajectory(folder / TRAJECTORY)
        depth = {path.stem: _time(path) for path in listed(folder / DEPTH, "*.png")}
        pincams = {_time(path): path for path in listed(folder / INTRINSICS, "*.pincam")}
        camera_times = np.array(sorted(pincams))
        posed, cameras = {}, {}
        for stem, time_s in sorted(depth.items(), key=lambda item: item[1]):
            pose, camera = _nearest(times, time_s), _nearest(camera_times, time_s)
            if pose is not None and camera is not None:
                posed[stem] = poses[pose]
                cameras[stem] = pincams[float(camera_times[camera])]
        if not posed:
            raise ValueError(
                f"scene {scene_id}: none of the {len(depth)} files in {folder / DEPTH} has a pose in "
                f"{TRAJECTORY} and a file in {INTRINSICS} of its time"
            )
        turns = quarter_turns(posed.values()) if self.config.upright else 0
        return Video(folder, list(posed), np.eye(3), turns=turns, poses=posed, cameras=cameras)

    def load(self, scan: Video, frame_id: str) -> Frame:
        """One frame."""
        depth = read_depth(scan.folder / DEPTH / f"{frame_id}.png", None)
        return Frame(
            frame_id=frame_id,
            depth=depth,
            intrinsics=_intrinsics(scan.cameras[frame_id], depth.shape),
            pose=scan.poses[frame_id],
            picture=scan.folder / self.config.colour / f"{frame_id}.png",
        )


def read_trajectory(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Times float64 [n] in seconds, rising, and poses float64 [n, 3, 4] camera -> world.

    Raises:
        ValueError: no such file, or a line that is not seven numbers; it names the line.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: no trajectory ({error})") from error
    rows = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            rows.append(np.array(line.split(), np.float64))
        except ValueError as error:
            raise ValueError(f"{path}, line {number}: not numbers ({error})") from error
        if len(rows[-1]) != TRAJECTORY_COLUMNS:
            raise ValueError(f"{path}, line {number}: {len(rows[-1])} numbers, expected {TRAJECTORY_COLUMNS}")
    if not rows:
        raise ValueError(f"{path}: an empty trajectory")
    table = np.stack(rows)
    table = table[np.argsort(table[:, 0], kind="stable")]
    poses = np.empty((len(table), 3, 4))
    for pose, row in zip(poses, table, strict=True):
        to_camera = axis_angle_rotation(row[1:4])
        pose[:, :3] = to_camera.T
        pose[:, 3] = -to_camera.T @ row[4:]
    return table[:, 0], poses


def axis_angle_rotation(axis_angle: np.ndarray) -> np.ndarray:
    """Rotation [3, 3] about the vector by its length in radians."""
    angle = float(np.linalg.norm(axis_angle))
    if angle < SMALL_ANGLE:
        return np.eye(3)
    x, y, z = axis_angle / angle
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    return np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross


def _time(path: Path) -> float:
    """Seconds in a name such as 41048190_3419.282.png; -inf where there are none."""
    try:
        return float(path.stem.rpartition("_")[2])
    except ValueError:
        return float("-inf")


def _nearest(times: np.ndarray, time_s: float) -> int | None:
    """Index of the entry of the same moment; None where there is none."""
    if len(times) == 0:
        return None
    after = int(np.searchsorted(times, time_s))
    best = min((i for i in (after - 1, after) if 0 <= i < len(times)), key=lambda i: abs(times[i] - time_s))
    return best if abs(times[best] - time_s) <= SAME_TIME_S else None


def _intrinsics(path: Path, size: tuple[int, ...]) -> np.ndarray:
    """fx, fy, cx, cy float64 [4] on the grid of the depth map, or BadFrame."""
    try:
        width, height, *camera = np.array(path.read_text(encoding="utf-8").split(), np.float64)
    except (OSError, ValueError) as error:
        raise BadFrame("no intrinsics", f"{path.name}: {error}") from error
    if len(camera) != PINCAM_NUMBERS - 2:
        raise BadFrame("no intrinsics", f"{path.name}: {len(camera) + 2} numbers, expected {PINCAM_NUMBERS}")
    grid = (int(height), int(width))
    return np.array(camera) if grid == size else scale_intrinsics(np.array(camera), grid, (size[0], size[1]))
