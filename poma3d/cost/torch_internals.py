"""Names of torch that are not public, in one place. A test holds each, so an upgrade fails by its name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode as FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode, sdpa_backward_flop_count, sdpa_flop_count

# torch's counter knows the attention of GPUs; that of CPUs is the same products under another name.
_CPU_ATTENTION: dict[Any, Callable[..., int]] = {
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: (
        lambda q, k, v, *_, **__: sdpa_flop_count(q, k, v)
    ),
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward: (
        lambda grad, q, k, v, *_, **__: sdpa_backward_flop_count(grad, q, k, v)
    ),
}


def flop_counter() -> FlopCounterMode:
    """torch's counter of floating-point operations, for tensors on the CPU too."""
    return FlopCounterMode(display=False, custom_mapping=_CPU_ATTENTION)


def storage_id(tensor: Tensor) -> int:
    """What tells storages apart, fake ones (which have no address) included."""
    return tensor.untyped_storage()._cdata
