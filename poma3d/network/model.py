"""What the model and its losses are made of: the configs, their checks, and the temperature."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from poma3d import ema, masking
from poma3d.network import encoder, predictor
from poma3d.network.config import (
    CHAMFER,
    MEAN,
    SMOOTH_L1,
    SUM,
    LossConfig,
    ModelConfig,
)
from poma3d.network.vit import ImageTower
from poma3d.sample import SampleShape

MAX_SCALE = 100.0
"""exp(logit_scale) is clamped here when it is trained, as in CLIP."""


def validate_settings(model: ModelConfig) -> None:
    """What can be refused without samples and a teacher.

    Raises:
        ValueError: naming the field.
    """
    encoder.validate(model.encoder)
    predictor.validate(model.predictor)
    ema.validate(model.ema)


def validate(model: ModelConfig, loss: LossConfig, shape: SampleShape, tower: ImageTower) -> None:
    """Refuse contradictions before anything is built.

    Raises:
        ValueError: naming the fields, the numbers that disagree and what to do.
    """
    validate_settings(model)
    masking.validate(model.masks, patch_grid(shape, tower))
    if tower.shape.channels != 3:
        raise ValueError(
            f"the teacher's patch embedding has {tower.shape.channels} channels; point maps have 3"
        )
    if shape.embedding != tower.shape.joint:
        raise ValueError(
            f"the samples have embeddings of width {shape.embedding}, the teacher's joint space has "
            f"{tower.shape.joint}: embed them with this teacher"
        )
    for name, choices in (("jepa_distance", (CHAMFER, SMOOTH_L1)), ("jepa_reduction", (MEAN, SUM))):
        if getattr(loss, name) not in choices:
            raise ValueError(f"loss.{name} is '{getattr(loss, name)}'; use one of {', '.join(choices)}")
    tokens = (shape.image_tokens, shape.token_width)
    wanted = (math.prod(patch_grid(shape, tower)), tower.shape.width)
    if loss.dense and tokens != wanted:
        raise ValueError(
            f"loss.dense needs {wanted[0]} teacher tokens of width {wanted[1]} per view, the samples have "
            f"{tokens[0]} of width {tokens[1]}: embed them with image tokens, at the size of this teacher"
        )
    for name in ("view", "scene", "jepa", "dense"):
        if getattr(loss, name) < 0:
            raise ValueError(f"loss.{name} is {getattr(loss, name)}; a weight cannot be negative")


def patch_grid(shape: SampleShape, tower: ImageTower) -> tuple[int, int]:
    """(rows, columns) of patches of a view.

    Raises:
        ValueError: views that are not whole patches.
    """
    patch = tower.shape.patch
    if shape.height % patch or shape.width % patch:
        raise ValueError(
            f"views of {shape.height} x {shape.width} are not whole patches of {patch}: "
            f"use a multiple of {patch}"
        )
    return shape.height // patch, shape.width // patch


class Temperature(nn.Module):
    """Multiplies unit features by s = exp(logit_scale), so that the losses need no parameters."""

    def __init__(self, logit_scale: float, trained: bool) -> None:
        super().__init__()
        self.start = logit_scale
        # Only the change is a parameter: bfloat16 would round a logit_scale of 4.6 so that s is 1 % off.
        # Shape (1,): DeepSpeed cannot hold a parameter without dimensions.
        self.change = nn.Parameter(torch.zeros(1), requires_grad=trained)

    def forward(self, features: Tensor) -> Tensor:
        """[..., E] float32 -> s * features."""
        logit_scale = self.start + self.change.float()
        return features * logit_scale.clamp(max=math.log(MAX_SCALE)).exp()
