"""The head beside a naive float64 version of it, one sample, view and answer after the other."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from poma3d.heads.config import HeadConfig
from poma3d.heads.network import AnswerHead, AttentionPool, answer_loss, multi_hot

N, L, D, A = 3, 5, 6, 4


@pytest.fixture(autouse=True)
def seeded() -> None:
    """New weights are the same in every run."""
    torch.manual_seed(0)


def gelu(x: np.ndarray) -> np.ndarray:
    return np.array([v * 0.5 * (1 + math.erf(v / math.sqrt(2))) for v in x.ravel()]).reshape(x.shape)


def linear(layer: torch.nn.Linear, x: np.ndarray) -> np.ndarray:
    weight = layer.weight.detach().double().numpy()
    out = weight @ x
    return out if layer.bias is None else out + layer.bias.detach().double().numpy()


def naive_pool(
    pool: AttentionPool, rows: np.ndarray, valid: np.ndarray, guide: np.ndarray | float = 0.0
) -> np.ndarray:
    kept = [row for row, counts in zip(rows, valid, strict=True) if counts]
    scores = [float(linear(pool.fc2, gelu(linear(pool.fc1, row) + guide))[0]) for row in kept]
    factors = [math.exp(score - max(scores)) for score in scores]
    mean = sum(f * row for f, row in zip(factors, kept, strict=True)) / sum(factors)
    return linear(pool.out, mean)


def naive_loss(logits: np.ndarray, wanted: set[int]) -> float:
    total = 0.0
    for answer, logit in enumerate(logits):
        p = 1 / (1 + math.exp(-logit))
        total -= math.log(p) if answer in wanted else math.log(1 - p)
    return total


def inputs(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    g = torch.Generator().manual_seed(seed)
    valid = torch.ones(N, L, dtype=torch.bool)
    valid[1, 2:] = False
    return torch.randn(N, L, D, generator=g), valid


def test_attention_pool_is_the_naive_weighted_mean() -> None:
    pool = AttentionPool(D, 8, 7)
    rows, valid = inputs()
    found = pool(rows, valid)
    assert found.weights.sum(dim=1).tolist() == pytest.approx([1.0] * N)
    assert (found.weights[~valid] == 0).all()
    for i in range(N):
        expected = naive_pool(pool, rows[i].double().numpy(), valid[i].numpy())
        np.testing.assert_allclose(found.features[i].detach().numpy(), expected, atol=1e-5)


def test_what_is_not_valid_changes_nothing() -> None:
    pool = AttentionPool(D, 8, 7)
    rows, valid = inputs()
    changed = torch.where(valid[..., None], rows, 1e4)
    assert torch.equal(pool(rows, valid).features, pool(changed, valid).features)


@pytest.mark.parametrize("used", ["both", "question", "views"])
def test_head_and_loss_are_the_naive_ones(used: str) -> None:
    head = AnswerHead(HeadConfig(pool_hidden=8, pool_width=7, hidden=9, inputs=used), D, D, A)
    (views, view_valid), (words, word_valid) = inputs(1), inputs(2)
    keep = (torch.rand(N, 9, generator=torch.Generator().manual_seed(4)) < 0.7).float() / 0.7
    answers = torch.tensor([[0, 2], [3, -1], [-1, -1]])
    logits = head(views, view_valid, words, word_valid, keep).logits
    found = answer_loss(logits, multi_hot(answers, A))
    for i, wanted in enumerate([{0, 2}, {3}, set()]):
        parts = []
        if head.views is not None:
            parts.append(naive_pool(head.views, views[i].double().numpy(), view_valid[i].numpy()))
        if head.words is not None:
            parts.append(naive_pool(head.words, words[i].double().numpy(), word_valid[i].numpy()))
        added = sum(parts)
        normed = (added - added.mean()) / np.sqrt(added.var() + head.norm.eps)
        hidden = gelu(linear(head.fc1, normed)) * keep[i].double().numpy()
        expected = linear(head.fc2, hidden)
        np.testing.assert_allclose(logits[i].detach().numpy(), expected, atol=1e-5)
        assert float(found[i].detach()) == pytest.approx(naive_loss(expected, wanted), rel=1e-5)


def test_what_is_asked_guides_where_a_head_looks_among_cells() -> None:
    head = AnswerHead(HeadConfig(pool_hidden=8, pool_width=7, hidden=9, attention="guided"), D, D, A, D)
    assert head.views is not None
    assert head.words is not None
    assert head.guide is not None
    (cells, valid), (words, word_valid) = inputs(1), inputs(2)
    places = torch.rand(N, L, D, generator=torch.Generator().manual_seed(5))
    logits = head(cells, valid, words, word_valid, places_nVD=places).logits
    for i in range(N):
        asked = naive_pool(head.words, words[i].double().numpy(), word_valid[i].numpy())
        each = cells[i].double().numpy()
        normed = (each - each.mean(1, keepdims=True)) / np.sqrt(each.var(1, keepdims=True) + 1e-5)
        seen = np.concatenate([normed, places[i].double().numpy()], axis=1)
        added = asked + naive_pool(head.views, seen, valid[i].numpy(), linear(head.guide, asked))
        added = (added - added.mean()) / np.sqrt(added.var() + head.norm.eps)
        expected = linear(head.fc2, gelu(linear(head.fc1, added)))
        np.testing.assert_allclose(logits[i].detach().numpy(), expected, atol=1e-5)
    answer_loss(logits, torch.zeros(N, A)).sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in head.parameters())


def test_every_parameter_of_the_head_gets_a_gradient() -> None:
    head = AnswerHead(HeadConfig(pool_hidden=8, pool_width=7, hidden=9), D, D, A)
    (views, view_valid), (words, word_valid) = inputs(1), inputs(2)
    answer_loss(head(views, view_valid, words, word_valid).logits, torch.zeros(N, A)).sum().backward()
    without = [n for n, p in head.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert not without


def test_repeated_answers_count_once_and_padding_for_nothing() -> None:
    found = multi_hot(torch.tensor([[1, 1, -1], [-1, -1, -1], [0, 3, 1]]), A)
    assert found.tolist() == [[0, 1, 0, 0], [0, 0, 0, 0], [1, 1, 0, 1]]
