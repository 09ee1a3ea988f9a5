"""Frames of a recording as a user who asks an encoder reads them: with numpy and Pillow alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image


def recorded(scan: Path, count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The first frames of a recording as its files have them: depth uint16 [V, h, w] in mm, intrinsics
    [3, 3], poses [V, 4, 4]."""
    stems = sorted(path.name.removesuffix(".depth.png") for path in scan.glob("*.depth.png"))[:count]
    depth = np.stack([np.asarray(Image.open(scan / f"{stem}.depth.png")).astype(np.uint16) for stem in stems])
    poses = np.stack([np.loadtxt(scan / f"{stem}.pose.txt") for stem in stems])
    return depth, np.loadtxt(scan / "camera-intrinsics.txt"), poses
