"""A tiny Depth Pro of the real class with random weights, saved as a folder that a lift job can name."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from transformers import DepthProConfig, DepthProForDepthEstimation

PATCH_IMAGE = 16
"""Side of the model's patches; its input is four times as large."""


def save_depth_pro(folder: Path) -> None:
    """Write config.json, preprocessor_config.json and model.safetensors."""
    vision = {
        "model_type": "dinov2", "image_size": PATCH_IMAGE, "patch_size": 4, "hidden_size": 8,
        "num_hidden_layers": 2, "num_attention_heads": 2, "mlp_ratio": 2,
    }  # fmt: skip
    config = DepthProConfig(
        fusion_hidden_size=16, patch_size=PATCH_IMAGE, intermediate_hook_ids=[1, 0],
        intermediate_feature_dims=[8, 8], scaled_images_feature_dims=[8, 8, 8], merge_padding_value=0,
        use_fov_model=True, image_model_config=dict(vision), patch_model_config=dict(vision),
        fov_model_config=dict(vision),
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = DepthProForDepthEstimation(config)
    with torch.no_grad():
        model.fov_model.head.layers[-1].bias.fill_(60.0)  # degrees: a camera that could be
        model.head.layers[-2].bias.fill_(0.3)  # inverse depth above zero
    model.save_pretrained(folder)
    pixels = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3}
    (folder / "preprocessor_config.json").write_text(json.dumps(pixels))
