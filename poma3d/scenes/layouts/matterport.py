"""Matterport3D, its undistorted pictures, one folder per house, archives unpacked:

    <house>/undistorted_camera_parameters/<house>.conf
        depth_directory undistorted_depth_images        color_directory undistorted_color_images
        intrinsics_matrix fx 0 cx 0 fy cy 0 0 1         of the scan lines that follow
        scan DEPTH COLOUR and 16 numbers                camera -> world, row by row
    <house>/undistorted_depth_images/*.png              16-bit, 4000 units a metre, along the optical axis
    <house>/undistorted_color_images/*.jpg              the same view

Cameras have OpenGL's axes (y up, z backwards), and principal points count from the picture's lower left: cy
is turned over with the height of the depth maps. One released camera has cy 509.202 here and 513.798 in
matterport_camera_intrinsics, which counts from the top: together 1023, the last row of 1024. The world is z
up. A house is one scan of many rooms, 18 views from each place: `views.chunk_frames=18` makes a sample of
every place.

Sources: data_organization.md of niessner/Matterport ("undistorted_camera_parameters"), public readers.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from poma3d.geometry import from_opengl
from poma3d.scenes.config import MatterportConfig
from poma3d.scenes.files import listed, usual_size
from poma3d.scenes.marks import Mark
from poma3d.scenes.posed.reader import CAPTIONS, Z_UP, Camera, Posed, PosedReader
from poma3d.scenes.posed.trajectories import lines_of, numbers_of

SOURCE = "matterport"
PARAMETERS = "undistorted_camera_parameters/*.conf"
FOLDERS = {"depth_directory": "undistorted_depth_images", "color_directory": "undistorted_color_images"}
"""Where the files lie when the .conf does not say."""
UNITS_PER_METRE = 4000.0
MATRIX_NUMBERS, POSE_NUMBERS, NAMES = 9, 16, 2


@dataclass
class Shot:
    """A scan line: names of the files, the intrinsics above it, and its pose."""

    depth: str
    colour: str
    intrinsics: np.ndarray
    """float64 [4]: fx, fy, cx, cy, the last from the lower edge."""
    pose: np.ndarray
    """float64 [4, 4] camera -> world, OpenGL's axes."""


@dataclass
class Parameters:
    """What a .conf holds."""

    folders: dict[str, str] = field(default_factory=lambda: dict(FOLDERS))
    shots: list[Shot] = field(default_factory=list)


class MatterportReader(PosedReader[MatterportConfig]):
    """Reads Matterport3D's undistorted pictures."""

    source = SOURCE
    title = "Matterport3D, undistorted"
    markers = (PARAMETERS,)
    marks = (
        Mark("cameras", (PARAMETERS,)),
        Mark("depth", (f"{FOLDERS['depth_directory']}/*.png",)),
        Mark("colour", (f"{FOLDERS['color_directory']}/*.jpg", f"{FOLDERS['color_directory']}/*.png")),
        CAPTIONS,
    )
    known_up = Z_UP

    def recording(self, scene_id: str, folder: Path) -> Posed:
        """The frames of the .conf, in its order."""
        files = listed(folder, PARAMETERS)
        if len(files) != 1:
            raise ValueError(f"scene {scene_id}: {len(files)} files {PARAMETERS} in {folder}, expected one")
        found = read_parameters(files[0])
        places = {key: folder / name for key, name in found.folders.items()}
        size = usual_size([places["depth_directory"] / shot.depth for shot in found.shots])
        if size is None:
            raise ValueError(
                f"scene {scene_id}: no depth map of {files[0].name} in {places['depth_directory']}"
            )
        scan = Posed(folder, scene_id=scene_id, depth_scale=1 / UNITS_PER_METRE)
        for shot in found.shots:
            frame_id = Path(shot.colour).stem
            fx, fy, cx, cy = shot.intrinsics
            scan.cameras.setdefault(frame_id, Camera(np.array([fx, fy, cx, size[0] - 1 - cy]), size))
            depth, colour = places["depth_directory"] / shot.depth, places["color_directory"] / shot.colour
            scan.keep(frame_id, from_opengl(shot.pose), depth, colour)
        return scan


def read_parameters(path: Path) -> Parameters:
    """The contents of a .conf.

    Raises:
        ValueError: a line that is not what it should be, or fewer scan lines than the file announces.
    """
    found, announced = Parameters(), None
    intrinsics: np.ndarray | None = None
    for number, line in lines_of(path):
        word, *rest = line.split()
        if word in FOLDERS and rest:
            found.folders[word] = rest[0]
        elif word == "n_images":
            announced = int(numbers_of(path, number, " ".join(rest), 1)[0])
        elif word == "intrinsics_matrix":
            matrix = numbers_of(path, number, " ".join(rest), MATRIX_NUMBERS)
            intrinsics = matrix[[0, 4, 2, 5]]
        elif word == "scan":
            pose = numbers_of(path, number, " ".join(rest[NAMES:]), POSE_NUMBERS).reshape(4, 4)
            if intrinsics is None:
                raise ValueError(f"{path}, line {number}: a scan line above the first intrinsics_matrix")
            found.shots.append(Shot(rest[0], rest[1], intrinsics, pose))
    if announced is not None and announced != len(found.shots):
        raise ValueError(f"{path}: {len(found.shots)} scan lines, n_images is {announced}: copy it again")
    return found
