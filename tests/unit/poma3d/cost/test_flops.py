"""The count on fake tensors is that of the real stages and that of a formula, to the digit."""

from __future__ import annotations

import pytest
import torch

from poma3d.cost.flops import CONTEXT, stage_flops
from poma3d.cost.torch_internals import flop_counter
from poma3d.network.config import LossConfig, ModelConfig
from poma3d.sample import SampleShape
from poma3d.stages import build_stage
from tests.helpers import tiny
from tests.helpers.cost.flops_formula import parts_of_a_sample

SAMPLES = 2


def counted_by_torch(
    kind: str, model: ModelConfig, loss: LossConfig, shape: SampleShape, tower: str
) -> float:
    """A step of one micro-batch: forward, contrastive losses, backward through both."""
    stage = build_stage(kind, model, loss, shape, tiny.tower(tower), seed=0)
    batch = stage.fake_batch(SAMPLES)
    with flop_counter() as counted:
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
    assert ours == counted_by_torch(kind, model, loss, shape, tower)


def test_checkpointing_costs_one_more_forward_of_the_blocks() -> None:
    model, loss, shape = tiny.model_config(), LossConfig(), tiny.shape()
    model.encoder.gradient_checkpointing = True
    flops = stage_flops("main", model, loss, shape, tiny.tower(), seed=0)
    ours = SAMPLES * flops.per_sample(two_pass=False) + flops.contrast(SAMPLES)
    assert ours == counted_by_torch("main", model, loss, shape, "clip")


def test_the_first_of_two_passes() -> None:
    model, loss, shape = tiny.model_config(), LossConfig(), tiny.shape()
    stage = build_stage("main", model, loss, shape, tiny.tower(), seed=0)
    batch = stage.fake_batch(SAMPLES)
    with torch.no_grad(), flop_counter() as counted:
        stage(batch, features_only=True)
    flops = stage_flops("main", model, loss, shape, tiny.tower(), seed=0)
    assert flops.first_pass * SAMPLES == counted.get_total_flops()
    difference = flops.per_sample(two_pass=True) - flops.per_sample(two_pass=False)
    assert difference == flops.first_pass


def test_without_the_predictor_only_whole_views_are_left() -> None:
    flops = stage_flops("main", tiny.model_config(), LossConfig(jepa=0.0), tiny.shape(), tiny.tower(), seed=0)
    assert list(flops.parts) == [CONTEXT]


@pytest.mark.parametrize("tower", ["clip", "siglip"])
@pytest.mark.parametrize("mode", ["full", "lora"])
@pytest.mark.parametrize("again", [False, True], ids=["kept", "recomputed"])
@pytest.mark.parametrize(
    ("kind", "distance"), [("warmup", "chamfer"), ("main", "chamfer"), ("main", "smooth_l1")]
)
def test_counts_as_the_formula_does(kind: str, distance: str, again: bool, mode: str, tower: str) -> None:
    model, loss = tiny.model_config(mode, dropout=0.1), LossConfig(jepa_distance=distance)
    model.encoder.gradient_checkpointing = again
    shape = tiny.shape(joint=tiny.JOINT if tower == "clip" else tiny.WIDTH)
    flops = stage_flops(kind, model, loss, shape, tiny.tower(tower), seed=0)
    assert (flops.parts, flops.first_pass) == parts_of_a_sample(
        kind, model, loss, shape, tiny.tower(tower), seed=0
    )
