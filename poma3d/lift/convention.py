"""From what a lifter gave to a sample of one view: axes, scale, confidence, the sample's grid.

The world of a single image is its camera's frame with (x, y, z) mapped to (x, z, -y), as for single images
of scans (`poma3d.scenes.views`): z is up, y is where the camera looks, and the camera is the origin.

Legend: H W the sample's grid, y x the lifter's.
"""

from __future__ import annotations

import numpy as np

from poma3d.geometry import resize_depth_nearest, scale_intrinsics
from poma3d.lift.config import ConventionConfig
from poma3d.lift.lifter import InputImage, Lifted
from poma3d.sample import Sample, SampleShape
from poma3d.scenes.views import CAMERA_TO_Z_UP, encode_colour

UINT16_MAX = 65535


def to_sample(
    picture: InputImage, lifted: Lifted, source: str, shape: SampleShape, config: ConventionConfig
) -> Sample:
    """The sample of one image; its scene id is the image's id.

    Args:
        lifted: checked (`poma3d.lift.filters.check_lifted`).
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
