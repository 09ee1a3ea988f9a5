"""What no sample may be: values that a reader of shards finds in the tensors of stored rows.

Legend: n samples, V views, H W pixels, C captions of a view, S captions of a scene, E joint space.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from poma3d.sample import XYZ

UNIT_TOLERANCE = 1e-2
"""How far the length of an embedding may be from 1: fp16 rounds each of its numbers."""
NOT_A_ROTATION = 0.01
"""Largest |R^T R - 1| of a pose that is still taken for a rotation. KinectFusion's have up to 0.0004, numbers
of three digits up to 0.003; a pose that scales by half a percent is above."""


def faults(arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """What is wrong with samples -> bool [n], in which of them.

    Args:
        arrays: tensor columns of n samples, as `poma3d.sample.decode` gives them, each [n, ...]; columns
            that are absent are not looked at.
    """
    valid = arrays["view_valid"] > 0
    found: dict[str, np.ndarray] = {"no valid view": np.logical_not(np.any(valid, axis=1))}
    if XYZ in arrays:
        points = arrays[XYZ].astype(np.float32)
        off = ~np.isfinite(points)
        found["points that are not finite"] = np.any(off, axis=(1, 2, 3, 4))
        has_points = points.any(axis=(2, 3, 4))
        found["valid views without any point"] = np.any(valid & ~has_points, axis=1)
    if "depth" in arrays:
        has_depth = arrays["depth"].any(axis=(2, 3))
        found["valid views without any depth"] = np.any(valid & ~has_depth, axis=1)
        found |= _camera_faults(arrays, valid)
    found |= _embedding_faults(arrays, valid)
    return {text: rows for text, rows in found.items() if rows.any()}


def _camera_faults(arrays: Mapping[str, np.ndarray], valid: np.ndarray) -> dict[str, np.ndarray]:
    scale = arrays["depth_scale"]
    focal = arrays["intrinsics"][..., :2]
    bad_camera = ~np.isfinite(arrays["intrinsics"]).all(axis=-1) | ~(focal > 0).all(axis=-1)
    axes = arrays["pose"][..., :3].astype(np.float64)
    finite = np.isfinite(arrays["pose"]).all(axis=(-2, -1))
    axes = np.where(finite[..., None, None], axes, np.eye(3))
    off = np.abs(axes.swapaxes(-1, -2) @ axes - np.eye(3)).max(axis=(-2, -1))
    is_rotation = (off < NOT_A_ROTATION) & (np.linalg.det(axes) > 0)
    return {
        "a depth_scale that is not above 0": ~(np.isfinite(scale) & (scale > 0)),
        "a focal length that is not above 0, or intrinsics that are not finite": (valid & bad_camera).any(1),
        "a pose that is not finite": (valid & ~finite).any(1),
        "a pose that is no rotation": (valid & ~is_rotation).any(1),
    }


def _embedding_faults(arrays: Mapping[str, np.ndarray], valid: np.ndarray) -> dict[str, np.ndarray]:
    """Of the embeddings that mean something: of valid views, and of captions that exist."""
    found = {}
    for name, count in (
        ("image_embedding", None),
        ("caption_embedding", "caption_count"),
        ("scene_caption_embedding", "scene_caption_count"),
    ):
        if name not in arrays or (count is not None and count not in arrays):
            continue
        there = valid
        if count is not None:  # bool [n, ..., C]
            there = np.arange(arrays[name].shape[-2]) < arrays[count][..., None]
        lengths = np.linalg.norm(arrays[name].astype(np.float32), axis=-1)
        is_unit = np.abs(lengths - 1) < UNIT_TOLERANCE  # False for what is not finite
        off = (there & ~is_unit).reshape(len(there), -1)
        found[f"{name} that is no unit vector"] = off.any(axis=1)
    return found
