"""ARKitScenes as released (raw or 3DOD), one folder per video:

    lowres_depth/<video>_<time>.png                16-bit, millimetres, 256 x 192
    lowres_wide/<video>_<time>.png                 colour on the same grid
    lowres_wide_intrinsics/<video>_<time>.pincam   width height fx fy cx cy
    lowres_wide.traj                               time, axis-angle (3), translation (3): world -> camera

or in the first release of 3DOD (`<video>_frames`), whose times have four to eight digits:

    depth_densified/<time>.png   wide/<time>.png   color_intrinsics/<time>.pincam   color.traj

Poses are fewer than pictures: a frame is a depth map with a pose and intrinsics of its time, and every other
depth map is a row of the rejects. One tolerance holds for all of them, colour too. Sources: DATA.md and
threedod/README.md of apple/ARKitScenes at 42a27f7 (first release) and 2140a5b. The trajectory is world to
camera and is inverted here; the world is metric with z up. Phones and tablets were held every way round, and
turned in mid-video; pictures are turned upright, each by its own pose. `captions.json` is optional, with the
depth files' stems as ids.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from poma3d.geometry import scale_intrinsics
from poma3d.scenes.config import ArkitScenesConfig
from poma3d.scenes.files import listed, read_depth
from poma3d.scenes.frame import BadFrame, Frame, Reject
from poma3d.scenes.marks import Mark
from poma3d.scenes.scan_captions import CAPTIONS_FILE
from poma3d.scenes.scans import Scan, ScanReader, upright
from poma3d.scenes.text_files import floats, read_lines, read_text

SOURCE = "arkitscenes"
SAME_TIME_S = 0.005
"""What lies this close is of one moment: names of files are cut to milliseconds and some are one beside, the
trajectory has more digits; pictures come every 16 ms at most."""
TRAJECTORY_COLUMNS, PINCAM_NUMBERS = 7, 6
SMALL_ANGLE = 1e-12
SAME_ASPECT = 0.01
"""Aspects that differ by more than this are of two views: a camera cannot be scaled from one to the other."""


@dataclass(frozen=True)
class Names:
    """Where a release keeps what, in a video's folder."""

    depth: str
    colour: str
    intrinsics: str
    trajectory: str


RELEASES = (
    Names("lowres_depth", "lowres_wide", "lowres_wide_intrinsics", "lowres_wide.traj"),
    Names("depth_densified", "wide", "color_intrinsics", "color.traj"),
)
"""The present one, and the first of 3DOD."""


@dataclass(frozen=True)
class Video(Scan):
    """A video: every frame has a pose and a camera of its own."""

    poses: dict[str, np.ndarray] = field(default_factory=dict)
    cameras: dict[str, Path] = field(default_factory=dict)
    depths: dict[str, Path] = field(default_factory=dict)
    colours: dict[str, Path] = field(default_factory=dict)


class ArkitScenesReader(ScanReader[ArkitScenesConfig, Video]):
    """Reads ARKitScenes."""

    source = SOURCE
    title = "ARKitScenes, raw or 3DOD"
    marks = (
        Mark("trajectory", tuple(names.trajectory for names in RELEASES)),
        Mark("depth", tuple(f"{names.depth}/*.png" for names in RELEASES)),
        Mark("colour", (*(f"{names.colour}/*.png" for names in RELEASES), "vga_wide/*.png")),
        Mark("intrinsics", tuple(f"{names.intrinsics}/*.pincam" for names in RELEASES)),
        Mark("captions", (CAPTIONS_FILE,), needed=False),
    )

    def find(self, root: Path) -> list[str]:
        """Folders of videos relative to the root; the root's name if it is one itself."""
        if _release(root) is not None:
            return [root.resolve().name]
        found = {path.parent for names in RELEASES for path in listed(root, f"**/{names.trajectory}")}
        if not found:
            files = " or ".join(names.trajectory for names in RELEASES)
            raise ValueError(f"{root}: no video here: no file named {files} at any depth")
        return sorted(folder.relative_to(root).as_posix() for folder in found)

    def folder(self, scene_id: str) -> Path:
        """The root itself where it is the video."""
        root = Path(self.config.root)
        return root if _release(root) is not None else root / scene_id

    def open(self, scene_id: str, folder: Path) -> Video:
        """One video: the depth files that have a pose and a camera of their time."""
        names = _release(folder) or RELEASES[0]
        times, poses = read_trajectory(folder / names.trajectory)
        colour_folder = folder / (names.colour if names != RELEASES[0] else self.config.colour)
        cameras = _Timed(listed(folder / names.intrinsics, "*.pincam"))
        colours = _Timed(listed(colour_folder, "*.png"))
        video = Video(folder, [], np.eye(3))
        for time_s, path in sorted((_time(path), path) for path in listed(folder / names.depth, "*.png")):
            pose, apart = _nearest(times, time_s)
            camera = cameras.at(time_s)
            if apart > SAME_TIME_S:
                video.left_out.append(_without("pose", scene_id, path, apart))
            elif camera[1] > SAME_TIME_S:
                video.left_out.append(_without("intrinsics", scene_id, path, camera[1]))
            else:
                colour, colour_apart = colours.at(time_s)
                video.frame_ids.append(path.stem)
                video.depths[path.stem] = path
                video.poses[path.stem] = poses[pose]
                video.cameras[path.stem] = camera[0]
                video.colours[path.stem] = (
                    colour if colour_apart <= SAME_TIME_S else colour_folder / path.name
                )
        if not video.frame_ids:
            raise ValueError(
                f"scene {scene_id}: none of the {len(video.left_out)} files in {folder / names.depth} has a "
                f"pose in {names.trajectory} and a file in {names.intrinsics} of its time"
            )
        return upright(video, lambda scan, frame_id: scan.poses[frame_id]) if self.config.upright else video

    def load(self, scan: Video, frame_id: str) -> Frame:
        """One frame."""
        depth = read_depth(scan.depths[frame_id], None)
        return Frame(
            frame_id=frame_id,
            depth=depth,
            intrinsics=_intrinsics(scan.cameras[frame_id], depth.shape),
            pose=scan.poses[frame_id],
            picture=scan.colours[frame_id],
        )


def read_trajectory(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Times float64 [n] in seconds, rising, and poses float64 [n, 3, 4] camera -> world.

    Raises:
        ValueError: no such file, or a line that is not seven numbers; it names the line.
    """
    try:
        lines = read_lines(path)
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: no trajectory ({error})") from error
    rows = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            rows.append(np.array(floats(line)))
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


def _nearest(times: np.ndarray, time_s: float) -> tuple[int, float]:
    """Index of the entry nearest in time, and how far away it is in seconds: inf where there is none."""
    if len(times) == 0 or not np.isfinite(time_s):
        return 0, float("inf")
    after = int(np.searchsorted(times, time_s))
    best = min((i for i in (after - 1, after) if 0 <= i < len(times)), key=lambda i: abs(times[i] - time_s))
    return best, float(abs(times[best] - time_s))


class _Timed:
    """Files by the times in their names."""

    def __init__(self, paths: Sequence[Path]) -> None:
        pairs = sorted((_time(path), path) for path in paths)
        self.paths = [path for _, path in pairs]
        self.times = np.array([time_s for time_s, _ in pairs])

    def at(self, time_s: float) -> tuple[Path, float]:
        """The file nearest in time, and how far away it is in seconds."""
        best, apart = _nearest(self.times, time_s)
        return (self.paths[best] if self.paths else Path()), apart


def _without(what: str, scene_id: str, depth: Path, apart: float) -> Reject:
    nearest = f"the nearest is {apart:.3f} s away" if np.isfinite(apart) else "there is none"
    return Reject(scene_id, depth.stem, f"no {what} of its time", f"{nearest}, at most {SAME_TIME_S} s count")


def _release(folder: Path) -> Names | None:
    """The names of the release that a video's folder is of; None for a folder that is none."""
    return next((names for names in RELEASES if (folder / names.trajectory).is_file()), None)


def _intrinsics(path: Path, size: tuple[int, ...]) -> np.ndarray:
    """fx, fy, cx, cy float64 [4] on the grid of the depth map, or BadFrame."""
    try:
        width, height, *camera = floats(read_text(path))
    except (OSError, ValueError) as error:
        raise BadFrame("no intrinsics", f"{path.name}: {error}") from error
    if len(camera) != PINCAM_NUMBERS - 2:
        raise BadFrame("no intrinsics", f"{path.name}: {len(camera) + 2} numbers, expected {PINCAM_NUMBERS}")
    grid = (int(height), int(width))
    if min(grid) < 1 or abs(width * size[0] / (height * size[1]) - 1) > SAME_ASPECT:
        raise BadFrame("wrong shape", f"{path.name} is for {list(grid)}, the depth map is {list(size)}")
    return np.array(camera) if grid == size else scale_intrinsics(np.array(camera), grid, (size[0], size[1]))
