"""The bound is above the count for every kind of model and stage, and near enough to be of use."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from jobs.plan.bound import LEAST_WIDTHS_OF_RANK, SHARED_GRADIENTS, WHOLE_GRADIENTS
from jobs.plan.estimate import PAPERS_TOWER
from jobs.plan.memory import memory
from plinth.engine.config import Precision, ZeroConfig
from poma3d.cost.activations import Activations, activations, meta_stage, outline, stage_size
from poma3d.cost.bound import most_activations
from poma3d.network.config import LORA_TARGETS, EncoderConfig, LossConfig, ModelConfig, TuningConfig
from poma3d.network.vit import VitShape
from poma3d.sample import SampleShape
from tests.helpers import tiny

MOST = 40
TOWERS = {
    "tiny": tiny.tower().shape,
    "tiny, SigLIP": tiny.tower("siglip").shape,
    "ViT-B/16": PAPERS_TOWER,
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


def with_adapters(rank: int, targets: int = len(LORA_TARGETS)) -> ModelConfig:
    tuning = TuningConfig(mode="lora", rank=rank, dropout=0.1, targets=list(LORA_TARGETS)[:targets])
    return ModelConfig(encoder=EncoderConfig(tuning=tuning))


def test_adapters_on_all_layers_are_below_it_where_little_is_hidden() -> None:
    """The encoder's two passes of the main stage are then nearly all that is kept."""
    tower = replace(PAPERS_TOWER, layers=4)
    model = with_adapters(PAPERS_TOWER.width // LEAST_WIDTHS_OF_RANK)
    model.masks.target_blocks, model.predictor.layers = 1, 1
    shape = SampleShape(2, *tower.image_size, embedding=tower.joint)
    counted = activations(meta_stage("main", model, LossConfig(), shape, outline(tower)), torch.float32)
    model.encoder.tuning.mode = "full"
    most = most_activations(meta_stage("main", model, LossConfig(), shape, outline(tower)))
    assert counted.saved["context encoder"] <= most.saved["context encoder"]


@pytest.mark.parametrize("precision", Precision)
@pytest.mark.parametrize("stage", [0, 1, 2, 3])
def test_adapters_take_less_than_all_weights(stage: int, precision: Precision) -> None:
    if (stage, precision) == (0, Precision.bf16):
        pytest.skip("has no masters")
    tower = replace(PAPERS_TOWER, layers=4)
    model = with_adapters(PAPERS_TOWER.width // LEAST_WIDTHS_OF_RANK)
    shape = SampleShape(2, *tower.image_size, embedding=tower.joint)
    nothing = Activations({}, 0, 0, 0)
    adapters = stage_size(meta_stage("main", model, LossConfig(), shape, outline(tower)))
    model.encoder.tuning.mode = "full"
    all_weights = stage_size(meta_stage("main", model, LossConfig(), shape, outline(tower)))
    for bucket in (1_000_000, ZeroConfig().bucket_size):
        zero = ZeroConfig(stage=stage, precision=precision, bucket_size=bucket)
        bounded = WHOLE_GRADIENTS if stage == SHARED_GRADIENTS else stage
        for workers in (1, 2, 8, 64, 512):
            held = memory(adapters, nothing, zero, stage, workers, 1).peak
            assert held <= memory(all_weights, nothing, zero, bounded, workers, 1).peak
