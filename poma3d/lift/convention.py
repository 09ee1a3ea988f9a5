"""From what a lifter gave to a sample of one view: axes, scale, confidence, the sample's grid.

The world of a single image is its camera's frame with (x, y, z) mapped to (x, z, -y), as for single images
of scans (`poma3d.scenes.views`): z is up, y is where the camera looks, and the camera is the origin.

Legend: H W the sample's grid, y x the lifter's.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from poma3d.geometry import resize_depth_nearest, scale_intrinsics
from poma3d.lift.lifter import Lifted, Picture
from poma3d.sample import Sample, SampleShape
from poma3d.scenes.views import CAMERA_TO_Z_UP, encode_colour

UINT16_MAX = 65535


@dataclass
class ConventionConfig:
    """How lifted maps become samples."""

    z_up: bool = True
    """World of an image: its camera's frame turned so that z is up; false keeps x right, y down, z ahead."""
    median_depth_m: float = 2.5
    """Maps known up to scale are scaled to this median depth; 0 keeps the lifter's unit as metres."""
    scale_metric: bool = False
    """Scale metric maps to that median too."""
    drop_confidence: float = 0.1
    """Share of the pixels, the least confident ones, that lose their depth; 0 keeps all. Only for lifters
    that tell their confidence."""
    max_depth_m: float = 0.0
    """Pixels farther away lose their depth (sky); 0 keeps all."""
    depth_unit_m: float = 0.001
    """Unit of the stored 16-bit depth; made coarser for an image that reaches farther than it can hold."""
    colour: bool = True
    """Keep the picture as a JPEG on the sample's grid, which embedding again and previews need."""
    jpeg_quality: int = 90
    """Quality of the kept picture."""

    def validate(self) -> None:
        """Raise ValueError for a value that cannot be."""
        if not 0 <= self.drop_confidence < 1:
            raise ValueError(f"convention: drop_confidence is {self.drop_confidence}, expected 0 to below 1")
        if self.depth_unit_m <= 0:
            raise ValueError(f"convention: depth_unit_m is {self.depth_unit_m}, expected more than 0")
        if self.median_depth_m < 0 or self.max_depth_m < 0:
            raise ValueError("convention: median_depth_m and max_depth_m must not be negative; 0 means off")
        if not 1 <= self.jpeg_quality <= 100:
            raise ValueError(f"convention: jpeg_quality is {self.jpeg_quality}, expected 1 to 100")


def to_sample(
    picture: Picture, lifted: Lifted, source: str, shape: SampleShape, config: ConventionConfig
) -> Sample:
    """The sample of one image; its scene id is the image's id.

    Args:
        lifted: checked (`poma3d.lift.gates.check_lifted`).
        source: stored as the sample's source.
    """
    metres = _metres(lifted, config)
    farthest = float(metres.max())
    unit = max(config.depth_unit_m, farthest / UINT16_MAX)
    stored = np.rint(metres / unit).astype(np.uint16)
    depth = resize_depth_nearest(stored, shape.height, shape.width)
    intrinsics = scale_intrinsics(lifted.intrinsics, metres.shape, depth.shape)
    pose = CAMERA_TO_Z_UP if config.z_up else np.eye(4)[:3]
    colour = [encode_colour(picture.rgb, shape.height, shape.width, config.jpeg_quality)]
    return Sample(
        scene_id=picture.image_id,
        source=source,
        depth=depth[None],
        intrinsics=intrinsics[None].astype(np.float32),
        pose=pose[None].astype(np.float32),
        view_valid=np.ones(1, np.uint8),
        view_captions=[picture.captions[: shape.captions]],
        scene_captions=[],
        colour=colour if config.colour else [],
        depth_scale=unit,
    )


def _metres(lifted: Lifted, config: ConventionConfig) -> np.ndarray:
    """Depth float32 [y, x] in metres, 0 where there is none."""
    depth = np.where(np.isfinite(lifted.depth) & (lifted.depth > 0), lifted.depth, 0).astype(np.float32)
    if lifted.confidence is not None and config.drop_confidence > 0:
        least = np.quantile(lifted.confidence, config.drop_confidence)
        depth = np.where(lifted.confidence < least, np.float32(0), depth)
    if config.median_depth_m > 0 and (config.scale_metric or not lifted.metric) and depth.any():
        depth = depth * np.float32(config.median_depth_m / np.median(depth[depth > 0]))
    if config.max_depth_m > 0:
        depth = np.where(depth > config.max_depth_m, np.float32(0), depth)
    return depth
