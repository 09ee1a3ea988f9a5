"""The settings of what is seen of a scene."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from poma3d.counts import Count

PATCHES, VOXELS, VIEWS, NONE = "patches", "voxels", "views", "none"


@dataclass
class SceneTokensConfig:
    """What a scene becomes."""

    KINDS: ClassVar[tuple[str, ...]] = (PATCHES, VOXELS, VIEWS, NONE)

    tokens: str = VOXELS
    """patches: every patch token of every view. voxels: the mean of the patch tokens whose points lie in a
    cell, with the cell's position. views: the feature of each view. none: nothing, a control."""
    cell_m: float = 0.2
    """voxels: edge of a cell, metres."""
    max_voxels: Count = 512
    """voxels: most cells of a scene; those with the most patches are kept."""
    shortest_wave_m: float = 0.4
    """voxels: the shortest wavelength of the sines that a position is written in, metres."""
    longest_wave_m: float = 40.0
    """voxels: the longest; more than a scene is wide."""

    def validate(self) -> None:
        """Refuse values that cannot be.

        Raises:
            ValueError: naming the field and what to do.
        """
        if self.tokens not in self.KINDS:
            raise ValueError(f"scene.tokens is '{self.tokens}'; use one of {', '.join(self.KINDS)}")
        if not 0 < self.cell_m < math.inf:
            raise ValueError(f"scene.cell_m is {self.cell_m}, expected metres above 0")
        if not 0 < self.shortest_wave_m < self.longest_wave_m < math.inf:
            raise ValueError(
                f"scene.shortest_wave_m {self.shortest_wave_m} must be above 0 and below "
                f"scene.longest_wave_m {self.longest_wave_m}, both in metres"
            )

    @property
    def needs_patches(self) -> bool:
        """Whether it is made of patch tokens."""
        return self.tokens in (PATCHES, VOXELS)
