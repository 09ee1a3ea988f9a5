"""Every private name of DeepSpeed that this package uses, each behind a small function.

DeepSpeed is pinned to one version. On an upgrade `test_deepspeed_internals` fails by the name that changed.
The rest of the package uses DeepSpeed's documented interface only.

Words: `optimizer` is `engine.optimizer` of a DeepSpeed engine at ZeRO stage 1 to 3. Its masters are a few
flat fp32 tensors, one per parameter group on this rank, padded so that all ranks hold the same length.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

INVALID_NORM = -1.0
"""The norm by which DeepSpeed is told that a gradient is not finite: it skips the step and drops the
gradients."""


class MasterSlice(NamedTuple):
    """Where this rank's part of a parameter is: elements [start, start + length) of the flattened parameter
    are elements [offset, offset + length) of the flat masters of `group`."""

    group: int
    offset: int
    start: int
    length: int


# -- before `deepspeed.initialize` ------------------------------------------------------------------------


def quiet() -> None:
    """Only errors in DeepSpeed's log. Its own `set_log_level` would also change the handlers of others."""
    from deepspeed.utils.logging import logger

    logger.setLevel(logging.ERROR)


def skip_cpu_all_reduce() -> None:
    """Do without DeepSpeed's shared-memory all-reduce, which it would compile on a CPU: it takes 25 s and a
    compiler, only its inference uses it, and it assumes that all ranks are on one machine."""
    import deepspeed

    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False


def skip_muon_compiler() -> None:
    """Import DeepSpeed's Muon optimizer, which nothing here uses, without torch's compiler.

    `deepspeed.initialize` imports it whatever the optimizer is, and it decorates three functions with
    `torch.compile`: loading Inductor for that takes a second of CPU and 44 MB in every worker.
    """
    compiled = torch.compile
    torch.compile = lambda *_, **__: lambda function: function  # type: ignore[assignment]
    try:
        import deepspeed.runtime.zero.muon.original_muon  # noqa: F401
    finally:
        torch.compile = compiled


# -- the optimizer ----------------------------------------------------------------------------------------


def replace_grad_norm(optimizer: Any, norm: Callable[..., Tensor]) -> None:
    """Clip by `norm(gradients, params)` of each group in turn, a scalar or `INVALID_NORM`, in place of
    DeepSpeed's own."""
    optimizer.get_grad_norm_direct = norm


def torch_optimizer(optimizer: Any) -> torch.optim.Optimizer:
    """The torch optimizer that steps the masters."""
    found: torch.optim.Optimizer = optimizer.optimizer
    return found


class FlatPlace(NamedTuple):
    """Where a parameter lies in the flat weights of a group."""

    parameter: torch.nn.Parameter
    offset: int


class FlatGroup(NamedTuple):
    """A group's flat weights at stages 1 and 2: `partition` elements for each rank, one after the other."""

    numel: int
    partition: int
    places: list[FlatPlace]


def keeps_flat_groups(optimizer: Any) -> bool:
    """Whether `flat_groups` can tell: not at stage 3, and not at stage 1 in bf16, which is another class."""
    return hasattr(optimizer, "bit16_groups_flat") and hasattr(optimizer, "averaged_gradients")


def flat_groups(optimizer: Any) -> list[FlatGroup]:
    """The layout of the flat weights, by parameter group."""
    groups = []
    for flat, parameters, size in zip(
        optimizer.bit16_groups_flat, optimizer.bit16_groups, optimizer.partition_size, strict=True
    ):
        start = flat.storage_offset()
        places = [FlatPlace(p, p.data.storage_offset() - start) for p in parameters]
        groups.append(FlatGroup(flat.numel(), int(size), places))
    return groups


def leave_gradients_alone(optimizer: Any) -> None:
    """Stages 1 and 2: DeepSpeed neither reduces gradients nor looks for overflow; `give_gradients` brings
    what it steps with. Nor does it point all weights to their places in the flat ones after each step: they
    are there since it was made (`flat_groups`)."""
    for hook in optimizer._grad_acc_hooks:
        hook.remove()
    optimizer._grad_acc_hooks.clear()
    optimizer.check_grad_overflow = False
    optimizer._update_model_bit16_weights = lambda group: None


class _Partition(list[Tensor]):
    """A group's gradient that is flat already, which spares DeepSpeed a copy."""

    def __init__(self, flat_partition: Tensor) -> None:
        super().__init__([flat_partition])
        self.flat_partition = flat_partition


def give_gradients(optimizer: Any, partitions: Sequence[Tensor]) -> None:
    """Stages 1 and 2: this rank's part of every group's reduced gradient, for the next step."""
    for group, partition in enumerate(partitions):
        optimizer.averaged_gradients[group] = _Partition(partition)


def reduced_gradients(optimizer: Any) -> list[Sequence[Tensor]]:
    """After the last backward of a step: what this rank holds of the reduced gradient, by group."""
    found = optimizer.averaged_gradients
    return [found[group] for group in sorted(found) if found[group] is not None]


def flat_masters(optimizer: Any, zero_stage: int) -> Sequence[Tensor]:
    """This rank's masters, by parameter group."""
    masters: Sequence[Tensor]
    if zero_stage == 3:
        masters = optimizer.fp32_partitioned_groups_flat
    elif hasattr(optimizer, "single_partition_of_fp32_groups"):
        masters = optimizer.single_partition_of_fp32_groups
    else:  # stage 1 in bf16 is another class
        masters = optimizer.fp32_groups_flat_partition
    return masters


def master_slice(optimizer: Any, parameter: Any, zero_stage: int, rank: int) -> MasterSlice | None:
    """Where this rank's part of a trainable parameter is in the masters; None if it has no part."""
    if zero_stage == 3:
        group, offset, _ = optimizer.grad_position[optimizer.get_param_id(parameter)]
        start, length = partition_range(parameter, rank)
        return MasterSlice(group, offset, start, length) if length else None
    mapping = parameter._hp_mapping
    if mapping is None:
        return None
    address = mapping.get_hp_fragment_address()
    start = mapping.lp_fragment_address.start
    return MasterSlice(mapping.param_group_index, address.start, start, address.numel)


def copy_masters_to_weights(optimizer: Any) -> None:
    """Stages 1 and 2: make the weights of the forward pass follow the masters."""
    optimizer.update_lp_params()


@contextlib.contextmanager
def writing_partitions(optimizer: Any) -> Iterator[None]:
    """Stage 3: drop the gathered copies of parameters before their partitions are written, and gather the
    persistent ones again afterwards."""
    optimizer.checkpoint_event_prologue()
    yield
    optimizer.checkpoint_event_epilogue()


# -- parameters at stage 3: `parameter.data` is empty, each rank holds a partition -----------------------


def full_shape(parameter: Any) -> list[int]:
    """Shape of the whole parameter."""
    return list(parameter.ds_shape)


def full_numel(parameter: Any) -> int:
    """Elements of the whole parameter."""
    return int(parameter.ds_numel)


def partition(parameter: Any) -> Tensor:
    """This rank's partition, flat; the last ones end with padding."""
    held: Tensor = parameter.ds_tensor.data
    return held


def partition_range(parameter: Any, rank: int) -> tuple[int, int]:
    """(start, length) of a rank's partition in the flattened parameter, without the padding."""
    size = parameter.ds_tensor.ds_numel
    start = size * rank
    return start, max(0, min(size, parameter.ds_numel - start))


def gather_persistent(parameters: Sequence[Any]) -> None:
    """Gather those parameters anew that are small enough to be kept whole on every rank."""
    whole = [p for p in parameters if p.ds_persist]
    if whole:
        whole[0].partition(whole)
        whole[0].all_gather(whole)
