"""Single mistakes that scans come with, and how each is undone in a view that was read with it.

A reader takes the numbers of a scan's files for poses, cameras and depth of one convention. Each mistake here
is one that real data sets made, with its remedy; `poma3d.scenes.disagreement` undoes them one at a time.

Legend: N pixels; h w pixels of a source's depth map.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from poma3d.geometry import from_opengl, off_centre

UNITS = (100.0, 1000.0, 4000.0, 5000.0, 6553.5, 10000.0)
"""Units of depth a metre: cm, mm, Matterport3D, TUM RGB-D, Replica's renders, 0.1 mm."""
UNITS_OF_POSES = {"centimetres": 100.0, "millimetres": 1000.0}
"""What poses are given in where they are not in metres, in units a metre."""
SAME_UNIT = 0.01
"""Relative difference below which two units are one."""
SIZES = (0.5, 2.0)
FOCAL_LENGTHS = tuple(float(f) for f in 1.05 ** np.arange(-7, 8) if f != 1)
"""Factors of a focal length, from 0.71 to 1.41: 10 % off lies within 1 % of one of them."""
SAME_SIZE = 0.1
"""Principal points that tell a size this close to the true one are a camera's own."""


@dataclass(frozen=True)
class Look:
    """A view as it is stored: in the world of the recording, its picture not turned."""

    depth: np.ndarray
    """uint16 [h, w] in units of `scale`, 0 = none."""
    scale: float
    """Metres per unit."""
    intrinsics: np.ndarray
    """float64 [4]: fx, fy, cx, cy in pixels of `depth`."""
    pose: np.ndarray
    """float64 [4, 4] camera -> world."""
    along_ray: bool = False
    """Depth is the length of the ray, not z."""

    def metres(self, v: np.ndarray, u: np.ndarray) -> np.ndarray:
        """z float64 [N] in metres at rows and columns, 0 = none."""
        z = self.depth[v, u] * self.scale
        if self.along_ray:
            fx, fy, cx, cy = self.intrinsics
            z = z / np.sqrt(1 + ((u - cx) / fx) ** 2 + ((v - cy) / fy) ** 2)
        return z


@dataclass(frozen=True)
class Mistake:
    """One thing that the reader may have been told wrongly."""

    what: str
    """The finding and its remedy, in words that all scans with it share."""
    undo: Callable[[Look], Look]
    parts: bool = True
    """Whether it can make views that see the same share nothing. One that moves pixels a little cannot:
    undone in views that share just too little it lifts them over the bar, and right views agree."""


def mistakes(look: Look) -> Iterator[Mistake]:
    """Everything that is tried on scans of views like this one."""
    yield Mistake(
        "the poses are inverted, world to camera where the layout has camera to world: invert the matrix of "
        "each pose file",
        _inverted,
    )
    yield Mistake(
        "the poses are inverted, of cameras with OpenGL's axes: invert the matrix of each pose file and, "
        "unless the layout has those axes, negate columns 2 and 3 of its rotation",
        _inverted_opengl,
    )
    yield Mistake(
        "the cameras have OpenGL's axes (y up, looking along -z): negate columns 2 and 3 of the rotation in "
        "each pose file",
        _opengl,
    )
    units = 1 / look.scale
    for unit in UNITS:
        if abs(unit / units - 1) > SAME_UNIT:
            yield Mistake(
                f"depth has {unit:g} units a metre, not {units:g}: convert the depth maps, or correct the "
                "unit that the scan states",
                partial(_in_units, unit=unit),
            )
    for name, unit in UNITS_OF_POSES.items():
        yield Mistake(
            f"the poses are in {name}, not in metres: divide the last column of each pose by {unit:g}",
            partial(_poses_in_units, unit=unit),
        )
    yield Mistake(
        "depth is the length of the ray, not the distance along the optical axis: divide each pixel by "
        "sqrt(1 + ((u - cx) / fx)^2 + ((v - cy) / fy)^2)",
        _along_axis,
    )
    for size in _sizes(look):
        yield Mistake(
            f"the intrinsics are for pictures of {1 / size:.3g} times the depth maps' size: give the depth "
            f"maps' own, all four numbers times {size:.3g}",
            partial(_of_size, factor=size),
        )
    for factor in FOCAL_LENGTHS:
        yield Mistake(
            f"the focal length is off: about {factor:.2f} times what the intrinsics say fits the views: give "
            "the depth camera's, not the colour camera's or the data sheet's",
            partial(_focal, factor=factor),
            parts=False,
        )


def _sizes(look: Look) -> list[float]:
    """Factors of the intrinsics: half, double, and what the principal point tells."""
    rows, columns = look.depth.shape
    told = columns / (2 * float(look.intrinsics[2]) + 1)
    known = off_centre(look.intrinsics, (rows, columns)) <= SAME_SIZE
    near = any(abs(told / size - 1) <= SAME_SIZE for size in (*SIZES, 1.0))
    return [*SIZES, *([] if known or near or told <= 0 else [told])]


def _inverted(look: Look) -> Look:
    return replace(look, pose=np.linalg.inv(look.pose))


def _inverted_opengl(look: Look) -> Look:
    """A view matrix as OpenGL has it; or one of a layout whose reader turns OpenGL's axes."""
    return replace(look, pose=from_opengl(np.linalg.inv(from_opengl(look.pose))))


def _opengl(look: Look) -> Look:
    return replace(look, pose=from_opengl(look.pose))


def _in_units(look: Look, unit: float) -> Look:
    return replace(look, scale=1 / unit)


def _poses_in_units(look: Look, unit: float) -> Look:
    return replace(look, pose=look.pose * np.array([1, 1, 1, 1 / unit]))


def _along_axis(look: Look) -> Look:
    return replace(look, along_ray=True)


def _of_size(look: Look, factor: float) -> Look:
    fx, fy, cx, cy = look.intrinsics
    centre = (np.array([cx, cy]) + 0.5) * factor - 0.5
    return replace(look, intrinsics=np.array([fx * factor, fy * factor, *centre]))


def _focal(look: Look, factor: float) -> Look:
    return replace(look, intrinsics=look.intrinsics * np.array([factor, factor, 1, 1]))
