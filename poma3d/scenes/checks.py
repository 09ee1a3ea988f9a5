"""What a frame must be to be used: sizes, a camera that fits its depth map, a rigid pose, enough depth.

What a file claims is compared with what it holds: intrinsics of another image size, or a pose that scales or
mirrors, would give point maps that are wrong in silence.
"""

from __future__ import annotations

import numpy as np

from poma3d.geometry import off_centre
from poma3d.sample_check import NOT_A_ROTATION
from poma3d.scenes.config import ViewConfig
from poma3d.scenes.frame import BadFrame, Frame

FARTHEST_M = 10_000.0
"""Of a camera from its world's origin: beyond, the samples' float32 rounds poses to a millimetre or more.
Those of maps (UTM) have hundreds of kilometres."""


def check_frame(frame: Frame, config: ViewConfig) -> None:
    """Raise BadFrame where a frame cannot be used."""
    if frame.depth.ndim != 2 or frame.depth.dtype != np.uint16:
        raise BadFrame(
            "wrong shape", f"depth is {frame.depth.dtype} {list(frame.depth.shape)}, not uint16 [h, w]"
        )
    _check_intrinsics(frame, config.max_off_centre)
    _check_pose(frame.pose)
    valid = np.count_nonzero(frame.depth) / max(frame.depth.size, 1)
    if valid < config.min_valid_depth:
        raise BadFrame(
            "too little valid depth", f"{valid:.3f} of the pixels, at least {config.min_valid_depth}"
        )


def _check_intrinsics(frame: Frame, max_off_centre: float) -> None:
    """Raise BadFrame for what is no camera, or one of pictures of another size."""
    camera = frame.intrinsics
    if camera.shape != (4,) or not np.isfinite(camera).all() or min(camera[:2]) <= 0:
        raise BadFrame("no intrinsics", f"{camera.tolist()}, expected fx, fy above 0, cx, cy")
    rows, columns = frame.depth.shape
    if frame.points is None and off_centre(camera, (rows, columns)) > max_off_centre:
        _, _, cx, cy = camera
        raise BadFrame(
            "intrinsics of another image size",
            f"principal point ({cx:g}, {cy:g}) in a depth map of {columns} x {rows}: it is the middle of "
            f"{2 * cx + 1:.0f} x {2 * cy + 1:.0f}. Give the intrinsics of the depth maps; for cropped ones "
            f"raise views.max_off_centre ({max_off_centre})",
        )


def _check_pose(pose: np.ndarray) -> None:
    """Raise BadFrame for what is no rigid motion."""
    if pose.shape != (3, 4):
        raise BadFrame("wrong shape", f"pose is {list(pose.shape)}, not [3, 4]")
    if not np.isfinite(pose).all():
        raise BadFrame("non-finite pose", f"{pose[0].tolist()}")
    away = float(np.abs(pose[:, 3]).max())
    if away > FARTHEST_M:
        raise BadFrame("camera far from the origin", f"{away:.6g} m, at most {FARTHEST_M:g}")
    rotation = pose[:, :3]
    error = float(np.abs(rotation.T @ rotation - np.eye(3)).max())
    determinant = float(np.linalg.det(rotation))
    if error > NOT_A_ROTATION or determinant < 0:
        raise BadFrame(
            "pose is not a rotation",
            f"off by {error:.3g}, determinant {determinant:.3g}; expected at most {NOT_A_ROTATION}, 1",
        )
