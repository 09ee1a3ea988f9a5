"""What a lifter takes and gives.

A lifter turns colour images into depth and a pinhole camera. Images are handed over as they were decoded,
whole and in any size; depth comes back on any grid that covers the same field of view, with intrinsics for
that grid (`poma3d.geometry`: a pixel's centre has integer coordinates).

Legend: h w pixels of the image, y x pixels of the lifter's grid.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import torch

DECODE_SIDE_PX = 768
"""Longer side of the pictures that a lifter gets which does not say what it wants."""


class BadImage(Exception):
    """An image that is left out: `reason` in a few fixed words, `value` what was found."""

    def __init__(self, reason: str, value: str = "") -> None:
        super().__init__(f"{reason}: {value}" if value else reason)
        self.reason = reason
        self.value = value

    def __reduce__(self) -> tuple[type[BadImage], tuple[str, str]]:
        return type(self), (self.reason, self.value)


@dataclass
class GivenDepth:
    """Depth and camera that came with an image."""

    depth: np.ndarray
    """float32 [y, x] metres along the optical axis; 0 = none."""
    intrinsics: np.ndarray
    """float64 [4]: fx, fy, cx, cy in pixels of `depth`."""


@dataclass
class InputImage:
    """One decoded image with its captions."""

    image_id: str
    """Hash of the image's bytes and its captions."""
    rgb: np.ndarray
    """uint8 [h, w, 3]."""
    captions: list[str] = field(default_factory=list)
    """What it shows, the most complete caption first."""
    given: GivenDepth | None = None
    """What came with it, for the lifter `given`."""


@dataclass
class Lifted:
    """What a lifter made of an image."""

    depth: np.ndarray
    """float32 [y, x] along the optical axis; not finite or not positive = none."""
    intrinsics: np.ndarray
    """float64 [4]: fx, fy, cx, cy in pixels of `depth`."""
    metric: bool
    """Whether depth is in metres; otherwise it is known up to scale."""
    confidence: np.ndarray | None = None
    """float32 [y, x], more is better, in the lifter's own unit; None where it tells none."""


class Lifter(Protocol):
    """Image -> depth + camera."""

    name: str
    """One of the kinds of `jobs.lift.config`."""
    revision: str
    """Which weights: another revision is another data set."""
    # A class may say `decode_side_px`, the longer side of the pictures it wants, where that is not
    # `DECODE_SIDE_PX`: larger ones are brought to it before they are handed over.

    def lift(self, pictures: Sequence[InputImage]) -> list[Lifted | BadImage]:
        """One answer per picture, in order; a picture that cannot be lifted is answered by why."""


class HalvingLifter:
    """A lifter whose batch is halved when the device runs out of memory, and stays so.

    Args:
        lifter: whose `lift` is called with at most `batch_size` pictures.
        batch_size: to begin with.
    """

    def __init__(self, lifter: Lifter, batch_size: int) -> None:
        if batch_size < 1:
            raise ValueError(f"lifter.batch_size is {batch_size}, expected at least 1")
        self.name, self.revision = lifter.name, lifter.revision
        self.batch_size = batch_size
        self._lifter = lifter

    def lift(self, pictures: Sequence[InputImage]) -> list[Lifted | BadImage]:
        """All pictures, in batches that fit.

        Raises:
            ValueError: one picture alone does not fit.
        """
        done: list[Lifted | BadImage] = []
        while len(done) < len(pictures):
            batch = pictures[len(done) : len(done) + self.batch_size]
            try:
                done += self._lifter.lift(batch)
            except torch.OutOfMemoryError as error:
                if len(batch) == 1:
                    height, width = batch[0].rgb.shape[:2]
                    raise ValueError(
                        f"lifter {self.name}: one image of {width} x {height} does not fit into the device's "
                        "memory; give it a larger device, or more of it (fewer lifters per device)"
                    ) from error
                self.batch_size = len(batch) // 2
                torch.cuda.empty_cache()  # does nothing where CUDA was never used
        return done
