"""Which slice of every parameter this rank owns, at any ZeRO stage, by parameter name.

A checkpoint, the EMA and the loading of weights all work on these slices, so none of them depends on the
number of ranks or on the ZeRO stage.

Legend: master = the fp32 weights that the optimizer updates; a slice is [start, start + length) of the
flattened parameter.
    stage 0    every rank holds every parameter whole, in fp32; the master is the parameter
    stage 1,2  a rank holds a run of the flattened parameter group, so its slice may be empty
    stage 3    every parameter is cut in world_size equal slices, the last ones padded
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from plinth.engine import deepspeed_internals as internals
from plinth.world import World

MOMENTS = ("exp_avg", "exp_avg_sq")


@dataclass
class ParamShard:
    """The slice of one trainable parameter that this rank updates; all tensors [length] fp32, live views."""

    name: str
    numel: int
    start: int
    master: Tensor
    exp_avg: Tensor
    exp_avg_sq: Tensor


@dataclass
class TensorShard:
    """A slice of the tensor called `key` in a checkpoint: a live view [length] of what this rank holds."""

    key: str
    numel: int
    start: int
    tensor: Tensor


class ZeroShards:
    """The slices of a DeepSpeed engine's parameters on this rank."""

    def __init__(self, engine: Any, stage: nn.Module, zero_stage: int, world: World) -> None:
        self.world = world
        self.zero_stage = zero_stage
        self._optimizer = engine.optimizer
        self._stage = stage
        self._parameters = dict(stage.named_parameters())
        self.params = list(self._whole() if zero_stage == 0 else self._sharded())

    @property
    def replicated(self) -> bool:
        """Whether every rank holds every trainable parameter whole."""
        return self.zero_stage == 0

    def shape(self, name: str) -> list[int]:
        """The full shape of a parameter."""
        parameter = self._parameters[name]
        return internals.full_shape(parameter) if self.zero_stage == 3 else list(parameter.shape)

    def frozen(self, name: str) -> TensorShard:
        """What this rank holds of a parameter without gradient."""
        parameter = self._parameters[name]
        if self.zero_stage < 3:
            return TensorShard(name, parameter.numel(), 0, parameter.data.view(-1))
        start, length = internals.partition_range(parameter, self.world.rank)
        held = internals.partition(parameter).narrow(0, 0, length)
        return TensorShard(name, internals.full_numel(parameter), start, held)

    def trainable_names(self) -> list[str]:
        """Every parameter with gradient, on whichever rank its slices are."""
        return [name for name, p in self._parameters.items() if p.requires_grad]

    def frozen_names(self) -> list[str]:
        """Every parameter without gradient."""
        return [name for name, p in self._parameters.items() if not p.requires_grad]

    def buffers(self) -> list[TensorShard]:
        """The buffers that belong to the state dict; every rank holds them whole."""
        saved = set(self._stage.state_dict())
        return [
            TensorShard(name, b.numel(), 0, b.data.view(-1))
            for name, b in self._stage.named_buffers()
            if name in saved and b.numel()
        ]

    def share(self, whole: TensorShard) -> TensorShard:
        """The part that this rank writes of a tensor that all ranks hold whole."""
        first = whole.numel * self.world.rank // self.world.world_size
        end = whole.numel * (self.world.rank + 1) // self.world.world_size
        return TensorShard(whole.key, whole.numel, first, whole.tensor[first:end])

    def set_adam_step(self, step: int) -> None:
        """Adam's own count, one tensor per parameter: a shared one would advance several times per step."""
        for state in self._adam().state.values():
            state["step"] = torch.tensor(float(step))

    @torch.no_grad()
    def push(self) -> None:
        """After masters or frozen slices were written: make the weights of the forward pass follow."""
        if self.zero_stage in (1, 2):
            internals.copy_masters_to_weights(self._optimizer)
        elif self.zero_stage == 3:
            with internals.writing_partitions(self._optimizer):
                for shard in self.params:
                    held = internals.partition(self._parameters[shard.name])
                    held.narrow(0, 0, len(shard.master)).copy_(shard.master)

    def _adam(self) -> torch.optim.Optimizer:
        found: torch.optim.Optimizer = self._optimizer
        return internals.torch_optimizer(found) if self.zero_stage else found

    def _moments(self, owner: Tensor) -> list[Tensor]:
        """Both moments of a tensor of the optimizer. They are made here if it has not stepped yet, so a
        checkpoint before the first step is like any other."""
        state = self._adam().state[owner]
        if not state:
            state["step"] = torch.tensor(0.0)
            for key in MOMENTS:
                state[key] = torch.zeros_like(owner, requires_grad=False)
        return [state[key].view(-1) for key in MOMENTS]

    def _whole(self) -> Iterator[ParamShard]:
        for name in self.trainable_names():
            p = self._parameters[name]
            yield ParamShard(name, p.numel(), 0, p.data.view(-1), *self._moments(p))

    def _sharded(self) -> Iterator[ParamShard]:
        masters = internals.flat_masters(self._optimizer, self.zero_stage)
        moments = [self._moments(flat) for flat in masters]
        for name in self.trainable_names():
            p = self._parameters[name]
            found = internals.master_slice(self._optimizer, p, self.zero_stage, self.world.rank)
            if found is not None:
                flats = (masters[found.group].data, *moments[found.group])
                views = [flat.narrow(0, found.offset, found.length) for flat in flats]
                numel = internals.full_numel(p) if self.zero_stage == 3 else p.numel()
                yield ParamShard(name, numel, found.start, *views)
