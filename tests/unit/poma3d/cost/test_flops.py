"""The counted model agrees with torch's own counter on the real stages."""

from __future__ import annotations

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode, sdpa_backward_flop_count, sdpa_flop_count

from poma3d.cost.flops import stage_flops
from poma3d.network.config import LossConfig, ModelConfig
from poma3d.sample import SampleShape
from poma3d.stages import build_stage
from tests.helpers import tiny

SAMPLES = 2
TOLERANCE = 0.01
# torch counts the attention of GPUs; that of CPUs is the same products under another name.
ATTENTION = {
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: (
        lambda q, k, v, *_, **__: sdpa_flop_count(q, k, v)
    ),
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward: (
        lambda grad, q, k, v, *_, **__: sdpa_backward_flop_count(grad, q, k, v)
    ),
}


def counter() -> FlopCounterMode:
    return FlopCounterMode(display=False, custom_mapping=ATTENTION)


def counted_by_torch(
    kind: str, model: ModelConfig, loss: LossConfig, shape: SampleShape, tower: str
) -> float:
    """A step of one micro-batch: forward, contrastive losses, backward through both."""
    stage = build_stage(kind, model, loss, shape, tiny.tower(tower), seed=0)
    batch = stage.fake_batch(SAMPLES)
    with counter() as counted:
        encoded = stage(batch)
        total = stage.contrast(encoded.features).total
        for name, part in encoded.sums.items():
            total = total + encoded.weights[name] * part
        total.backward()
    return float(counted.get_total_flops())


@pytest.mark.parametrize("tower", ["clip", "siglip"])
@pytest.mark.parametrize("mode", ["full", "lora"])
@pytest.mark.parametrize("kind", ["warmup", "main"])
def test_counts_as_torch_does(kind: str, mode: str, tower: str) -> None:
    model, loss = tiny.model_config(mode, dropout=0.0), LossConfig()
    shape = tiny.shape(joint=tiny.JOINT if tower == "clip" else tiny.WIDTH)
    flops = stage_flops(kind, model, loss, shape, tiny.tower(tower), seed=0)
    ours = SAMPLES * flops.per_sample(two_pass=False) + flops.contrast(SAMPLES)
    assert ours == pytest.approx(counted_by_torch(kind, model, loss, shape, tower), rel=TOLERANCE)


def test_checkpointing_costs_one_more_forward_of_the_blocks() -> None:
    model, loss, shape = tiny.model_config(), LossConfig(), tiny.shape()
    model.encoder.gradient_checkpointing = True
    flops = stage_flops("main", model, loss, shape, tiny.tower(), seed=0)
    ours = SAMPLES * flops.per_sample(two_pass=False) + flops.contrast(SAMPLES)
    assert ours == pytest.approx(counted_by_torch("main", model, loss, shape, "clip"), rel=TOLERANCE)


def test_the_first_of_two_passes() -> None:
    model, loss, shape = tiny.model_config(), LossConfig(), tiny.shape()
    stage = build_stage("main", model, loss, shape, tiny.tower(), seed=0)
    batch = stage.fake_batch(SAMPLES)
    with torch.no_grad(), counter() as counted:
        stage(batch, features_only=True)
    flops = stage_flops("main", model, loss, shape, tiny.tower(), seed=0)
    assert flops.first_pass.total * SAMPLES == pytest.approx(counted.get_total_flops(), rel=TOLERANCE)
    difference = flops.per_sample(two_pass=True) - flops.per_sample(two_pass=False)
    assert difference == flops.first_pass.total


def test_without_the_predictor_only_whole_views_are_left() -> None:
    flops = stage_flops("main", tiny.model_config(), LossConfig(jepa=0.0), tiny.shape(), tiny.tower(), seed=0)
    assert list(flops.parts) == ["context encoder, whole views"]
