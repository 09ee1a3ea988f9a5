"""What a step costs of a stage whose loss is each sample's own: a head, a language model.

The stage itself takes a step on fake tensors, which have shapes and dtypes and no data: operations are
counted by torch's counter, and what autograd saves is added up, also as it is where blocks are computed again
in the backward pass.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from poma3d.cost.activations import (
    FLOAT32_BYTES,
    WORKING_COPIES,
    Activations,
    BlockMeter,
    StageSize,
    fake_state,
)
from poma3d.cost.torch_internals import FakeTensorMode, flop_counter
from poma3d.inputs import Batch


@dataclass
class BlockCost:
    """Blocks that may be computed again: a row of them, such as those of the language model."""

    forward: float = 0.0
    """Operations of their forward passes."""
    inputs: int = 0
    """Bytes of what enters them, which is kept where they are computed again."""
    inside: list[int] = field(default_factory=list)
    """Bytes that autograd saves inside each."""


@dataclass(frozen=True)
class StepCost:
    """Operations and bytes of a batch."""

    forward: float
    backward: float
    saved: int
    """Bytes that autograd keeps where no block is computed again."""
    inputs: int
    """Bytes of the batch."""
    working: int
    """Bytes besides, while the passes run."""
    blocks: Mapping[str, BlockCost]
    """By name."""
    unused: frozenset[str]
    """Parameters that are said to be trained, and on which the loss does not depend."""

    def again(self, recomputed: Collection[str]) -> float:
        """Operations of computing blocks again; a few less are run, as torch stops at the last tensor that it
        needs."""
        return sum(self.blocks[name].forward for name in recomputed)

    def kept(self, recomputed: Collection[str]) -> int:
        """Bytes that autograd keeps where these blocks are computed again: what enters them, and the inside
        of one at a time."""
        rows = [self.blocks[name] for name in recomputed]
        inside = [size for row in rows for size in row.inside]
        return self.saved - sum(inside) + sum(row.inputs for row in rows) + max(inside, default=0)

    def activations(self, samples: int, recomputed: Collection[str]) -> Activations:
        """Of one of the `samples` of the batch, rounded up."""

        def each(size: int) -> int:
            return -(-size // samples)

        return Activations({"model": each(self.kept(recomputed))}, each(self.inputs), each(self.working), 0)


def step_cost(stage: nn.Module, batch: Batch, blocks: Mapping[str, Sequence[nn.Module]]) -> StepCost:
    """Take a step on fake tensors.

    Args:
        stage: with the `forward` of a stage, on any device (meta, too), in the dtypes of training and in
            training mode; none of its blocks is computed again.
        batch: prepared, on the CPU.
        blocks: those that may be, by name.
    """
    with FakeTensorMode() as mode:
        fake = {k: mode.from_tensor(v) if isinstance(v, Tensor) else v for k, v in batch.items()}
        weights = fake_state(stage)
        step = _Step(stage, weights, blocks)
        functional_call(step, {f"stage.{name}": tensor for name, tensor in weights.items()}, (fake,))
        unused = frozenset(n for n, w in weights.items() if w.requires_grad and w.grad is None)
    sizes = [v.numel() * v.element_size() for v in batch.values() if isinstance(v, Tensor)]
    return StepCost(
        step.forward_operations, step.backward_operations, step.saved, sum(sizes),
        WORKING_COPIES * step.widest, step.costs, unused,
    )  # fmt: skip


def size_of(stage: nn.Module, unused: Collection[str] = ()) -> dict[str, StageSize]:
    """Numbers of parameters of each part of a stage, by its name there."""
    found = {}
    for part, module in stage.named_children():
        numbers = {f"{part}.{name}": p for name, p in module.named_parameters()}
        trained = [p.numel() for n, p in numbers.items() if p.requires_grad and n not in unused]
        found[part] = StageSize(sum(p.numel() for p in numbers.values()), sum(trained), 0)
    return found


class _Step(nn.Module):
    """Forward and backward pass with the meters on."""

    def __init__(
        self, stage: nn.Module, weights: dict[str, Tensor], blocks: Mapping[str, Sequence[nn.Module]]
    ) -> None:
        super().__init__()
        self.stage, self._blocks = stage, blocks
        self.costs = {name: BlockCost() for name in blocks}
        self.forward_operations = self.backward_operations = 0.0
        self.saved = self.widest = 0
        self._meter = BlockMeter(None, weights)
        self._entered = (0, 0.0)

    def forward(self, batch: Batch) -> None:
        hooks = [
            each.register_forward_hook(self._wide) for each in self.stage.modules() if not [*each.children()]
        ]
        try:
            with flop_counter() as counter:
                hooks += self._hooked(counter)
                with self._meter.open():
                    loss = torch.stack(list(self.stage(batch).sums.values())).sum()
                self.saved, self.forward_operations = self._meter.total, float(counter.get_total_flops())
                loss.backward()
            self.backward_operations = counter.get_total_flops() - self.forward_operations
        finally:
            for hook in hooks:
                hook.remove()

    def _hooked(self, counter: Any) -> list[Any]:
        hooks = []
        for name, row in self._blocks.items():
            cost = self.costs[name]

            def before(block: nn.Module, given: tuple[Any, ...], named: dict[str, Any]) -> None:
                self._entered = (self._meter.total, float(counter.get_total_flops()))

            def after(
                block: nn.Module,
                given: tuple[Any, ...],
                named: dict[str, Any],
                output: Any,
                to: BlockCost = cost,
            ) -> None:
                entering = given[0] if given else named["hidden_states"]
                saved, operations = self._entered
                to.inputs += entering.numel() * entering.element_size()
                to.inside.append(self._meter.total - saved)
                to.forward += counter.get_total_flops() - operations

            hooks += [block.register_forward_pre_hook(before, with_kwargs=True) for block in row]
            hooks += [block.register_forward_hook(after, with_kwargs=True) for block in row]
        return hooks

    def _wide(self, layer: nn.Module, given: tuple[Any, ...], output: Any) -> None:
        if isinstance(output, Tensor):  # in fp32: the widest is that of the scores, which the loss takes so
            self.widest = max(self.widest, output.numel() * FLOAT32_BYTES)
