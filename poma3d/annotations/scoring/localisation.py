"""SQA3D's localisation metric: how near the best of up to three guesses is, of position and rotation each.

Positions are compared in x and y alone, rotations by the z component of their rotation vectors, which is the
heading of an agent that turns about z. The best guess counts for position and for rotation separately; bounds
are strict. Source: SQA3D's localization_metric.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from poma3d.annotations.rows import Quaternion, Vector

MOST_GUESSES = 3
POSITION_M = (0.5, 1.0)
ROTATION_DEG = (15.0, 30.0)
NAMES = (
    *(f"position_{bound:g}m" for bound in POSITION_M),
    *(f"rotation_{bound:g}deg" for bound in ROTATION_DEG),
)
SMALL = 1e-12
"""Length of a quaternion's vector part below which there is no rotation."""


def about_z(orientation: Quaternion) -> float:
    """The z component of the rotation vector of a unit quaternion, in radians, in [-pi, pi]."""
    x, y, z, w = orientation
    if w < 0:
        x, y, z, w = -x, -y, -z, -w
    length = math.hypot(x, y, z)
    return 2.0 * z if length < SMALL else 2.0 * math.atan2(length, w) * z / length


def between_deg(first: Quaternion, second: Quaternion) -> float:
    """The angle about z between two rotations, in degrees, at most 180."""
    apart = abs(about_z(first) - about_z(second))
    return math.degrees(min(apart, 2.0 * math.pi - apart))


def score(
    position: Vector, orientation: Quaternion, positions: Sequence[Vector], rotations: Sequence[Quaternion]
) -> dict[str, float]:
    """1 or 0 for each of `NAMES`.

    Args:
        positions: guesses, up to three; none counts as wrong.
        rotations: likewise.
    """
    apart_m = min((math.dist(position[:2], guess[:2]) for guess in positions), default=math.inf)
    apart_deg = min((between_deg(orientation, guess) for guess in rotations), default=math.inf)
    hits = [*(apart_m < bound for bound in POSITION_M), *(apart_deg < bound for bound in ROTATION_DEG)]
    return dict(zip(NAMES, map(float, hits), strict=True))
