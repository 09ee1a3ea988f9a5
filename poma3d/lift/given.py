"""Depth and camera that come with the images: RGB-D recordings, rendered sets."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from poma3d import depth_files
from poma3d.geometry import same_view
from poma3d.lift.lifter import DECODE_SIDE_PX, BadImage, InputImage, Lifted


class GivenLifter:
    """Hands over what came with each picture: `poma3d.lift.lifter.Lifter`."""

    name = "given"
    decode_side_px = DECODE_SIDE_PX
    revision = ""

    def lift(self, pictures: Sequence[InputImage]) -> list[Lifted | BadImage]:
        """Depth and camera of each picture, or that it has none."""
        return [_lifted(picture) for picture in pictures]


def _lifted(picture: InputImage) -> Lifted | BadImage:
    if picture.given is None:
        return BadImage("no depth or camera", "none came with the image")
    (height, width), (rows, columns) = picture.rgb.shape[:2], picture.given.depth.shape
    camera = picture.given.intrinsics
    is_camera = np.isfinite(camera).all() and min(camera[:2]) > 0  # else the gates reject it as absurd
    if is_camera and not same_view((height, width), (rows, columns), camera):
        return BadImage(
            "picture of another shape", f"{width} x {height}, its depth map is {columns} x {rows}"
        )
    return Lifted(picture.given.depth, camera, metric=True)


def decode_depth(encoded: bytes, unit_m: float) -> np.ndarray:
    """Depth float32 [y, x] in metres of a picture that `poma3d.depth_files` reads, 0 = none.

    Args:
        unit_m: metres per unit of the picture.

    Raises:
        BadImage: it cannot be decoded, or is not 16-bit grey.
    """
    try:
        units = depth_files.decode_depth(encoded)
    except ValueError as error:
        raise BadImage("unreadable depth", str(error)) from error
    return units.astype(np.float32) * np.float32(unit_m)
