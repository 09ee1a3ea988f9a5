"""Small scenes with hostile names, for tests of their pages."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from PIL import Image

from poma3d.sample import Sample

SCRIPT = "</script><script>window.hacked = true</script>"
SIDE = 40
LEVEL = np.array([[1.0, 0, 0, 0], [0, 0, 1, 0], [0, -1, 0, 1.2]], np.float32)  # along y, level


def jpeg(colour: tuple[int, int, int]) -> bytes:
    """A picture of one colour."""
    buffer = io.BytesIO()
    Image.fromarray(np.full((SIDE, SIDE, 3), colour, np.uint8)).save(buffer, "jpeg")
    return buffer.getvalue()


def sample(scene_id: str = "room", views: int = 4, **changes: Any) -> Sample:
    """Cameras in the middle of a room that look at its four walls, 3.5 m off, above a floor."""
    rows = np.arange(SIDE)[:, None] - (SIDE - 1) / 2
    floor_m = np.where(rows > 0, 1.2 * SIDE / np.maximum(rows, 1e-6), np.inf)
    depth = np.minimum(np.full((SIDE, SIDE), 3.5), floor_m)
    poses = []
    for view in range(views):
        angle = np.pi / 2 * view
        turn = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
        poses.append(turn @ LEVEL)
    hues = [(200, 60, 60), (60, 160, 60), (60, 60, 200), (190, 160, 40)]
    values: dict[str, Any] = {
        "source": SCRIPT,
        "depth": np.tile((depth * 1000).astype(np.uint16), (views, 1, 1)),
        "intrinsics": np.tile(np.array([SIDE, SIDE, (SIDE - 1) / 2, (SIDE - 1) / 2], np.float32), (views, 1)),
        "pose": np.array(poses, np.float32),
        "view_valid": np.ones(views, np.uint8),
        "view_captions": [[f"wall {v} {SCRIPT}", 'a "quoted" caption'] for v in range(views)],
        "scene_captions": [f"a room {SCRIPT}"],
        "colour": [jpeg(hues[v % 4]) for v in range(views)],
    }
    return Sample(scene_id, **(values | changes))
