"""Scans of a data set by the ids that annotation files use, with their views.

Legend: V views of a scan, E joint space.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from poma3d.evaluate.retrieval import normalise
from poma3d.sample import Sample

PART = "/"
"""Between the id of a scan and that of a single image of it."""


@dataclass(frozen=True)
class Gallery:
    """Which (sample, view) pairs make up each scan, in order; repeats are left out."""

    samples: Sequence[Sample]
    views: dict[str, list[tuple[int, int]]]

    @classmethod
    def of(cls, samples: Sequence[Sample], annotated: Iterable[str] = ()) -> Gallery:
        """Scans by id: a single image `scan/003` belongs to the scan, unless `annotated` names it itself."""
        known = set(annotated)
        views: dict[str, list[tuple[int, int]]] = {}
        for i, sample in enumerate(samples):
            name = sample.scene_id if sample.scene_id in known else sample.scene_id.split(PART)[0]
            views.setdefault(name, []).extend((i, int(v)) for v in np.flatnonzero(sample.view_valid))
        return cls(samples, {name: found for name, found in views.items() if found})

    def view_features(self, features: np.ndarray, scan: str) -> np.ndarray:
        """Unit features float64 [V, E] of a scan's views, from [S, V, E] of all samples."""
        return normalise(np.stack([features[at] for at in self.views[scan]]))

    def scene_features(self, features: np.ndarray, scans: Sequence[str], most: int = 0) -> np.ndarray:
        """Normalised means float64 [n, E] of the normalised features of the first `most` views; 0 for all."""
        views = (self.view_features(features, scan) for scan in scans)
        return normalise(np.stack([each[: most or None].mean(axis=0) for each in views]))

    def poses(self, scan: str) -> np.ndarray:
        """[V, 3, 4] camera -> world."""
        return np.stack([np.asarray(self.samples[i].pose[v], np.float64) for i, v in self.views[scan]])

    def in_one_frame(self, scan: str) -> bool:
        """Whether the views of a scan are in its own frame: single images are in those of their cameras."""
        return all(self.samples[i].scene_id == scan for i, _ in self.views[scan])

    @property
    def has_cameras(self) -> bool:
        """Whether the views have poses."""
        return all(sample.xyz is None for sample in self.samples)
