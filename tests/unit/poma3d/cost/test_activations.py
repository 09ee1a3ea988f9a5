"""Counting without computing agrees with the real stages."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from poma3d.cost.activations import activations, meta_stage, outline, stage_size
from poma3d.network.config import LossConfig, ModelConfig
from poma3d.stages import MainStage, WarmupStage, build_stage
from tests.helpers import tiny

SAMPLES = 3
TOLERANCE = 0.05


def saved_bytes(stage: WarmupStage | MainStage) -> int:
    """What autograd really keeps of a micro-batch, beside parameters and the batch."""
    batch = stage.fake_batch(SAMPLES)
    own = {p.untyped_storage().data_ptr() for p in stage.parameters()}
    own |= {t.untyped_storage().data_ptr() for t in batch.values() if isinstance(t, Tensor)}
    seen: dict[int, Tensor] = {}

    def pack(tensor: Tensor) -> Tensor:
        if tensor.untyped_storage().data_ptr() not in own:
            seen[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        encoded = stage(batch)
        assert encoded.features["view"].requires_grad
    return sum(tensor.untyped_storage().nbytes() for tensor in seen.values())


@pytest.mark.parametrize("mode", ["full", "lora"])
@pytest.mark.parametrize("kind", ["warmup", "main"])
def test_counts_what_autograd_keeps(kind: str, mode: str) -> None:
    model, loss, shape = tiny.model_config(mode, dropout=0.1), LossConfig(), tiny.shape()
    real = build_stage(kind, model, loss, shape, tiny.tower(), seed=0)
    counted = activations(meta_stage(kind, model, loss, shape, outline(tiny.tower().shape)), torch.float32)
    assert SAMPLES * sum(counted.saved.values()) == pytest.approx(saved_bytes(real), rel=TOLERANCE)


@pytest.mark.parametrize("tower", ["clip", "siglip"])
@pytest.mark.parametrize("mode", ["full", "lora"])
@pytest.mark.parametrize("kind", ["warmup", "main"])
def test_counts_the_parameters_of_the_real_stage(kind: str, mode: str, tower: str) -> None:
    model, loss = tiny.model_config(mode), LossConfig()
    shape = tiny.shape(joint=tiny.JOINT if tower == "clip" else tiny.WIDTH)
    real = build_stage(kind, model, loss, shape, tiny.tower(tower), seed=0)
    size = stage_size(meta_stage(kind, model, loss, shape, outline(tiny.tower(tower).shape)))
    assert size.parameters == sum(p.numel() for p in real.parameters())
    assert size.trainable == sum(p.numel() for p in real.parameters() if p.requires_grad)
    named = dict(real.named_parameters())
    assert size.averaged == sum(named[name].numel() for name in real.ema_pairs())


def counted(model: ModelConfig, dtype: torch.dtype = torch.float32) -> int:
    stage = meta_stage("main", model, LossConfig(), tiny.shape(), outline(tiny.tower().shape))
    return sum(activations(stage, dtype).saved.values())


def test_bf16_keeps_half_and_checkpointing_keeps_less() -> None:
    model = tiny.model_config()
    full = counted(model)
    assert 0.4 < counted(model, torch.bfloat16) / full < 0.7
    model.encoder.gradient_checkpointing = True
    assert counted(model) < 0.8 * full


def test_the_stage_is_left_as_it_was() -> None:
    model = tiny.model_config()
    model.encoder.gradient_checkpointing = True
    stage = meta_stage("main", model, LossConfig(), tiny.shape(), outline(tiny.tower().shape))
    activations(stage, torch.bfloat16)
    assert stage.encoder.vit.blocks.checkpointing
    assert {p.dtype for p in stage.parameters()} == {torch.float32}


def test_a_micro_batch_grows_by_samples_and_the_search_does_not() -> None:
    stage = meta_stage("main", tiny.model_config(), LossConfig(), tiny.shape(), outline(tiny.tower().shape))
    kept = activations(stage, torch.float32)
    assert kept.block > 0
    assert kept.of(5) - kept.block == 5 * (kept.of(1) - kept.block)
