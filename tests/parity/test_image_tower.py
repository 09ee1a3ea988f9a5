"""Our vision transformer against transformers' own forward, from the same weights."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from poma3d.network.config import EncoderConfig, TuningConfig
from poma3d.network.encoder import build_encoder, merge_adapters
from poma3d.network.vit import ImageTower
from poma3d.pretrained.towers import image_tower
from tests.helpers import tiny


def models() -> list[Any]:
    return [tiny.clip_model(), tiny.siglip_model()]


@pytest.mark.parametrize("model", models(), ids=["clip", "siglip"])
def test_pooled_feature_and_patch_tokens(model: Any) -> None:
    pixels = torch.randn(3, 3, tiny.IMAGE_SIZE, tiny.IMAGE_SIZE)
    with torch.no_grad():
        theirs = model.get_image_features(pixels)
        ours = image_tower(model).build()(pixels)
    torch.testing.assert_close(ours.pooled, theirs.pooler_output, atol=1e-5, rtol=1e-4)
    tokens = theirs.last_hidden_state[:, -tiny.TOKENS :]
    torch.testing.assert_close(ours.tokens, tokens, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("model", models(), ids=["clip", "siglip"])
@pytest.mark.parametrize("size", [(64, 64), (32, 56)])
def test_another_grid_interpolates_positions_as_transformers_does(model: Any, size: tuple[int, int]) -> None:
    pixels = torch.randn(2, 3, *size)
    grid = (size[0] // tiny.PATCH, size[1] // tiny.PATCH)
    with torch.no_grad():
        theirs = model.get_image_features(pixels, interpolate_pos_encoding=True)
        ours = image_tower(model).on_grid(grid).build()(pixels)
    torch.testing.assert_close(ours.pooled, theirs.pooler_output, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("model", models(), ids=["clip", "siglip"])
def test_a_pass_over_some_tokens_is_transformers_layers_on_those_tokens(model: Any) -> None:
    pixels = torch.randn(2, 3, tiny.IMAGE_SIZE, tiny.IMAGE_SIZE)
    keep = torch.tensor([[0, 3, 7], [1, 2, 35]])
    vision = model.vision_model
    has_class = hasattr(vision, "pre_layrnorm")
    with torch.no_grad():
        embedded = vision.embeddings(pixels)
        embedded = vision.pre_layrnorm(embedded) if has_class else embedded
        index = torch.cat([torch.zeros(2, 1, dtype=torch.long), keep + 1], dim=1) if has_class else keep
        x = torch.stack([embedded[i, index[i]] for i in range(2)])
        for layer in vision.encoder.layers:
            x = layer(x, None)
        expected = x[:, 1:] if has_class else vision.post_layernorm(x)
        ours = image_tower(model).build()(pixels, keep)
    assert ours.kept is not None
    torch.testing.assert_close(ours.kept, expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("kind", ["clip", "siglip"])
def test_merged_adapters_give_the_same_features(kind: str) -> None:
    tower: ImageTower = tiny.tower(kind)
    encoder = build_encoder(EncoderConfig(tuning=TuningConfig(rank=4, alpha=8.0)), tower, (6, 6)).eval()
    with torch.no_grad():
        for name, p in encoder.named_parameters():
            if "lora_" in name:
                p.normal_(std=0.1)
        points = torch.randn(2, 3, 48, 48)
        keep = torch.tensor([[0, 3, 7], [1, 2, 35]])
        before = encoder(points, keep)
        plain = tower.build()(points)
        merge_adapters(encoder.vit)
        after = encoder(points, keep)
    assert not any("lora" in name for name, _ in encoder.named_parameters())
    assert (before.pooled - plain.pooled).abs().max() > 0.01  # the adapters do something
    for a, b in zip(before, after, strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-5)
