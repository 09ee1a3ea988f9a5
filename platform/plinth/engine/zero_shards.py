"""Which slice of every parameter this rank owns, at any ZeRO stage, by parameter name.

A checkpoint, the EMA and the loading of weights all work on these slices, so none of them depends on the
number of ranks or on the ZeRO stage. Everything that reads DeepSpeed's insides is in this file.

Legend: master = the fp32 weights that the optimizer updates; a slice is [start, start + length) of the
flattened parameter; piece = a slice with its key in the checkpoint.
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

from plinth.world import World

MOMENTS = ("exp_avg", "exp_avg_sq")


@dataclass
class Fragment:
    """The slice of one trainable parameter that this rank updates; all tensors [length] fp32, live views."""

    name: str
    numel: int
    start: int
    master: Tensor
    exp_avg: Tensor
    exp_avg_sq: Tensor


@dataclass
class Piece:
    """A slice of the tensor called `key` in a checkpoint: a live view [length] of what this rank holds."""

    key: str
    numel: int
    start: int
    tensor: Tensor


class Shards:
    """The slices of a DeepSpeed engine's parameters on this rank."""

    def __init__(self, engine: Any, stage: nn.Module, zero_stage: int, world: World) -> None:
        self.world = world
        self.zero_stage = zero_stage
        self._optimizer = engine.optimizer
        self._stage = stage
        # Any: DeepSpeed hangs attributes on parameters (ds_tensor, ds_numel, _hp_mapping).
        self._parameters: dict[str, Any] = dict(stage.named_parameters())
        trainable = {name: p for name, p in self._parameters.items() if p.requires_grad}
        find = {0: self._whole, 1: self._partitioned, 2: self._partitioned, 3: self._sliced}[zero_stage]
        self.fragments = list(find(trainable))

    @property
    def replicated(self) -> bool:
        """Whether every rank holds every trainable parameter whole."""
        return self.zero_stage == 0

    def shape(self, name: str) -> list[int]:
        """The full shape of a parameter; stage 3 leaves an empty tensor in its place."""
        parameter = self._parameters[name]
        return list(getattr(parameter, "ds_shape", parameter.shape))

    def frozen(self, name: str) -> Piece:
        """What this rank holds of a parameter without gradient."""
        parameter = self._parameters[name]
        if self.zero_stage < 3:
            return Piece(name, parameter.numel(), 0, parameter.data.view(-1))
        start, length = self._slice(parameter)
        return Piece(name, parameter.ds_numel, start, parameter.ds_tensor.data.narrow(0, 0, length))

    def trainable_names(self) -> list[str]:
        """Every parameter with gradient, on whichever rank its slices are."""
        return [name for name, p in self._parameters.items() if p.requires_grad]

    def frozen_names(self) -> list[str]:
        """Every parameter without gradient."""
        return [name for name, p in self._parameters.items() if not p.requires_grad]

    def buffers(self) -> list[Piece]:
        """The buffers that belong to the state dict; every rank holds them whole."""
        saved = set(self._stage.state_dict())
        return [
            Piece(name, b.numel(), 0, b.data.view(-1))
            for name, b in self._stage.named_buffers()
            if name in saved and b.numel()
        ]

    def share(self, piece: Piece) -> Piece:
        """The part of a tensor that all ranks hold whole which this rank writes."""
        first = piece.numel * self.world.rank // self.world.world_size
        end = piece.numel * (self.world.rank + 1) // self.world.world_size
        return Piece(piece.key, piece.numel, first, piece.tensor[first:end])

    def set_adam_step(self, step: int) -> None:
        """Adam's own count, a tensor of its own for each group: a shared one would advance several times."""
        for state in self._adam().state.values():
            state["step"] = torch.tensor(float(step))

    @torch.no_grad()
    def push(self) -> None:
        """After masters or frozen slices were written: make the weights of the forward pass follow."""
        if self.zero_stage in (1, 2):
            self._optimizer.update_lp_params()
        elif self.zero_stage == 3:
            self._optimizer.checkpoint_event_prologue()  # drops gathered copies
            for fragment in self.fragments:
                slices = self._parameters[fragment.name].ds_tensor.data
                slices.narrow(0, 0, len(fragment.master)).copy_(fragment.master)
            self._optimizer.checkpoint_event_epilogue()  # gathers the persistent ones again

    # -- where DeepSpeed keeps them -------------------------------------------------------------------

    def _adam(self) -> torch.optim.Optimizer:
        return self._optimizer if self.zero_stage == 0 else self._optimizer.optimizer

    def _moments(self, owner: Tensor) -> list[Tensor]:
        """Both moments of a tensor of the optimizer, made now if it has not stepped yet: so a checkpoint
        before the first step is like any other."""
        state = self._adam().state[owner]
        if not state:
            state["step"] = torch.tensor(0.0)
            for key in MOMENTS:
                state[key] = torch.zeros_like(owner, requires_grad=False)
        return [state[key].view(-1) for key in MOMENTS]

    def _whole(self, trainable: dict[str, Any]) -> Iterator[Fragment]:
        for name, p in trainable.items():
            yield Fragment(name, p.numel(), 0, p.data.view(-1), *self._moments(p))

    def _partitioned(self, trainable: dict[str, Any]) -> Iterator[Fragment]:
        # Stage 1 in bf16 is another class, with the same list under another name.
        attribute = "single_partition_of_fp32_groups"
        if not hasattr(self._optimizer, attribute):
            attribute = "fp32_groups_flat_partition"
        masters = getattr(self._optimizer, attribute)
        moments = [self._moments(flat) for flat in masters]
        for name, p in trainable.items():
            where = p._hp_mapping
            if where is None:
                continue
            group = where.param_group_index
            address = where.get_hp_fragment_address()
            views = [
                t.narrow(0, address.start, address.numel) for t in (masters[group].data, *moments[group])
            ]
            yield Fragment(name, p.numel(), where.lp_fragment_address.start, *views)

    def _sliced(self, trainable: dict[str, Any]) -> Iterator[Fragment]:
        masters = self._optimizer.fp32_partitioned_groups_flat
        moments = [self._moments(flat) for flat in masters]
        for name, p in trainable.items():
            group, offset, _ = self._optimizer.grad_position[self._optimizer.get_param_id(p)]
            start, length = self._slice(p)
            if length:
                views = [t.narrow(0, offset, length) for t in (masters[group].data, *moments[group])]
                yield Fragment(name, p.ds_numel, start, *views)

    def _slice(self, parameter: Any) -> tuple[int, int]:
        """Start and length without the padding."""
        size = parameter.ds_tensor.ds_numel
        start = size * self.world.rank
        return start, max(0, min(size, parameter.ds_numel - start))
