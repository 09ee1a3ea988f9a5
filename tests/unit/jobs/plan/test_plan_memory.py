"""The sum over a GPU's memory, by hand."""

from __future__ import annotations

import pytest
import torch

from jobs.plan.memory import PAIR_BYTES, USABLE_SHARE, divisors_up_to, dtype_of, largest_micro_batch, memory
from plinth.engine.config import Precision, ZeroConfig
from poma3d.cost.activations import Activations, StageSize
from poma3d.network.config import LossConfig
from poma3d.stages import build_stage
from tests.helpers import tiny

SIZE = StageSize(parameters=1000, trainable=400, averaged=200)
KEPT = Activations(saved={"encoder": 70, "predictor": 20}, inputs=6, working=4, block=50)
BF16 = ZeroConfig(precision=Precision.bf16, bucket_size=100)
FP32 = ZeroConfig(bucket_size=100)


def test_bf16_by_hand() -> None:
    m = memory(SIZE, KEPT, BF16, stage=2, world_size=4, micro_batch_size=3)
    assert m.weights == 2 * 1000
    assert m.gradients == 4 * 400 // 4, "summed in fp32, sharded"
    assert m.optimizer == (4 + 8) * 400 // 4
    assert m.average == 4 * 200 // 4
    assert m.buckets == 2 * 2 * 100, "twice in bf16"
    assert (m.activations, m.chamfer) == (3 * 100, 50)
    assert m.peak == m.resident + max(300 + 50 + 400, m.step)


def test_the_logits_of_the_global_batch() -> None:
    """In one pass they stand beside the activations, in two they are gone by then."""
    one = memory(SIZE, KEPT, BF16, 2, 4, 3, pairs=100, two_pass=False)
    two = memory(SIZE, KEPT, BF16, 2, 4, 3, pairs=100, two_pass=True)
    assert one.contrast == two.contrast == PAIR_BYTES * 100
    assert one.peak == one.resident + one.contrast + one.activations
    assert two.peak == two.resident + two.contrast
    gpu = 40_000
    assert largest_micro_batch(SIZE, KEPT, BF16, 2, 4, gpu, pairs=100) < largest_micro_batch(
        SIZE, KEPT, BF16, 2, 4, gpu
    )


def test_autograd_keeps_about_half_of_a_pair() -> None:
    samples, views, width = 64, tiny.shape().views, tiny.JOINT
    stage = build_stage("main", tiny.model_config(), LossConfig(), tiny.shape(), tiny.tower(), seed=0)
    rows = {n: torch.randn(samples, views, width) for n in ("view", "image", "text")}
    rows |= {n: torch.randn(samples, width) for n in ("scene", "scene_image", "scene_text")}
    valid = {f"{n}_valid": torch.ones(t.shape[:-1], dtype=torch.bool) for n, t in rows.items()}
    for name in ("view", "scene"):
        rows[name].requires_grad_()
    kept: dict[int, torch.Tensor] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        stage.contrast({**rows, **valid, "key": torch.arange(samples)})
    pairs = (samples * views) ** 2 + samples**2
    saved = sum(tensor.untyped_storage().nbytes() for tensor in kept.values())
    assert 0.5 * PAIR_BYTES < saved / pairs < 0.6 * PAIR_BYTES


def test_fp32_at_stage_0_has_no_masters() -> None:
    m = memory(SIZE, KEPT, FP32, stage=0, world_size=4, micro_batch_size=1)
    assert m.weights == 4 * 1000
    assert m.gradients == 4 * 400
    assert m.optimizer == 8 * 400
    assert m.buckets == 0


@pytest.mark.parametrize("zero", [BF16, FP32])
def test_each_stage_shards_one_thing_more(zero: ZeroConfig) -> None:
    one, two, three = (memory(SIZE, KEPT, zero, stage, 4, 1) for stage in (1, 2, 3))
    assert one.gradients == 4 * two.gradients
    assert one.optimizer == two.optimizer == three.optimizer
    assert two.weights == 4 * three.weights
    assert one.resident > two.resident > three.resident


def test_alone_there_is_nothing_to_shard() -> None:
    stages = [memory(SIZE, KEPT, BF16, stage, 1, 1) for stage in (1, 2, 3)]
    assert len({m.resident for m in stages}) == 1


@pytest.mark.parametrize("stage", [1, 2, 3])
def test_the_largest_micro_batch_fits_and_one_more_does_not(stage: int) -> None:
    gpu = 40_000
    largest = largest_micro_batch(SIZE, KEPT, BF16, stage, 2, gpu)
    assert largest > 1
    assert memory(SIZE, KEPT, BF16, stage, 2, largest).peak <= USABLE_SHARE * gpu
    assert memory(SIZE, KEPT, BF16, stage, 2, largest + 1).peak > USABLE_SHARE * gpu


@pytest.mark.parametrize("gpu", [100, 7000])
def test_a_gpu_that_is_too_small_fits_none(gpu: int) -> None:
    assert largest_micro_batch(SIZE, KEPT, BF16, 1, 1, gpu) == 0


def test_divisors() -> None:
    assert divisors_up_to(5, 48, 8) == [1, 2, 3]
    assert divisors_up_to(100, 48, 8) == [1, 2, 3, 6]
    assert divisors_up_to(100, 48, 7) == []
    assert divisors_up_to(0, 48, 8) == []


def test_dtypes() -> None:
    assert dtype_of(BF16).itemsize == 2
    assert dtype_of(FP32).itemsize == 4
