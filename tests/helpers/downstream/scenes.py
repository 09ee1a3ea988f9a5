"""Scenes in memory, and batches that are about them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from poma3d.inputs import fake_batch, point_maps
from poma3d.seen.voxels import patch_points
from tests.helpers import tiny


class MemoryScenes:
    """Scenes with random geometry, in memory; notes what was asked for."""

    def __init__(self, count: int) -> None:
        self.shape = tiny.shape()
        made = fake_batch(self.shape, (*self.shape.geometry, "view_valid"), count, seed=0)
        self.columns = {name: made[name].numpy() for name in (*self.shape.geometry, "view_valid")}
        self.columns["view_valid"][0, 1:] = 0  # a scene of one view
        self.asked: list[list[int]] = []

    def read(self, numbers: Sequence[int]) -> dict[str, np.ndarray]:
        self.asked.append(list(numbers))
        return {name: values[list(numbers)] for name, values in self.columns.items()}

    def read_ahead(self, numbers: Sequence[int]) -> None:
        """Everything is at hand."""


class MemoryPoints:
    """The scenes of `MemoryScenes` with the places of their patches; features in place of geometry if
    asked."""

    def __init__(self, count: int, patches: int, width: int = 0) -> None:
        self.inner, self.patches, self.width = MemoryScenes(count), patches, width

    def read(self, numbers: Sequence[int]) -> dict[str, np.ndarray]:
        found = self.inner.read(numbers)
        points = point_maps({name: torch.from_numpy(values) for name, values in found.items()})
        places = [patch_points(each, self.patches) for each in points]
        made = {
            "patch_points": np.stack([each.points for each in places]),
            "patch_points_valid": np.stack([each.valid for each in places]),
        }
        if not self.width:
            return found | made
        drawn = [
            np.random.default_rng(n).normal(size=(self.inner.shape.views, self.patches, self.width))
            for n in numbers
        ]
        return made | {
            "view_valid": found["view_valid"],
            "patches": np.stack(drawn).astype(np.float16),
            "views": np.stack(drawn)[:, :, 0].astype(np.float16),
        }

    def read_ahead(self, numbers: Sequence[int]) -> None:
        """Everything is at hand."""


def by_scene(batch: dict[str, Any], scenes: Sequence[int]) -> dict[str, Any]:
    """A fake batch of questions or conversations that is about these scenes of the store."""
    gone = (*tiny.shape().geometry, "view_valid", "views", "patches", "patch_points", "patch_points_valid")
    kept = {name: value for name, value in batch.items() if name not in gone}
    return {**kept, "scene": torch.tensor(scenes, dtype=torch.int32)}
