"""The engine against plain single-process PyTorch: same losses, norms, weights, target copy and gradients."""

from __future__ import annotations

from functools import cache

import pytest
import torch

from tests.helpers import reference
from tests.helpers.ranks import run_ranks
from tests.helpers.reference import Trained
from tests.helpers.runs import OPTIM, SEED, Case, first_gradients, global_batches, train_cases
from tests.helpers.toy.stage import ToyStage

pytestmark = pytest.mark.slow
TOLERANCE = 1e-5
STAGES = (0, 1, 2, 3)
SHORT = (1, 2)
"""Stages at which gradients of one message go round DeepSpeed's hooks."""
# 20 steps, dropout on: several micro-batches (two passes) at every stage, and one (a single pass).
FP32 = {
    1: [
        *(Case(z, micro_batch_size=4) for z in STAGES),
        *(Case(z, micro_batch_size=4, one_message=True) for z in SHORT),
        *(Case(2, micro_batch_size=16, one_message=is_short) for is_short in (False, True)),
    ],
    2: [
        *(Case(z, micro_batch_size=4) for z in STAGES),
        *(Case(z, micro_batch_size=4, one_message=True) for z in SHORT),
        *(Case(z, micro_batch_size=8) for z in (0, 2, 3)),
        Case(2, micro_batch_size=8, one_message=True),
    ],
}
BF16 = [
    *(Case(z, precision="bf16", micro_batch_size=4, steps=8, clips=False) for z in (1, 2, 3)),
    Case(2, precision="bf16", micro_batch_size=4, steps=8, clips=False, one_message=True),
]
GRADIENTS = [(1, 1), (1, 4), (1, 16), (2, 2), (2, 8), (4, 1), (4, 4)]  # world size, micro-batch size


@cache
def engine_runs(world_size: int) -> list[tuple[Case, Trained]]:
    """All runs at a world size, from rank 0, in one start of the processes."""
    cases = [*FP32.get(world_size, []), *BF16]
    return list(zip(cases, run_ranks(world_size, train_cases, cases)[0], strict=True))


@cache
def plain_run(micro_batch_size: int) -> Trained:
    """The reference; dropout depends on the micro-batch, so each size has its own."""
    case = Case(0, micro_batch_size=micro_batch_size)
    return reference.train(
        ToyStage(), global_batches(case.steps), OPTIM, micro_batch_size, SEED, case.total_steps
    )


@pytest.mark.parametrize("world_size", FP32)
def test_fp32_equals_plain_pytorch_after_20_steps(world_size: int) -> None:
    for case, trained in engine_runs(world_size):
        if case.precision != "fp32":
            continue
        plain = plain_run(case.micro_batch_size)
        assert trained.losses == pytest.approx(plain.losses, abs=TOLERANCE), case
        assert trained.grad_norms == pytest.approx(plain.grad_norms, abs=TOLERANCE), case
        assert max(plain.grad_norms) > OPTIM.grad_clip, "clipping must be part of the test"
        assert trained.weights.keys() == plain.weights.keys()
        for name, weights in plain.weights.items():
            torch.testing.assert_close(trained.weights[name], weights, rtol=0, atol=TOLERANCE, msg=str(case))


def test_fp32_is_identical_at_any_world_size() -> None:
    """From the first step on; test_checkpoint_parity goes on with four ranks, and has the moments."""
    alone = {
        (c.zero, c.micro_batch_size, c.one_message): r for c, r in engine_runs(1) if c.precision == "fp32"
    }
    compared = 0
    for case, trained in engine_runs(2):
        expected = alone.get((case.zero, case.micro_batch_size, case.one_message))
        if case.precision != "fp32" or expected is None:
            continue
        assert trained.losses == expected.losses, case
        assert trained.grad_norms == expected.grad_norms, case
        for name, weights in expected.weights.items():
            assert torch.equal(trained.weights[name], weights), f"{case}: {name}"
        compared += 1
    assert compared == len(STAGES) + len(SHORT)


@pytest.mark.parametrize("world_size", FP32)
def test_both_ways_of_gradients_give_the_same_bits(world_size: int) -> None:
    runs = engine_runs(world_size)
    long = {
        (c.zero, c.micro_batch_size): run for c, run in runs if c.precision == "fp32" and not c.one_message
    }
    compared = 0
    for case, trained in runs:
        if case.precision == "fp32" and case.one_message:
            expected = long[case.zero, case.micro_batch_size]
            assert trained.losses == expected.losses, case
            assert trained.grad_norms == expected.grad_norms, case
            for name, weights in expected.weights.items():
                assert torch.equal(trained.weights[name], weights), f"{case}: {name}"
            compared += 1
    assert compared == len(SHORT) + 1


def test_training_changes_what_it_should() -> None:
    initial = dict(ToyStage().named_parameters())
    plain = plain_run(4)
    for name, weights in plain.weights.items():
        moved = not torch.equal(weights, initial[name])
        is_base = ".base." in name
        assert moved != is_base, name


@pytest.mark.parametrize("world_size", [2, 4])
def test_bf16_weights_are_identical_at_any_world_size(world_size: int) -> None:
    alone = {case.zero: run for case, run in engine_runs(1) if case.precision == "bf16"}
    for case, trained in engine_runs(world_size):
        if case.precision != "bf16":
            continue
        assert trained.losses == pytest.approx(alone[case.zero].losses, abs=1e-6)
        for name, weights in alone[case.zero].weights.items():
            assert torch.equal(trained.weights[name], weights), f"{case}: {name}"


def test_bf16_stays_near_fp32() -> None:
    plain = plain_run(4)
    for case, trained in engine_runs(1):
        if case.precision == "bf16":
            assert trained.losses == pytest.approx(plain.losses[: case.steps], abs=0.05)


@cache
def plain_gradients(micro_batch_size: int) -> dict[str, torch.Tensor]:
    """Gradients of the loss over the global batch by autograd in float64, without dropout."""
    stage = ToyStage(dropout=0.0).double()
    batch = {k: v.double() if k in ("x", "y") else v for k, v in global_batches(1)[0].items()}
    reference.global_loss(stage, batch, micro_batch_size, SEED, step=0).backward()
    return {n: p.grad for n, p in stage.named_parameters() if p.grad is not None}


@cache
def engine_gradients(world_size: int) -> dict[int, dict[str, torch.Tensor]]:
    """Micro-batch size -> gradients, from rank 0."""
    sizes = [micro for world, micro in GRADIENTS if world == world_size]
    return dict(zip(sizes, run_ranks(world_size, first_gradients, sizes)[0], strict=True))


@pytest.mark.parametrize(("world_size", "micro_batch_size"), GRADIENTS)
def test_gradients_are_those_of_the_global_batch(world_size: int, micro_batch_size: int) -> None:
    found = engine_gradients(world_size)[micro_batch_size]
    for name, gradient in plain_gradients(micro_batch_size).items():
        scale = gradient.abs().max()
        torch.testing.assert_close(found[name].double(), gradient, rtol=0, atol=1e-6 * float(scale) + 1e-9)


def test_the_reference_needs_the_whole_batch() -> None:
    """The gradients above would not be met by contrasting within micro-batches."""
    batch = global_batches(1)[0]
    stage = ToyStage(dropout=0.0)
    for rows in (slice(0, 8), slice(8, 16)):
        (reference.global_loss(stage, {k: v[rows] for k, v in batch.items()}, 8, SEED, 0) / 2).backward()
    wrong, right = stage.encoder.patch.weight.grad, plain_gradients(8)["encoder.patch.weight"]
    assert wrong is not None
    assert (wrong - right).norm() / right.norm() > 0.05
