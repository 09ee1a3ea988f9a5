"""The losses against their formulas written out naively in float64."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from poma3d import losses

TOLERANCE = 1e-5


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def naive_nce(a: Tensor, b: Tensor, valid: list[bool], keys: list[int]) -> Tensor:
    """Mean over valid i of 1/2 [CE(row i) + CE(column i)], pair by pair."""
    rows = [i for i, v in enumerate(valid) if v]
    total = torch.zeros((), dtype=torch.float64)
    for i in rows:
        others = [j for j in rows if j == i or keys[j] != keys[i]]
        forth = torch.stack([a[i] @ b[j] for j in others]).logsumexp(0) - a[i] @ b[i]
        back = torch.stack([a[j] @ b[i] for j in others]).logsumexp(0) - a[i] @ b[i]
        total = total + 0.5 * (forth + back)
    return total / max(len(rows), 1)


def naive_chamfer(x: Tensor, y: Tensor) -> Tensor:
    distance = (x[:, None] - y[None]).square().sum(-1)
    return distance.min(1).values.mean() + distance.min(0).values.mean()


@settings(max_examples=30, deadline=None)
@given(data=st.data(), rows=st.integers(1, 12))
def test_nce(data: st.DataObject, rows: int) -> None:
    valid = data.draw(st.lists(st.booleans(), min_size=rows, max_size=rows))
    keys = data.draw(st.lists(st.integers(0, 5), min_size=rows, max_size=rows))
    a = torch.nn.functional.normalize(random(rows, 6, seed=1), dim=-1) * 10
    b = torch.nn.functional.normalize(random(rows, 6, seed=2), dim=-1)
    exact, ours = a.clone().requires_grad_(), a.float().requires_grad_()
    expected = naive_nce(exact, b, valid, keys)
    found = losses.masked_nce(ours, b.float(), torch.tensor(valid), torch.tensor(keys))
    assert found.dtype is torch.float32
    torch.testing.assert_close(found.double(), expected, atol=TOLERANCE, rtol=TOLERANCE)
    if any(valid):
        expected.backward()
        found.backward()
        torch.testing.assert_close(ours.grad.double(), exact.grad, atol=TOLERANCE, rtol=TOLERANCE)


def test_nce_without_a_valid_row_is_zero_with_zero_gradient() -> None:
    a = random(4, 3).float().requires_grad_()
    loss = losses.masked_nce(a, a.detach(), torch.zeros(4, dtype=torch.bool), torch.arange(4))
    loss.backward()
    assert loss.item() == 0
    assert torch.equal(a.grad, torch.zeros_like(a))


def test_rows_that_do_not_count_change_nothing_even_when_not_finite() -> None:
    a, b = random(5, 3).float(), random(5, 3, seed=1).float()
    valid = torch.tensor([True, True, False, True, False])
    whole = losses.masked_nce(a, b, valid, torch.arange(5))
    few = losses.masked_nce(a[valid], b[valid], torch.ones(3, dtype=torch.bool), torch.arange(3))
    torch.testing.assert_close(whole, few)


@pytest.mark.parametrize("block_elements", [1, 7, 64, 100_000])
@pytest.mark.parametrize(("scenes", "n", "m"), [(1, 1, 1), (3, 13, 9), (2, 8, 40)])
def test_chamfer_values_and_gradients(block_elements: int, scenes: int, n: int, m: int) -> None:
    x, y = random(scenes, n, 24, seed=3), random(scenes, m, 24, seed=4)
    exact = [t.clone().requires_grad_() for t in (x, y)]
    ours = [t.float().requires_grad_() for t in (x, y)]
    expected = torch.stack([naive_chamfer(a, b) for a, b in zip(*exact, strict=True)])
    everything = (torch.ones(scenes, n, dtype=torch.bool), torch.ones(scenes, m, dtype=torch.bool))
    found = losses.chamfer(*ours, *everything, block_elements=block_elements)
    torch.testing.assert_close(found.double(), expected, atol=TOLERANCE, rtol=TOLERANCE)
    weights = torch.arange(1, scenes + 1)
    (expected * weights).sum().backward()
    (found * weights).sum().backward()
    for a, b in zip(ours, exact, strict=True):
        torch.testing.assert_close(a.grad.double(), b.grad, atol=TOLERANCE, rtol=TOLERANCE)


def test_chamfer_far_from_the_origin_keeps_its_precision() -> None:
    # the expanded square cancels there; the distances themselves must not
    x, y = random(1, 50, 8, seed=5) * 0.1 + 30, random(1, 50, 8, seed=6) * 0.1 + 30
    everything = torch.ones(1, 50, dtype=torch.bool)
    found = losses.chamfer(x.float(), y.float(), everything, everything)
    torch.testing.assert_close(found[0].double(), naive_chamfer(x[0], y[0]), atol=1e-2, rtol=0.05)


@settings(max_examples=20, deadline=None)
@given(data=st.data())
def test_chamfer_ignores_invalid_rows(data: st.DataObject) -> None:
    n = data.draw(st.integers(1, 8))
    valid = torch.tensor(data.draw(st.lists(st.booleans(), min_size=n, max_size=n)))
    x, y = random(1, n, 4, seed=7), random(1, n, 4, seed=8)
    found = losses.chamfer(x.float(), y.float(), valid[None], valid[None], block_elements=n)
    expected = naive_chamfer(x[0, valid], y[0, valid]) if valid.any() else torch.zeros(())
    torch.testing.assert_close(found[0].double(), expected.double(), atol=TOLERANCE, rtol=TOLERANCE)


def test_chamfer_never_holds_more_than_its_block() -> None:
    n, bound = 64, 256
    x = random(2, n, 4).float().requires_grad_()
    everything = torch.ones(2, n, dtype=torch.bool)
    seen = []

    class Watch(torch.overrides.TorchFunctionMode):
        def __torch_function__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
            out = func(*args, **(kwargs or {}))
            if isinstance(out, Tensor):
                seen.append(out.numel())
            return out

    with Watch():
        losses.chamfer(x, x.detach(), everything, everything, block_elements=bound).sum().backward()
    assert max(seen) <= 2 * n * 4  # the inputs are larger than the block; n * n = 4096 never exists


def test_positional_and_dense() -> None:
    x, y = random(2, 3, 4, seed=9), random(2, 3, 4, seed=10)
    valid = torch.tensor([[True, False, True], [False, False, False]])
    d = (x - y).abs()
    smooth = torch.where(d < 1, 0.5 * d**2, d - 0.5).sum(-1)
    expected = torch.stack([(smooth[0, 0] + smooth[0, 2]) / 2, smooth.new_zeros(())])
    torch.testing.assert_close(losses.positional(x.float(), y.float(), valid).double(), expected)

    def norm(t: Tensor) -> Tensor:
        return (t - t.mean(-1, keepdim=True)) / (t.var(-1, unbiased=False, keepdim=True) + 1e-5).sqrt()

    a, b = random(2, 3, 5, 6, seed=11), random(2, 3, 5, 6, seed=12)
    mse = (norm(a) - norm(b)).square().mean((-2, -1))
    expected = torch.stack([(mse[0, 0] + mse[0, 2]) / 2, mse.new_zeros(())])
    torch.testing.assert_close(
        losses.dense(a.float(), b.float(), valid).double(), expected, atol=1e-6, rtol=1e-5
    )


def test_bfloat16_inputs_are_computed_in_float32() -> None:
    x = random(1, 6, 8).bfloat16()
    everything = torch.ones(1, 6, dtype=torch.bool)
    for loss in (
        losses.chamfer(x, x, everything, everything),
        losses.positional(x, x, everything),
        losses.masked_nce(x[0], x[0], everything[0], torch.arange(6)),
    ):
        assert loss.dtype is torch.float32


def test_what_the_logs_mean() -> None:
    y = random(1, 10, 4, seed=13).float()
    everything = torch.ones(1, 10, dtype=torch.bool)
    same = losses.nearest(y, y, everything, everything)
    assert losses.unique_match_rate(same, everything, 10).item() == 1
    assert losses.positional_ratio(y, y, everything).item() == 0
    one = y[:, :1].expand(-1, 10, -1)  # all predictions share one target
    cheated = losses.nearest(one, y, everything, everything)
    assert losses.unique_match_rate(cheated, everything, 10).item() == pytest.approx(0.1)
    mean = y.mean(1, keepdim=True).expand(-1, 10, -1)
    assert losses.positional_ratio(mean, y, everything).item() == pytest.approx(1, abs=1e-5)
    assert losses.effective_rank(torch.eye(8)).item() == pytest.approx(7, abs=0.1)
    assert losses.effective_rank(random(30, 1).float() @ random(1, 8).float()).item() == pytest.approx(
        1, abs=0.01
    )
    assert losses.effective_rank(torch.full((4, 8), torch.nan)).isnan()
    y = random(40, 8, seed=3).float()
    values = torch.linalg.svdvals(y.double() - y.double().mean(0))
    expected = torch.special.entr(values / values.sum()).sum().exp().item()
    assert losses.effective_rank(y).item() == pytest.approx(expected, rel=1e-6)
