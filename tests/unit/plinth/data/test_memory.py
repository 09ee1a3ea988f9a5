"""Memory of batches: used again when nothing refers to it any more, and never before."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

from plinth.data.memory import ALIGNMENT, MAX_KEPT, REUSED_BYTES, BatchMemory

ROWS, SHAPE = 8, (2, 256, 256)  # 2 MiB of uint16


def empty(memory: BatchMemory) -> torch.Tensor:
    return memory.empty(ROWS, np.dtype(np.uint16), SHAPE)


def test_it_is_used_again_once_the_tensor_is_gone() -> None:
    memory = BatchMemory()
    tensor = empty(memory)
    assert (tensor.dtype, tuple(tensor.shape)) == (torch.uint16, (ROWS, *SHAPE))
    assert tensor.data_ptr() % ALIGNMENT == 0
    place = tensor.data_ptr()
    del tensor
    assert empty(memory).data_ptr() == place


def test_whatever_shares_the_tensor_keeps_it() -> None:
    memory = BatchMemory()
    kept: list[torch.Tensor | np.ndarray] = []
    places = set()
    shares: list[Callable[[torch.Tensor], torch.Tensor | np.ndarray]] = [
        lambda tensor: tensor[3:4],
        lambda tensor: tensor.view(torch.int16),
        lambda tensor: tensor.numpy()[1],
        lambda tensor: tensor.detach(),
    ]
    for share in shares:
        tensor = empty(memory)
        tensor.view(torch.int16).fill_(len(kept))
        assert tensor.data_ptr() not in places
        places.add(tensor.data_ptr())
        kept.append(share(tensor))
        del tensor
    for n, part in enumerate(kept):
        assert {int(x) for x in np.unique(np.asarray(part))} == {n}


def test_other_sizes_and_small_ones_are_apart() -> None:
    memory = BatchMemory()
    place = empty(memory).data_ptr()
    assert memory.empty(ROWS, np.dtype(np.uint16), (2, 256, 255)).data_ptr() != place
    small = memory.empty(4, np.dtype(np.int64))
    assert small.dtype == torch.int64
    assert small.nbytes < REUSED_BYTES
    again = empty(memory)
    assert again.data_ptr() == place


def test_what_is_kept_is_bounded() -> None:
    memory = BatchMemory()
    tensors = [empty(memory) for _ in range(MAX_KEPT + 4)]
    places = [tensor.data_ptr() for tensor in tensors]
    assert len(set(places)) == MAX_KEPT + 4
    tensors.clear()
    held = [empty(memory) for _ in range(MAX_KEPT)]
    assert {tensor.data_ptr() for tensor in held} <= set(places)
