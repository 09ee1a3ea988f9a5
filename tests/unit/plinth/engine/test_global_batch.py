"""Cutting, gathering and the surrogate, on one rank; more ranks are in tests/parity."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from plinth.engine import global_batch
from plinth.world import World

ALONE = World(0, 1)


@given(micro_batches=st.integers(1, 5), size=st.integers(1, 4))
def test_split_keeps_the_order_of_tensors_and_lists(micro_batches: int, size: int) -> None:
    rows = micro_batches * size
    batch = {"x": torch.arange(rows * 2).view(rows, 2), "sample_id": [str(i) for i in range(rows)]}
    parts = global_batch.split(batch, size)
    assert len(parts) == micro_batches
    assert torch.equal(torch.cat([p["x"] for p in parts]), batch["x"])
    assert [i for p in parts for i in p["sample_id"]] == batch["sample_id"]


def test_seeds_differ_by_run_step_and_place_but_not_by_world() -> None:
    seeds = {global_batch.pass_seed(s, t, m) for s in range(3) for t in range(4) for m in range(5)}
    assert len(seeds) == 60
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert global_batch.pass_seed(1, 2, 3) == global_batch.pass_seed(1, 2, 3)


def test_gather_joins_micro_batches_and_widens_bf16() -> None:
    parts = [
        {"f": torch.ones(2, 3, dtype=torch.bfloat16, requires_grad=True), "v": torch.tensor([True, False])}
    ] * 2
    gathered = global_batch.gather(parts, ALONE)
    assert gathered["f"].dtype == torch.float32
    assert gathered["f"].shape == (4, 3)
    assert not gathered["f"].requires_grad
    assert gathered["v"].tolist() == [True, False, True, False]


def test_surrogate_has_gradient_of_loss() -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(6, 4, generator=generator, dtype=torch.float64)
    weight = torch.randn(4, 3, generator=generator, dtype=torch.float64, requires_grad=True)

    def loss(f: torch.Tensor) -> torch.Tensor:
        return (f @ f.T).logsumexp(1).sum()  # every row meets every other

    loss(x @ weight).backward()
    expected = weight.grad
    weight.grad = None
    gathered = global_batch.gather([{"f": x @ weight}], ALONE)
    gathered["f"].requires_grad_()
    grads = global_batch.gradients(loss(gathered["f"]), gathered, ALONE, micro_batches=3)
    for k, rows in enumerate(x.chunk(3)):
        surrogate = global_batch.surrogate({"f": rows @ weight}, grads[k])
        assert surrogate is not None
        surrogate.backward()
    torch.testing.assert_close(weight.grad, expected)


def test_features_without_influence_have_no_gradient() -> None:
    features = {"used": torch.ones(4, 2, requires_grad=True), "unused": torch.ones(4, 2, requires_grad=True)}
    grads = global_batch.gradients(features["used"].sum(), features, ALONE, micro_batches=2)
    assert [set(g) for g in grads] == [{"used"}, {"used"}]
    nothing = global_batch.gradients(torch.tensor(1.0), features, ALONE, micro_batches=2)
    assert nothing == [{}, {}]
    assert global_batch.surrogate(features, {}) is None


def test_surrogate_ignores_features_without_grad() -> None:
    grads = {"teacher": torch.ones(2, 2)}
    assert global_batch.surrogate({"teacher": torch.ones(2, 2)}, grads) is None


def test_to_device_leaves_lists() -> None:
    moved = global_batch.to_device({"x": torch.ones(1), "sample_id": ["a"]}, torch.device("cpu"))
    assert moved["sample_id"] == ["a"]
    assert moved["x"] == pytest.approx(1.0)
