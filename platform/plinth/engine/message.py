"""What the ranks tell each other at the end of a step: all numbers in one message, with one wait for the
device.

A step ends with a few hundred numbers: losses, counts of what was seen, the largest gradients, squares for
the norm, and what the caller wants to pass on. Sent and read one by one they would cost more than the step of
a small model.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from plinth.engine import global_batch
from plinth.world import World


class Message:
    """Numbers by name; every rank adds the same names and sizes in the same order."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._parts: list[Tensor] = []
        self._places: dict[str, slice] = {}
        self._length = 0

    def add(self, name: str, numbers: Tensor) -> None:
        """Numbers [k], exact in fp64."""
        self._places[name] = slice(self._length, self._length + len(numbers))
        self._parts.append(numbers.detach().to(self._device, torch.float64))
        self._length += len(numbers)

    def add_scalars(self, name: str, scalars: Sequence[Tensor]) -> None:
        """Tensors of no dimension."""
        self.add(name, _stacked(scalars, self._device))

    def exchange(self, world: World) -> Mapping[str, np.ndarray]:
        """The numbers of all ranks [ranks, k] by name. Call it on all ranks."""
        rows = global_batch.host(global_batch.exchange(torch.cat(self._parts), world))
        return {name: rows[:, place] for name, place in self._places.items()}


def _stacked(scalars: Sequence[Tensor], device: torch.device) -> Tensor:
    if not scalars:
        return torch.zeros(0, device=device)
    same = all(s.dtype == scalars[0].dtype for s in scalars)
    return torch.stack([s.detach() if same else s.detach().double() for s in scalars])
