"""Replica as rendered for SLAM (iMAP, NICE-SLAM and what followed), one folder per trajectory:

    <scan>/traj.txt                     a line a frame: 4 x 4 camera -> world, row by row, y down, z ahead
    <scan>/results/depth000000.png      16-bit, `scale` units a metre (6553.5)
    <scan>/results/frame000000.jpg      the same view
    cam_params.json                     {"camera": {w, h, fx, fy, cx, cy, scale}}, one folder above or here

Line k of traj.txt, counted from 0, is the frame of number k. The world is Replica's, z up.

Sources: src/utils/datasets.py and configs/Replica/replica.yaml of cvg/nice-slam (which flips these axes to
OpenGL's for itself), scripts/download_replica.sh there.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from poma3d.scenes.config import ReplicaConfig
from poma3d.scenes.files import first_there, listed
from poma3d.scenes.marks import Mark
from poma3d.scenes.posed.reader import (
    CAMERA_FILE_ERRORS,
    CAPTIONS,
    NO_DEPTH,
    NO_POSE,
    Z_UP,
    Camera,
    Posed,
    PosedReader,
)
from poma3d.scenes.posed.trajectories import read_rows
from poma3d.scenes.text_files import read_text

SOURCE = "replica"
POSES, CAMERA_FILE, RESULTS = "traj.txt", "cam_params.json", "results"
UNITS_PER_METRE = 6553.5
"""Where the camera's file does not say: 10 m are 65535."""


class ReplicaReader(PosedReader[ReplicaConfig]):
    """Reads Replica as rendered for SLAM."""

    source = SOURCE
    above = (CAMERA_FILE,)
    title = "Replica as rendered for SLAM"
    markers = (POSES,)
    marks = (
        Mark("poses", (POSES,)),
        Mark("depth", (f"{RESULTS}/depth*.png",)),
        Mark("colour", (f"{RESULTS}/frame*.jpg", f"{RESULTS}/frame*.png")),
        Mark(
            "intrinsics",
            (f"../{CAMERA_FILE}", CAMERA_FILE),
            instead="intrinsics",
            advice="[600, 600, 599.5, 339.5] for the published renders",
        ),
        CAPTIONS,
    )
    known_up = Z_UP

    def recording(self, scene_id: str, folder: Path) -> Posed:
        """Depth maps with the pose of their number."""
        camera, units = self._camera(scene_id, folder)
        poses = read_rows(folder / POSES)
        scan = Posed(folder, scene_id=scene_id, camera=camera, depth_scale=1 / units)
        depths: dict[int, Path] = {}
        for path in listed(folder, f"{RESULTS}/depth*.png"):
            digits = path.stem.removeprefix("depth")
            if not digits.isdecimal():
                raise ValueError(f"{path}: expected a name such as depth000000.png")
            depths[int(digits)] = path
        for number, depth in sorted(depths.items()):
            frame_id = depth.stem.removeprefix("depth")
            if number < len(poses):
                scan.keep(frame_id, poses[number], depth, _picture(depth.parent, frame_id))
            else:
                scan.leave_out(frame_id, NO_POSE, f"{POSES} has {len(poses)} lines")
        for number in sorted(set(range(len(poses))) - set(depths)):
            scan.leave_out(f"{number:06d}", NO_DEPTH, f"{POSES} has a line for it")
        return scan

    def _camera(self, scene_id: str, folder: Path) -> tuple[Camera, float]:
        """Camera and units a metre, of the config or of a file in the folder above the scan's, or in that."""
        places = (folder.resolve().parent, folder)
        path = next((place / CAMERA_FILE for place in places if (place / CAMERA_FILE).is_file()), None)
        camera, units = read_camera(path) if path is not None else (None, UNITS_PER_METRE)
        if self.config.intrinsics is not None:
            camera = Camera(np.asarray(self.config.intrinsics, np.float64))
        if camera is None:
            raise ValueError(
                f"scene {scene_id}: no {CAMERA_FILE} above {folder} or in it: set "
                "reader.replica.intrinsics=[fx, fy, cx, cy]"
            )
        return camera, units


def read_camera(path: Path) -> tuple[Camera, float]:
    """The camera, and units of depth a metre.

    Raises:
        ValueError: it is something else.
    """
    try:
        values = json.loads(read_text(path))["camera"]
        intrinsics = np.array([float(values[key]) for key in ("fx", "fy", "cx", "cy")])
        size = (int(values["h"]), int(values["w"]))
        units = float(values.get("scale", UNITS_PER_METRE))
        if not 0 < units < np.inf or min(size) < 1:
            raise ValueError(f"scale {units}, w {size[1]} and h {size[0]} must be above 0")
    except CAMERA_FILE_ERRORS as error:
        found = f"{type(error).__name__}: {error}"
        raise ValueError(
            f'{path}: expected {{"camera": {{w, h, fx, fy, cx, cy, scale}}}} ({found})'
        ) from error
    return Camera(intrinsics, size), units


def _picture(folder: Path, frame_id: str) -> Path:
    """The frame's colour file, or where it should be."""
    return first_there(folder, (f"frame{frame_id}{suffix}" for suffix in (".jpg", ".png")))
