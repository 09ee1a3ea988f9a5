"""The bound is above the count for every kind of model and stage, and near enough to be of use."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from poma3d.cost.activations import activations, meta_stage, outline
from poma3d.cost.bound import most_activations
from poma3d.network.config import LORA_TARGETS, EncoderConfig, LossConfig, ModelConfig, TuningConfig
from poma3d.network.vit import VitShape
from poma3d.sample import SampleShape
from tests.helpers import tiny

MOST = 40
BASE = VitShape(
    grid=(14, 14), patch=16, channels=3, width=768, layers=12, heads=12, mlp_width=3072,
    activation="quick_gelu", norm_eps=1e-5, pooling="class", joint=512,
)  # fmt: skip
TOWERS = {
    "tiny": tiny.tower().shape,
    "tiny, SigLIP": tiny.tower("siglip").shape,
    "ViT-B/16": BASE,
}


def model_of(tower: VitShape, mode: str) -> ModelConfig:
    if tower.width == tiny.WIDTH:
        return tiny.model_config(mode, dropout=0.1)
    return replace(ModelConfig(), encoder=replace(tiny.model_config(mode, dropout=0.1).encoder))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("again", [False, True])
@pytest.mark.parametrize("mode", ["full", "lora"])
@pytest.mark.parametrize("name", TOWERS)
@pytest.mark.parametrize("kind", ["warmup", "main"])
def test_no_count_is_above_it(kind: str, name: str, mode: str, again: bool, dtype: torch.dtype) -> None:
    tower = TOWERS[name]
    model, loss = model_of(tower, mode), LossConfig()
    model.encoder.gradient_checkpointing = again
    views = 1 if kind == "warmup" else 8
    shape = SampleShape(views, *tower.image_size, embedding=tower.joint)
    stage = meta_stage(kind, model, loss, shape, outline(tower))
    counted, most = activations(stage, dtype), most_activations(stage)
    for samples in (1, 16):
        assert counted.of(samples) <= most.of(samples)
        assert tower.width == tiny.WIDTH or most.of(samples) <= MOST * counted.of(samples)
    assert sum(counted.saved.values()) <= sum(most.saved.values())


def test_adapters_on_all_layers_are_below_it_where_little_is_hidden() -> None:
    """The encoder's two passes of the main stage are then nearly all that is kept."""
    tower = replace(BASE, layers=4)
    tuning = TuningConfig(mode="lora", rank=tower.width // 8, dropout=0.1, targets=list(LORA_TARGETS))
    model = ModelConfig(encoder=EncoderConfig(tuning=tuning))
    model.masks.target_blocks, model.predictor.layers = 1, 1
    shape = SampleShape(2, *tower.image_size, embedding=tower.joint)
    counted = activations(meta_stage("main", model, LossConfig(), shape, outline(tower)), torch.float32)
    model.encoder.tuning.mode = "full"
    most = most_activations(meta_stage("main", model, LossConfig(), shape, outline(tower)))
    assert counted.saved["context encoder"] <= most.saved["context encoder"]
