"""The scenes of a micro-batch, as a head or a language model sees them: read on the host, each once, and
counted.

Legend: n samples, U scenes of theirs, V views, P patches, M scene tokens, D their width, E width of a
feature.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from poma3d.inputs import Batch, fake_batch
from poma3d.network.encoder import PointMapEncoder
from poma3d.sample import SampleShape
from poma3d.seen import voxels
from poma3d.seen.config import NONE, PATCHES, VIEWS, VOXELS, SceneTokensConfig

WHOLE_SCENE = -1
"""In place of the number of a view."""
SCENE_ROW, SEEN, CELLS, POSITIONS = "scene/row", "scene/seen", "scene/cells", "scene/positions"
"""Keys of a prepared batch: int64 [n], which of the U scenes a sample is about; bool [n, V], the views that
it sees; voxels: int64 [n, V * P], the cell of each patch; float32 [n, M, 3], metres in the agent's frame."""
VIEW, AGENT = "view", "agent"
"""Columns of rows that name scenes: the view that a row is about, or -1; float32 [3, 4], world -> agent."""
POINTS, POINTS_VALID = "patch_points", "patch_points_valid"
FEATURES = {VIEWS: "views", PATCHES: "patches", VOXELS: "patches"}
"""Scene tokens -> the column of features that they are made of."""


class Scenes(Protocol):
    """Where scenes come from, by their numbers."""

    def read(self, numbers: Sequence[int]) -> Mapping[str, np.ndarray]:
        """`view_valid` [U, V]; for a trained encoder the geometry columns of `poma3d.sample`, else `views`
        [U, V, E] or `patches` [U, V, P, D]; for voxels `patch_points` [U, V, P, 3] in metres and
        `patch_points_valid` [U, V, P]."""
        ...

    def read_ahead(self, numbers: Sequence[int]) -> None:
        """Have these at hand when they are asked for; from any thread."""
        ...


@dataclass
class SeenScenes:
    """What is seen of scenes."""

    config: SceneTokensConfig
    scenes: Scenes | None
    """Those that are trained on or asked about; None where nothing is seen."""
    views: int
    """V."""
    width: int
    """D, or E where views are the tokens."""
    patches: int = 0
    """P, where patches are needed."""
    encoder: PointMapEncoder | None = None
    """Where it is trained, too."""
    samples: SampleShape | None = None
    """Of the scenes of a trained encoder."""
    encoder_lr_scale: float = 1.0
    """The encoder's peak learning rate over that of what it is trained with."""

    @property
    def most_tokens(self) -> int:
        """Most tokens of a scene."""
        return {
            NONE: 0,
            VIEWS: self.views,
            PATCHES: self.views * self.patches,
            VOXELS: min(self.config.max_voxels, self.views * self.patches),
        }[self.config.tokens]

    def gather(self, batch: Batch) -> tuple[Batch, list[int], int]:
        """The scenes of a micro-batch, each once; how many tokens each sample has of its own; the most."""
        n, config = len(batch["scene"]), self.config
        if config.tokens == NONE:
            return {}, [0] * n, 0
        numbers_U, row_n = batch["scene"].unique(return_inverse=True)
        if "view_valid" in batch:  # a fake batch has a scene for each sample
            row_n, found = torch.arange(n), {k: v.numpy() for k, v in batch.items() if isinstance(v, Tensor)}
        else:
            assert self.scenes is not None
            found = dict(self.scenes.read(numbers_U.tolist()))
        seen_nV = torch.from_numpy(found["view_valid"].astype(bool))[row_n]
        view_n = batch[VIEW].long()
        one_nV = torch.arange(seen_nV.shape[1])[None] == view_n[:, None]
        seen_nV = torch.where((view_n == WHOLE_SCENE)[:, None], seen_nV, one_nV)
        kept = {k: v for k, v in found.items() if k not in (POINTS, POINTS_VALID, "view_valid")}
        made: Batch = {k: torch.from_numpy(v) for k, v in kept.items() if k not in batch}
        made |= {SCENE_ROW: row_n, SEEN: seen_nV}
        if config.tokens != VOXELS:
            per_view = self.patches if config.tokens == PATCHES else 1
            counts = (seen_nV.sum(dim=1) * per_view).tolist()
            return made, counts, seen_nV.shape[1] * per_view
        cells, positions = self._cells(batch, found, row_n, seen_nV)
        counts = [len(each) for each in positions]
        padded_nM3 = np.zeros((n, max(1, *counts), voxels.AXES), np.float32)
        for i, each in enumerate(positions):
            padded_nM3[i, : len(each)] = each
        made |= {CELLS: torch.from_numpy(np.stack(cells)), POSITIONS: torch.from_numpy(padded_nM3)}
        return made, counts, padded_nM3.shape[1]

    def _cells(
        self, batch: Batch, found: Mapping[str, np.ndarray], row_n: Tensor, seen_nV: Tensor
    ) -> tuple[list[np.ndarray], list[np.ndarray]]:
        """Of each sample the cell of each patch, and where the cells are in the agent's frame."""
        config = self.config
        known: dict[tuple[int, int], voxels.Cells] = {}
        cells, positions = [], []
        for i, (row, view) in enumerate(zip(row_n.tolist(), batch[VIEW].tolist(), strict=True)):
            if (row, view) not in known:
                places = voxels.PatchPoints(found[POINTS][row], found[POINTS_VALID][row].astype(bool))
                known[row, view] = voxels.cells(places, seen_nV[i].numpy(), config.cell_m, config.max_voxels)
            cells.append(known[row, view].of_patch)
            positions.append(voxels.in_agent_frame(known[row, view].positions, batch[AGENT][i].numpy()))
        return cells, positions

    def fake(self, n: int, seed: int, g: torch.Generator) -> Batch:
        """Random scenes, one for each of n samples, on the CPU."""
        kind = self.config.tokens
        if kind == NONE:
            return {}
        made: Batch = {"view_valid": torch.ones(n, self.views, dtype=torch.uint8)}
        if self.samples is not None:
            of_scene = fake_batch(self.samples, self.samples.geometry, n, seed)
            made |= {name: of_scene[name] for name in self.samples.geometry}
        else:
            dims = (self.views, self.width) if kind == VIEWS else (self.views, self.patches, self.width)
            made[FEATURES[kind]] = torch.randn(n, *dims, generator=g).half()
        if kind == VOXELS:
            made[POINTS] = 4 * torch.rand(n, self.views, self.patches, voxels.AXES, generator=g)
            made[POINTS_VALID] = torch.ones(n, self.views, self.patches, dtype=torch.bool)
        return made
