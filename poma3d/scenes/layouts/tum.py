"""TUM RGB-D, one folder per sequence:

    rgb.txt, depth.txt    a line each: time, path            (rgb/1305031102.175304.png, depth/...png)
    groundtruth.txt       a line each: time tx ty tz qx qy qz qw, camera -> world, y down, z ahead

Depth is 5000 units a metre and registered to colour. The three lists have times of their own; a frame is a
depth map with the pose and the picture nearest in time, if both lie within 0.02 s, and every other depth map
is left out with the reason. The world is that of the motion capture, z up.

No file holds the camera. The benchmark's page (cvg.cit.tum.de/data/datasets/rgbd-dataset/file_formats) gives
calibrations and recommends, as its depth maps are registered but not undistorted, the driver's default of
525, 525, 319.5, 239.5 without distortion; the depth maps are scaled already. So freiburg1 and freiburg2 are
read with that default (their calibrations, of strong distortion, are for colour once it is undistorted),
freiburg3, whose pictures were undistorted, with its calibration. `camera` names another of them.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from poma3d.scenes.config import TumConfig, refuse_camera, refuse_units
from poma3d.scenes.marks import Mark
from poma3d.scenes.posed.reader import CAPTIONS, NO_COLOUR, NO_POSE, Z_UP, Camera, Posed, PosedReader
from poma3d.scenes.posed.trajectories import nearest, read_names, read_timed

SOURCE = "tum"
POSES, DEPTHS, COLOURS = "groundtruth.txt", "depth.txt", "rgb.txt"
SAME_TIME_S = 0.02
"""What the benchmark's own tool associates."""
SIZE = (480, 640)
DEFAULT = "ros-default"
CAMERAS = {
    "freiburg1": (517.3, 516.5, 318.6, 255.3),
    "freiburg2": (520.9, 521.0, 325.1, 249.7),
    "freiburg3": (535.4, 539.2, 320.1, 247.6),
    DEFAULT: (525.0, 525.0, 319.5, 239.5),
}
"""Published cameras by name: fx, fy, cx, cy."""
BY_FOLDER = {"freiburg1": DEFAULT, "freiburg2": DEFAULT, "freiburg3": "freiburg3"}
"""Part of a folder's name -> the camera of its depth maps."""


class TumReader(PosedReader[TumConfig]):
    """Reads TUM RGB-D."""

    source = SOURCE
    title = "TUM RGB-D"
    markers = (POSES,)
    marks = (
        Mark("poses", (POSES,)),
        Mark("list of depth maps", (DEPTHS,)),
        Mark("list of pictures", (COLOURS,)),
        Mark(
            "camera, which a folder's name tells",
            ("../*freiburg[123]*",),
            instead="camera",
            advice=f"{', '.join(CAMERAS)}; or give intrinsics",
        ),
        CAPTIONS,
    )
    known_up = Z_UP

    def __init__(self, config: TumConfig) -> None:
        super().__init__(config)
        refuse_camera(config.camera, config.intrinsics, CAMERAS)
        refuse_units(config.units_per_metre, 5000)

    def recording(self, scene_id: str, folder: Path) -> Posed:
        """Depth maps with the pose and the picture of their time."""
        pose_times, poses = read_timed(folder / POSES)
        depth_times, depths = read_names(folder / DEPTHS)
        colour_times, colours = read_names(folder / COLOURS)
        scan = Posed(
            folder,
            scene_id=scene_id,
            camera=self._camera(scene_id, folder),
            depth_scale=1 / self.config.units_per_metre,
        )
        for time_s, name in zip(depth_times.tolist(), depths, strict=True):
            frame_id = Path(name).stem
            pose, pose_apart = nearest(pose_times, time_s)
            colour, colour_apart = nearest(colour_times, time_s)
            if pose_apart > SAME_TIME_S:
                scan.leave_out(frame_id, NO_POSE, _apart(POSES, pose_apart))
            elif colour_apart > SAME_TIME_S:
                scan.leave_out(frame_id, NO_COLOUR, _apart(COLOURS, colour_apart))
            else:
                scan.keep(frame_id, poses[pose], folder / name, folder / colours[colour])
        return scan

    def _camera(self, scene_id: str, folder: Path) -> Camera:
        """Of the config, or the published one that the folder's name stands for."""
        if self.config.intrinsics is not None:
            return Camera(np.asarray(self.config.intrinsics, np.float64))
        name = self.config.camera
        if name is None:
            known = (BY_FOLDER[part] for part in BY_FOLDER if part in folder.resolve().name)
            name = next(known, None)
        if name is None:
            raise ValueError(
                f"scene {scene_id}: no file holds its camera, nor does its name ({', '.join(BY_FOLDER)}): "
                f"set reader.tum.camera to one of {', '.join(CAMERAS)}, or "
                "reader.tum.intrinsics=[fx, fy, cx, cy]"
            )
        return Camera(np.array(CAMERAS[name]), SIZE)


def _apart(name: str, apart_s: float) -> str:
    if not np.isfinite(apart_s):
        return f"{name} is empty"
    return f"the nearest in {name} is {apart_s:.3f} s away, at most {SAME_TIME_S}"
