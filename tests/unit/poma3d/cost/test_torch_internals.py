"""Each private name of torch that is used, so that an upgrade fails by that name."""

from __future__ import annotations

import torch
from torch.nn import functional as F

from poma3d.cost.torch_internals import FakeTensorMode, flop_counter, storage_id


def test_fake_tensor_mode_computes_nothing() -> None:
    """`torch._subclasses.fake_tensor.FakeTensorMode`."""
    with FakeTensorMode():
        made = torch.empty(2**40, 2**10).sum(dim=1)  # a pebibyte, were it real
    assert made.shape == (2**40,)


def test_storage_id_is_that_of_the_memory() -> None:
    """`UntypedStorage._cdata`, for fake tensors too."""
    with FakeTensorMode():
        a, b = torch.empty(6), torch.empty(6)
    assert storage_id(a) == storage_id(a.view(2, 3)[1:])
    assert storage_id(a) != storage_id(b)


def test_attention_on_the_cpu_is_counted() -> None:
    """`aten._scaled_dot_product_flash_attention_for_cpu` and its backward."""
    q, k, v = torch.randn(3, 2, 4, 5, 8, requires_grad=True)
    product = 2 * 2 * 4 * 5 * 5 * 8
    with flop_counter() as forward:
        output = F.scaled_dot_product_attention(q, k, v)
    with flop_counter() as backward:
        output.sum().backward()
    assert forward.get_total_flops() == 2 * product
    assert backward.get_total_flops() == 5 * product, "the scores are computed again"
