"""Captures with a `transforms.json` and depth maps, as nerfstudio's and instant-ngp's converters write them
(Record3D, Polycam, NeRFCapture, ScanNet++'s and others' exports):

    <scan>/transforms.json    fl_x fl_y cx cy w h (of all frames, or in each), frames: [{file_path,
                              depth_file_path or depth_path, transform_matrix (camera -> world)}, ...]

Cameras have OpenGL's axes (y up, z backwards). Principal points count from the picture's corner, half a pixel
more than from its first pixel's centre. Depth is along the optical axis, `integer_depth_scale` metres a unit
(instant-ngp), else `depth_unit_m`, nerfstudio's 0.001. Depth maps may be smaller than their pictures
(Polycam's are 256 x 192): the camera is scaled from w x h to them. Lens distortion is refused: points of
distorted pictures are beside the surface.

`applied_scale` is undone: metres are wanted. `applied_transform` stays, for it is what turned the world, and
must be a rigid motion. Worlds are z-up only where a converter made them so (`orientation_override: none`,
Polycam's); the others, as ARKit's y-up, have up estimated.

Sources: docs/quickstart/data_conventions.md, data/dataparsers/nerfstudio_dataparser.py (at 01595f7),
process_data/{record3d,polycam}_utils.py of nerfstudio-project/nerfstudio; NeRFCapture's capture script.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path, PurePosixPath
from typing import Any, ClassVar

import numpy as np

from poma3d.geometry import from_opengl
from poma3d.scenes.config import NerfstudioConfig
from poma3d.scenes.files import usual_size
from poma3d.scenes.marks import Mark
from poma3d.scenes.posed.reader import CAPTIONS, NO_DEPTH, NO_POSE, Z_UP, Camera, Posed, PosedReader
from poma3d.scenes.text_files import read_text

SOURCE = "nerfstudio"
FILE = "transforms.json"
DEPTH_KEYS = ("depth_file_path", "depth_path")
"""nerfstudio's, and instant-ngp's."""
CAMERA_KEYS = ("fl_x", "fl_y", "cx", "cy")
DISTORTION_KEYS = ("k1", "k2", "k3", "k4", "k5", "k6", "p1", "p2")
PINHOLES = ("OPENCV", "PINHOLE", "SIMPLE_PINHOLE", "PERSPECTIVE", "SIMPLE_RADIAL", "RADIAL", "FULL_OPENCV")
"""Camera models that are pinholes where their distortion is 0."""
SUFFIXES = (".png", ".jpg", ".jpeg")
"""Tried where a path has none, as instant-ngp does."""
CORNER = 0.5
"""Pixels from the picture's corner to its first pixel's centre."""
NOT_RIGID = 1e-3
LARGEST = 1e9
"""No number of a camera, and no scale, is as large."""


class NerfstudioReader(PosedReader[NerfstudioConfig]):
    """Reads captures with a transforms.json and depth."""

    source = SOURCE
    title = "transforms.json with depth (nerfstudio, instant-ngp)"
    markers = (FILE,)
    marks = (Mark("poses, intrinsics and names of the files", (FILE,)), CAPTIONS)
    known_up: ClassVar[None] = None

    def __init__(self, config: NerfstudioConfig) -> None:
        super().__init__(config)
        if not 0 < config.depth_unit_m < np.inf:
            raise ValueError(f"depth_unit_m is {config.depth_unit_m}, expected metres, such as 0.001")

    def recording(self, scene_id: str, folder: Path) -> Posed:
        """The frames of a file, sorted by the numbers in their names."""
        path = folder / FILE
        content = _content(path)
        scale = _number(path, content, "integer_depth_scale", self.config.depth_unit_m)
        shrunk = _number(path, content, "applied_scale", 1.0)
        _check_transform(path, content)
        frames = _frames(path, content)
        scan = Posed(
            folder,
            scene_id=scene_id,
            depth_scale=scale,
            up=Z_UP if content.get("orientation_override") == "none" else None,
        )
        if not any(_depth(frame) for frame in frames.values()):
            raise ValueError(
                f"{path}: no frame has {' or '.join(DEPTH_KEYS)}: export the capture with depth, or make "
                "depth of its pictures with `poma lift`"
            )
        shared = usual_size([_picture(folder, frame) for frame in frames.values()])
        for frame_id, frame in frames.items():
            depth = _depth(frame)
            pose = _pose(frame)
            if depth is None:
                scan.leave_out(frame_id, NO_DEPTH, f"no {' or '.join(DEPTH_KEYS)} in {FILE}")
                continue
            if pose is None:
                value = str(frame.get("transform_matrix"))[:80]
                scan.leave_out(frame_id, NO_POSE, f"transform_matrix is {value}, expected 4 x 4 numbers")
                continue
            pose[:3, 3] /= shrunk
            scan.cameras[frame_id] = _camera(path, frame_id, {**content, **frame}, shared)
            scan.keep(frame_id, from_opengl(pose), folder / depth, _picture(folder, frame))
        return scan


def _content(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(read_text(path))
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(f"{path}: not a JSON file ({error})") from error
    if not isinstance(content, dict) or not isinstance(content.get("frames"), list):
        raise ValueError(f'{path}: expected an object with "frames", a list')
    return content


def _frames(path: Path, content: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Frames by their ids: the pictures' stems, or their whole paths where stems repeat."""
    names = []
    for place, frame in enumerate(content["frames"]):
        if not isinstance(frame, dict) or not isinstance(frame.get("file_path"), str):
            raise ValueError(f"{path}: frames[{place}] has no file_path")
        names.append(PurePosixPath(frame["file_path"]).with_suffix(""))
    repeated = Counter(name.name for name in names).most_common(1)
    short = not repeated or repeated[0][1] == 1
    ids = [name.name if short else name.as_posix() for name in names]
    if len(set(ids)) < len(ids):
        twice = Counter(ids).most_common(1)[0][0]
        raise ValueError(f"{path}: two frames have the file_path {twice}")
    frames = sorted(zip(ids, content["frames"], strict=True), key=lambda item: _by_number(item[0]))
    return dict(frames)


def _by_number(name: str) -> list[tuple[int, str]]:
    """Sorts frame 2 before frame 10."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", name)]


def _depth(frame: dict[str, Any]) -> str | None:
    found = (frame.get(key) for key in DEPTH_KEYS)
    return next((name for name in found if isinstance(name, str) and name), None)


def _picture(folder: Path, frame: dict[str, Any]) -> Path:
    path: Path = folder / frame["file_path"]
    if path.suffix or path.exists():
        return path
    return next((p for p in (path.with_suffix(s) for s in SUFFIXES) if p.exists()), path)


def _pose(frame: dict[str, Any]) -> np.ndarray | None:
    """float64 [4, 4], of 3 or 4 rows of four numbers; None where it is no such thing."""
    try:
        matrix = np.array(frame["transform_matrix"], np.float64)
    except (KeyError, ValueError, TypeError):
        return None
    if matrix.shape == (3, 4):
        return np.vstack([matrix, [0, 0, 0, 1]])
    return matrix if matrix.shape == (4, 4) else None


def _camera(path: Path, frame_id: str, values: dict[str, Any], shared: tuple[int, int] | None) -> Camera:
    """The camera of a frame, for pictures of w x h, or of their own size where the file does not say.

    Raises:
        ValueError: a number is missing, or the lens distorts.
    """
    model = str(values.get("camera_model", PINHOLES[0])).upper()
    bent = [key for key in DISTORTION_KEYS if _number(path, values, key, 0.0, least=-np.inf)]
    if model not in PINHOLES or bent or values.get("is_fisheye"):
        found = ", ".join(f"{key} {values[key]}" for key in bent) or f"camera_model {model}"
        raise ValueError(f"{path}: frame {frame_id} has a lens with distortion ({found}): undistort first")
    fx, fy, cx, cy = (_number(path, values, key, None) for key in CAMERA_KEYS)
    size = shared
    if "w" in values or "h" in values or size is None:
        height, width = (round(_number(path, values, key, None)) for key in ("h", "w"))
        size = (max(height, 1), max(width, 1))
    return Camera(np.array([fx, fy, cx - CORNER, cy - CORNER]), size)


def _number(
    path: Path, values: dict[str, Any], key: str, otherwise: float | None, least: float = 0.0
) -> float:
    """A finite number above `least`, or ValueError; `otherwise` where there is none, unless it is None."""
    value = values.get(key, otherwise)
    if value is None:
        raise ValueError(f"{path}: no {key}, neither for all frames nor in each")
    if isinstance(value, bool) or not isinstance(value, int | float) or not least < value < LARGEST:
        expected = "a number" if least < 0 else "a number above 0"
        raise ValueError(f"{path}: {key} is {str(value)[:40]}, expected {expected}")
    return float(value)


def _check_transform(path: Path, content: dict[str, Any]) -> None:
    """Raise ValueError where the world was moved by something that is no rigid motion."""
    if "applied_transform" not in content:
        return
    try:
        rotation = np.array(content["applied_transform"], np.float64)[:3, :3]
        off = float(np.abs(rotation.T @ rotation - np.eye(3)).max())
    except (ValueError, TypeError, IndexError):
        off = np.inf
    if not off < NOT_RIGID or np.linalg.det(rotation) < 0:
        raise ValueError(
            f"{path}: applied_transform is no rigid motion: undo it, poses are metres in a right-handed world"
        )
