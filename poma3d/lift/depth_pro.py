"""Depth Pro through transformers: metric depth and the focal length of one image.

The model looks at a square of fixed size and gives inverse depth for a canonical camera, besides the
horizontal field of view, which makes it metric. Depth is kept on the model's own grid: putting it on the
image's first, as the published post-processing does, would interpolate across edges. Pixels are prepared
here, because transformers' processor for this model needs torchvision.

Legend: n pictures, s side of the model's input, y x its output grid.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F

from poma3d.lift.lifter import BadImage, InputImage, Lifted
from poma3d.pretrained.folder import PREPROCESSOR, check_parts, hub_commit, weights_revision
from poma3d.pretrained.loading import load_transformers, reported

NAME = "depth_pro"
NEEDED = (PREPROCESSOR,)
"""Parts that it cannot do without: the mean and deviation of its pixels."""
NEAREST_M, FARTHEST_M = 1e-4, 1e4
"""Limits of depth of the published post-processing."""


class DepthProLifter:
    """`poma3d.lift.lifter.Lifter` around a loaded model; `load` makes one.

    Args:
        model: a `DepthProForDepthEstimation` with its field-of-view head.
        revision: which weights it has.
        mean, std: of pixels in [0, 1], per channel.
    """

    name = NAME
    decode_side_px = 1536
    """The square that its published weights look at: smaller pictures would be scaled up to it."""

    def __init__(self, model: Any, revision: str, mean: Sequence[float], std: Sequence[float]) -> None:
        if model.fov_model is None:
            raise ValueError("these Depth Pro weights have no field-of-view head (use_fov_model is false)")
        self.revision = revision
        self._model = model.eval().requires_grad_(False)
        config = model.config
        self._side = round(config.patch_size / min(config.scaled_images_ratios))
        self._device = next(model.parameters()).device
        self._mean = torch.tensor(mean, device=self._device)[:, None, None]
        self._std = torch.tensor(std, device=self._device)[:, None, None]

    @torch.inference_mode()
    def lift(self, pictures: Sequence[InputImage]) -> list[Lifted | BadImage]:
        """Metric depth on the model's grid with the camera that goes with it."""
        pixels = torch.stack([self._pixels(picture.rgb) for picture in pictures])
        output = self._model(pixel_values=pixels)
        inverse = output.predicted_depth.float().cpu().numpy()
        fov_deg = output.field_of_view.float().cpu().tolist()
        return [_lifted(*parts) for parts in zip(pictures, inverse, fov_deg, strict=True)]

    def _pixels(self, rgb: np.ndarray) -> torch.Tensor:
        """float32 [3, s, s]: normalised first, then resized, as in training."""
        image = torch.tensor(rgb, device=self._device).permute(2, 0, 1).float() / 255
        size = (self._side, self._side)
        return F.interpolate(((image - self._mean) / self._std)[None], size=size, mode="bilinear")[0]


def _lifted(picture: InputImage, inverse: np.ndarray, fov_deg: float) -> Lifted | BadImage:
    if not 0 < fov_deg < 180:
        return BadImage("absurd field of view", f"{fov_deg:.1f} degrees")
    # In units of the image's width the focal length is the same on every grid.
    focal_widths = 0.5 / math.tan(math.radians(fov_deg) / 2)
    depth = 1 / np.clip(inverse / focal_widths, 1 / FARTHEST_M, 1 / NEAREST_M)
    (height, width), (rows, columns) = picture.rgb.shape[:2], inverse.shape
    fx = focal_widths * columns
    fy = focal_widths * width / height * rows  # square pixels in the image, not on the model's grid
    intrinsics = np.array([fx, fy, (columns - 1) / 2, (rows - 1) / 2])
    return Lifted(depth.astype(np.float32), intrinsics, metric=True)


def load(
    source: str, revision: str | None, device: str | torch.device = "cpu", allowed: Sequence[str] = ()
) -> DepthProLifter:
    """Depth Pro from a folder with config.json, preprocessor and *.safetensors, or from the hub; in float32.

    Args:
        revision: commit of a hub id, or the expected revision of a folder.
        allowed: patterns of tensors that may differ (`poma3d.pretrained.loading`).

    Raises:
        ValueError: it cannot be loaded whole, or has other weights than `revision`.
    """
    from transformers import DepthProForDepthEstimation
    from transformers.image_processing_base import ImageProcessingMixin
    from transformers.image_utils import IMAGENET_STANDARD_MEAN, IMAGENET_STANDARD_STD

    actual = weights_revision(source, revision, parts=NEEDED)
    commit = hub_commit(source, revision)
    with reported(source, "lifter"):
        if commit is not None:
            check_parts(source, commit, "lifter", NEEDED)
        pixels, _ = ImageProcessingMixin.get_image_processor_dict(source, revision=commit)
    model = load_transformers(DepthProForDepthEstimation, source, "lifter", allowed, revision=commit)
    # What a preprocessor does not say are its class's values.
    mean = pixels.get("image_mean") or IMAGENET_STANDARD_MEAN
    return DepthProLifter(model.to(device), actual, mean, pixels.get("image_std") or IMAGENET_STANDARD_STD)
