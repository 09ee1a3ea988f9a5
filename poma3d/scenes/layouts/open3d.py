"""Recordings of Open3D and of the Redwood data sets, one folder each:

    trajectory.log           five lines a frame: three numbers, of which the first counts the frames from 0,
                             then 4 x 4 camera -> world, row by row; or in scene/, where Open3D's
                             reconstruction writes it
    depth/*.png              16-bit, 1000 units a metre; or depth_*.png beside trajectory.log
    color|image|rgb/*.jpg    registered to depth; or color_*.jpg beside trajectory.log; PNG, too
    camera_primesense.json   width, height and intrinsic_matrix, nine numbers **column by column**; also named
                             camera_intrinsic.json or intrinsic.json, here or one folder above

Depth and colour belong together by the first number in their names (Redwood's have a time after it). The k-th
entry of the trajectory is the file of number k, or k + 1 where files count from 1; where numbers are times,
the k-th file, if there are as many. Nothing says which way is up: worlds are those of the first camera, or of
another program; up is estimated, or `up`.

Sources: cpp/open3d/io/file_format/FileLOG.cpp and FileJSON's PinholeCameraIntrinsic of isl-org/Open3D, whose
PrimeSense default is `camera: primesense`; redwood-data.org/indoor/fileformat.html.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np

from poma3d.scenes.config import Open3dConfig, refuse_camera, refuse_units
from poma3d.scenes.files import listed
from poma3d.scenes.marks import Mark
from poma3d.scenes.posed.reader import (
    CAMERA_FILE_ERRORS,
    CAPTIONS,
    NO_COLOUR,
    NO_DEPTH,
    NO_POSE,
    Camera,
    Posed,
    PosedReader,
)
from poma3d.scenes.posed.trajectories import read_log
from poma3d.scenes.text_files import read_text

SOURCE = "open3d"
POSES, SCENE = "trajectory.log", "scene"
CAMERA_FILES = ("camera_primesense.json", "camera_intrinsic.json", "intrinsic.json")
DEPTHS = ("depth/*.png", "depth_*.png")
COLOURS = tuple(
    f"{name}{suffix}" for name in ("color/*", "image/*", "rgb/*", "color_*") for suffix in (".jpg", ".png")
)
CAMERAS = {"primesense": Camera(np.array([525.0, 525.0, 319.5, 239.5]), (480, 640))}
"""Known cameras by name."""
MATRIX_NUMBERS = 9


class Open3dReader(PosedReader[Open3dConfig]):
    """Reads recordings of Open3D and Redwood."""

    source = SOURCE
    above = CAMERA_FILES
    title = "Open3D or Redwood, with a trajectory.log"
    markers = (POSES, f"{SCENE}/{POSES}")
    marks = (
        Mark("poses", (POSES, f"{SCENE}/{POSES}")),
        Mark("depth", DEPTHS),
        Mark("colour", COLOURS),
        Mark(
            "intrinsics",
            (*CAMERA_FILES, *(f"../{name}" for name in CAMERA_FILES)),
            instead="camera",
            advice=f"{', '.join(CAMERAS)}; or give intrinsics",
        ),
        CAPTIONS,
    )

    def __init__(self, config: Open3dConfig) -> None:
        super().__init__(config)
        refuse_camera(config.camera, config.intrinsics, CAMERAS)
        refuse_units(config.units_per_metre, 1000)

    def holds_scan(self, folder: Path) -> bool:
        """A folder scene/ is a part of the recording above it."""
        return folder.resolve().name != SCENE or any(listed(folder, pattern) for pattern in DEPTHS)

    def recording(self, scene_id: str, folder: Path) -> Posed:
        """Depth maps with the pose and the picture of their number."""
        depths = _numbered(folder, DEPTHS)
        colours = _numbered(folder, COLOURS)
        here = folder / POSES
        poses = _by_number(here if here.is_file() else folder / SCENE / POSES, sorted(depths))
        scan = Posed(
            folder,
            scene_id=scene_id,
            camera=self._camera(scene_id, folder),
            depth_scale=1 / self.config.units_per_metre,
        )
        for number, depth in sorted(depths.items()):
            if number not in poses:
                scan.leave_out(depth.stem, NO_POSE, f"none of number {number} in {POSES}")
            elif number not in colours:
                scan.leave_out(depth.stem, NO_COLOUR, f"no picture of number {number}")
            else:
                scan.keep(depth.stem, poses[number], depth, colours[number])
        for number in sorted(set(poses) - set(depths)):
            scan.leave_out(str(number), NO_DEPTH, f"{POSES} has a pose of number {number}")
        return scan

    def _camera(self, scene_id: str, folder: Path) -> Camera:
        """Of the config, else of a file in the scan's folder or the one above it."""
        if self.config.intrinsics is not None:
            return Camera(np.asarray(self.config.intrinsics, np.float64))
        if self.config.camera is not None:
            return CAMERAS[self.config.camera]
        for place in (folder, folder.resolve().parent):
            for name in CAMERA_FILES:
                if (place / name).is_file():
                    return read_camera(place / name)
        raise ValueError(
            f"scene {scene_id}: no {', '.join(CAMERA_FILES)} in {folder} or above it: set "
            "reader.open3d.camera=primesense, or reader.open3d.intrinsics=[fx, fy, cx, cy]"
        )


def read_camera(path: Path) -> Camera:
    """The camera of Open3D's JSON file, whose matrix is stored column by column.

    Raises:
        ValueError: it is something else, or its matrix is stored row by row.
    """
    try:
        content = json.loads(read_text(path))
        matrix = np.array(content["intrinsic_matrix"], np.float64)
        size = (int(content["height"]), int(content["width"]))
        if matrix.size != MATRIX_NUMBERS:
            raise ValueError(f"intrinsic_matrix has {matrix.size} numbers, expected {MATRIX_NUMBERS}")
        if min(size) < 1:
            raise ValueError(f"height and width are {list(size)}")
    except CAMERA_FILE_ERRORS as error:
        raise ValueError(
            f"{path}: expected width, height and intrinsic_matrix ({type(error).__name__}: {error})"
        ) from error
    matrix = matrix.reshape(3, 3).T
    if np.abs(matrix[2, :2]).max() > 0:
        raise ValueError(f"{path}: intrinsic_matrix is stored row by row: Open3D stores it column by column")
    return Camera(np.array([matrix[0, 0], matrix[1, 1], matrix[0, 2], matrix[1, 2]]), size)


def _numbered(folder: Path, patterns: tuple[str, ...]) -> dict[int, Path]:
    """The files of the first pattern that matches any, by the first number in their names."""
    files = next((found for pattern in patterns if (found := listed(folder, pattern))), [])
    numbered: dict[int, Path] = {}
    for path in files:
        digits = re.search(r"\d+", path.stem)
        if digits is None:
            raise ValueError(f"{path}: no number in its name, which tells which pose it has")
        if int(digits[0]) in numbered:
            raise ValueError(f"{path} and {numbered[int(digits[0])].name} have one number: which is which?")
        numbered[int(digits[0])] = path
    return numbered


def _by_number(path: Path, numbers: list[int]) -> dict[int, np.ndarray]:
    """Poses [4, 4] by the number of the files that they belong to.

    Raises:
        ValueError: the trajectory is damaged, or does not say which file is which.
    """
    entries = read_log(path)
    poses = dict(entries)
    if len(poses) < len(entries):
        raise ValueError(f"{path}: {len(entries) - len(poses)} numbers of frames occur twice")
    last = max(poses, default=0)
    if not numbers or 0 in numbers or numbers[-1] <= last:
        return poses
    if numbers[-1] - numbers[0] < len(numbers) + len(poses):
        return {number + 1: pose for number, pose in poses.items()}
    if len(numbers) != len(poses):
        raise ValueError(
            f"{path}: {len(poses)} poses for {len(numbers)} files whose numbers are times: which is which?"
        )
    return dict(zip(numbers, (pose for _, pose in sorted(poses.items())), strict=True))
