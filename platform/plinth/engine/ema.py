"""The target copy: an exponential moving average (EMA) in fp32, sharded as the masters are.

    a <- m a + (1 - m) w        element by element: w fp32 master, a fp32 average, m momentum

The rule works on single elements, so it can be applied to any slices of w. Below stage 3 every rank has the
weights whole. Where the forward pass computes in fp32 they are the masters and the target parameters are the
averages: each rank moves all of them, which sends nothing. In bf16 each rank averages the slices of w that
it owns, and the forward pass needs the averages as whole target parameters in its own precision. At stages 1
and 2 slices are runs of the flattened parameter group and take one all-gather per step; at stage 3 a target
is cut in the same way as its source:

    below 3, fp32     every rank   [ w1 | w2 | w3 ] -> its own targets          nothing is sent
    stage 1,2, bf16   rank 0       [ w1 | w2.        -> all-gather -> copy of all targets on every rank
                      rank 1              .w2 | w3 ]
    stage 3           rank 0       [ .w1 | .w2 | .w3 ] -> the same slices of the targets; small targets, which
                      rank 1       [ w1. | w2. | w3. ]    are kept whole, are gathered anew

A bf16 average would not move: for m near 1 the change is below its last bit.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import accumulate

import torch
import torch.distributed as dist
from torch import Tensor, nn

from plinth.engine import deepspeed_internals as internals
from plinth.engine.zero_shards import ParamShard, TensorShard, ZeroShards


class EmaShards:
    """fp32 averages of the slices of the parameters that have a target copy.

    Args:
        shards: where this rank's slices are.
        stage: holds the target parameters.
        pairs: trainable parameter -> its frozen target, as `Stage.ema_pairs`.
    """

    def __init__(self, shards: ZeroShards, stage: nn.Module, pairs: Mapping[str, str]) -> None:
        self.shards = shards
        self.pairs = dict(pairs)
        self._targets = {n: stage.get_parameter(n) for n in self.pairs.values()}
        self._online = [stage.get_parameter(n) for n in self.pairs]
        self._sources: list[ParamShard] = [f for f in shards.params if f.name in self.pairs]
        held = [*self._targets.values(), *self._online]
        self._is_whole = shards.zero_stage < 3 and all(p.dtype == torch.float32 for p in held)
        """Whether the target parameters are the averages."""
        if self._is_whole:
            self.averages = [
                self._target_slice(self.pairs[f.name], f.start, len(f.master)) for f in self._sources
            ]
        else:
            self.averages = [f.master.clone() for f in self._sources]
        self._layout = self._exchange_layout()

    def restart(self) -> None:
        """Start as a copy of the masters, as at the start of a stage."""
        for average, source in zip(self.averages, self._sources, strict=True):
            average.copy_(source.master)
        self.refresh()

    @torch.no_grad()
    def update(self, momentum: float) -> None:
        """average <- momentum * average + (1 - momentum) * master; then the target copy."""
        if self._is_whole and self.pairs:
            targets, weights = [p.data for p in self._targets.values()], [p.data for p in self._online]
            torch._foreach_lerp_(targets, weights, 1.0 - momentum)
            return
        if self.averages:
            torch._foreach_lerp_(self.averages, [f.master for f in self._sources], 1.0 - momentum)
        self.refresh()

    def target_shards(self) -> list[TensorShard]:
        """This rank's slices, by the name of the target parameter."""
        return [
            TensorShard(self.pairs[f.name], f.numel, f.start, average)
            for f, average in zip(self._sources, self.averages, strict=True)
        ]

    @torch.no_grad()
    def refresh(self) -> None:
        """Write the averages into the target parameters, in their own precision."""
        if not self.pairs:
            return
        if self.shards.zero_stage == 3:
            self._refresh_slices()
        elif self.shards.zero_stage == 0 or self.shards.world.world_size == 1:
            for shard in [] if self._is_whole else self.target_shards():
                self._target_slice(shard.key, shard.start, shard.tensor.numel()).copy_(shard.tensor)
        else:
            self._refresh_gathered()

    def _refresh_slices(self) -> None:
        """Stage 3: the target is cut as its source is, so every rank writes its own slice."""
        for shard in self.target_shards():
            held = internals.partition(self._targets[shard.key])
            held.narrow(0, 0, shard.tensor.numel()).copy_(shard.tensor)
        internals.gather_persistent(list(self._targets.values()))

    def _refresh_gathered(self) -> None:
        """Stages 1 and 2: one gather of every rank's slices, padded to the longest."""
        sizes = [sum(length for _, _, length in slices) for slices in self._layout]
        like = next(iter(self._targets.values()))
        received = torch.empty(len(sizes), max(sizes), dtype=like.dtype, device=like.device)
        sent = torch.zeros(max(sizes), dtype=like.dtype, device=like.device)
        if self.averages:
            torch.cat([a.to(like.dtype) for a in self.averages], out=sent[: sizes[self.shards.world.rank]])
        dist.all_gather_into_tensor(received.view(-1), sent)
        for row, slices in zip(received, self._layout, strict=True):
            ends = accumulate(length for _, _, length in slices)
            for (name, start, length), end in zip(slices, ends, strict=True):
                self._target_slice(name, start, length).copy_(row[end - length : end])

    def _target_slice(self, name: str, start: int, length: int) -> Tensor:
        return self._targets[name].data.view(-1).narrow(0, start, length)

    def _exchange_layout(self) -> list[list[tuple[str, int, int]]]:
        """For every rank, in order: (target, start, length) of its slices."""
        own = [(s.key, s.start, s.tensor.numel()) for s in self.target_shards()]
        layout: list[list[tuple[str, int, int]]] = [own] * self.shards.world.world_size
        if self.shards.world.world_size > 1:
            dist.all_gather_object(layout, own)
        return layout
