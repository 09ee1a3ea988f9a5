"""Memory of batches, used again once a batch is gone.

A batch of point maps is tens of megabytes. Fresh memory of that size is mapped and zeroed page by page, which
costs a quarter of what the decoding that fills it does.
"""

from __future__ import annotations

import weakref
from collections import deque
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

REUSED_BYTES = 1 << 20
"""From this size on memory is kept; below it the allocator does so by itself."""
ALIGNMENT = 64
MAX_KEPT = 16
"""Pieces of one size that are kept: those of the batches that are ready, in use, and being filled."""


class BatchMemory:
    """Hands out tensors. Safe to use from several threads."""

    def __init__(self) -> None:
        self._is_pinned = torch.cuda.is_available()
        self._free: dict[int, deque[np.ndarray]] = {}

    def empty(self, rows: int, dtype: np.dtype[Any], shape: Sequence[int] = ()) -> torch.Tensor:
        """A tensor [rows, *shape] with any content; page-locked where there is a GPU, whose allocator keeps
        such memory itself."""
        kind = torch.from_numpy(np.empty(0, dtype)).dtype
        size = rows * int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
        if self._is_pinned or size < REUSED_BYTES:
            return torch.empty((rows, *shape), dtype=kind, pin_memory=self._is_pinned)
        free = self._free.setdefault(size, deque(maxlen=MAX_KEPT))
        try:
            memory = free.pop()
        except IndexError:
            memory = _aligned(size)
        array = memory.view(dtype).reshape(rows, *shape)
        # The tensor and whatever shares its storage hold `array`; `memory` outlives it here.
        weakref.finalize(array, free.append, memory).atexit = False
        return torch.from_numpy(array)


def _aligned(size: int) -> np.ndarray:
    """Bytes that begin where torch's own memory would: some kernels' sums depend on it in the last bit."""
    memory = np.empty(size + ALIGNMENT, np.uint8)
    start = -memory.ctypes.data % ALIGNMENT
    return memory[start : start + size]
