"""VGGT through its official package: depth, camera and confidence of one image, up to scale.

Only the aggregator, the camera head and the depth head are run: unprojecting depth is more exact than the
point head, and nothing is tracked. The package is not on the registries; it is installed from its repository.

It was trained on pictures 518 pixels wide and not higher than that. So a picture in portrait is laid in the
middle of a white square, as the authors' `load_and_preprocess_images(mode="pad")` does, and its part of the
answer is cut out again. The model's principal point is the middle of what it is shown: the picture's.

Legend: n pictures of one size, S = 1 frame each, y x the picture's grid (sides are multiples of 14).
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F

from poma3d.lift.lifter import DECODE_SIDE_PX, BadImage, InputImage, Lifted
from poma3d.pretrained.folder import CONFIG, SAFETENSORS, hub_commit, weights_revision
from poma3d.pretrained.loading import load_module, reported, seeded

NAME = "vggt"
SIDE = 518
"""Longer side of the input: the width that the model was trained at."""
PATCH = 14
WHITE = 1.0
"""Of the margins beside a picture in portrait; pixels are in [0, 1]."""
INSTALL = "pip install git+https://github.com/facebookresearch/vggt.git"


class VggtLifter:
    """`poma3d.lift.lifter.Lifter` around a loaded model; `load` makes one.

    Args:
        model: a `vggt.models.vggt.VGGT`, or anything with its aggregator and heads.
        decode: its `pose_encoding_to_extri_intri`.
        revision: which weights it has.
        side: longer side of the input in pixels.
    """

    name = NAME
    decode_side_px = DECODE_SIDE_PX

    def __init__(self, model: Any, decode: Any, revision: str, side: int = SIDE) -> None:
        self.revision = revision
        self._model = model.eval().requires_grad_(False)
        self._decode = decode
        self._side = side
        self._device = next(model.parameters()).device

    def lift(self, pictures: Sequence[InputImage]) -> list[Lifted | BadImage]:
        """Depth up to scale with camera and confidence; pictures of one grid go through together."""
        grids = [model_grid(p.rgb.shape[0], p.rgb.shape[1], self._side) for p in pictures]
        lifted: dict[int, Lifted] = {}
        for grid in dict.fromkeys(grids):
            members = [i for i, other in enumerate(grids) if other == grid]
            lifted.update(zip(members, self._same_size([pictures[i] for i in members], grid), strict=True))
        return [lifted[i] for i in range(len(pictures))]

    @torch.inference_mode()
    def _same_size(self, pictures: Sequence[InputImage], grid: tuple[int, int]) -> list[Lifted]:
        rows, columns = grid
        left = max(0, rows - columns) // 2  # both are multiples of 14, so the margins are equal
        images = torch.stack([self._pixels(picture.rgb, grid) for picture in pictures])[:, None]
        images = F.pad(images, (left, left), value=WHITE)
        # As in the authors' example: half precision in the aggregator alone, full in the heads.
        kind = self._device.type
        with torch.autocast(kind, torch.bfloat16, enabled=kind == "cuda"):
            tokens, first_patch = self._model.aggregator(images)
        with torch.autocast(kind, enabled=False):
            encoding = self._model.camera_head(tokens)[-1]
            depth, confidence = self._model.depth_head(tokens, images, first_patch)
        shown = slice(left, left + columns)
        depth, confidence = depth[:, :, :, shown], confidence[:, :, :, shown]
        _, cameras = self._decode(encoding, (rows, columns + 2 * left))
        out = []
        for i in range(len(pictures)):
            camera = cameras[i, 0].double().cpu().numpy()
            # Its principal point is the middle of the image, counted from the corner of the first pixel.
            fx, fy, cx, cy = camera[0, 0], camera[1, 1], camera[0, 2] - 0.5 - left, camera[1, 2] - 0.5
            out.append(
                Lifted(
                    depth[i, 0, :, :, 0].float().cpu().numpy(),
                    np.array([fx, fy, cx, cy]),
                    metric=False,
                    confidence=confidence[i, 0].float().cpu().numpy(),
                )
            )
        return out

    def _pixels(self, rgb: np.ndarray, grid: tuple[int, int]) -> torch.Tensor:
        """float32 [3, y, x] in [0, 1]."""
        image = torch.tensor(rgb, device=self._device).permute(2, 0, 1).float() / 255
        resized = F.interpolate(image[None], size=grid, mode="bicubic", antialias=True)[0]
        return resized.clamp(0, 1)


def model_grid(height: int, width: int, side: int = SIDE) -> tuple[int, int]:
    """Rows and columns of the model's input for an image: its longer side is `side`, nothing is cropped."""
    scale = side / max(height, width)
    rows, columns = (max(1, round(edge * scale / PATCH)) * PATCH for edge in (height, width))
    return rows, columns


def load(
    source: str, revision: str | None, device: str | torch.device = "cpu", allowed: Sequence[str] = ()
) -> VggtLifter:
    """VGGT from a folder with config.json and model.safetensors, or from the hub; in float32.

    Its class has a `from_pretrained` of huggingface_hub's, which lets tensors be missing without a word: here
    the class is made from config.json as that would make it, and its tensors are read by `load_module`.

    Args:
        revision: commit of a hub id, or the expected revision of a folder.
        allowed: patterns of tensors that may differ (`poma3d.pretrained.loading`).

    Raises:
        ValueError: the package is missing, or the weights cannot be loaded whole.
    """
    try:
        from vggt.models.vggt import VGGT  # type: ignore[import-not-found]
        from vggt.utils.pose_enc import pose_encoding_to_extri_intri  # type: ignore[import-not-found]
    except ImportError as error:
        raise ValueError(f"the lifter vggt needs its official package: {INSTALL}") from error
    from transformers.utils import cached_file

    actual = weights_revision(source, revision)
    commit = hub_commit(source, revision)
    with reported(source, "lifter"):
        config, weights = (Path(cached_file(source, name, revision=commit)) for name in (CONFIG, SAFETENSORS))
        taken = inspect.signature(VGGT).parameters
        with seeded():
            model = VGGT(**{k: v for k, v in json.loads(config.read_text()).items() if k in taken})
    load_module(model, [weights], source, "lifter", allowed)
    return VggtLifter(model.to(device), pose_encoding_to_extri_intri, actual)
