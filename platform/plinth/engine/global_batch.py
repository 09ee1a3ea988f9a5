"""One loss over the global batch from micro-batches on many ranks, with exact gradients.

A contrastive loss L(f_1, ..., f_N) needs the features of the whole global batch, whose graph does not fit in
memory. The chain rule is therefore cut between the features and the weights w:

    dL/dw = sum_k  (df_k/dw)^T g_k,     g_k = dL/df_k

    pass 1, without graph   micro-batch k -> f_k                                     (features only: small)
    gather                  f_1 ... f_N on every rank, in the order of the global batch
    contrast                the same L on every rank; g_k for this rank's own micro-batches
    pass 2, with graph      micro-batch k -> f_k, then (f_k * g_k).sum().backward()  (one graph at a time)

The surrogate (f_k * g_k).sum() has the gradient of L because g_k is constant in it. Both passes draw the same
dropout (`pass_seed`). With one micro-batch per rank its graph is still there, so pass 2 is left out. This is
the gradient cache of Gao et al., "Scaling Deep Contrastive Learning Batch Size under Memory Limited Setup".

Legend: K micro-batches of n samples on this rank, N samples of the global batch.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from plinth.engine.stage import Batch
from plinth.world import World

Features = dict[str, Tensor]


def pass_seed(seed: int, step: int, micro_batch: int) -> int:
    """Seed of torch's generators for a pass: a function of the micro-batch's place in the *global* batch,
    so dropout is the same in both passes and at any world size."""
    digest = hashlib.blake2b(f"{seed}/{step}/{micro_batch}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1  # torch takes 63 bits


def split(batch: Batch, size: int) -> list[Batch]:
    """Consecutive micro-batches of `size` samples; lists are cut as tensors are."""
    rows = next(len(value) for value in batch.values())
    return [{k: v[i : i + size] for k, v in batch.items()} for i in range(0, rows, size)]


def to_device(batch: Batch, device: torch.device) -> Batch:
    """The batch with its tensors on the device; nothing waits for the copies to a GPU."""
    return {k: _moved(v, device) if isinstance(v, Tensor) else v for k, v in batch.items()}


def _moved(tensor: Tensor, device: torch.device) -> Tensor:
    if device.type == "cuda" and not tensor.is_pinned():  # what `prepare` has drawn
        tensor = tensor.pin_memory()
    return tensor.to(device, non_blocking=True)


def gather(micro_batches: Iterable[Features], world: World) -> Features:
    """Features [N, ...] of the global batch on every rank, in one message, without a graph; floating point in
    fp32.

    Args:
        micro_batches: the features [n, ...] of this rank's micro-batches, in order.
    """
    columns: dict[str, list[Tensor]] = {}
    for features in micro_batches:
        for name, rows in features.items():
            columns.setdefault(name, []).append(rows.detach())
    own = {name: torch.cat(rows) if len(rows) > 1 else rows[0] for name, rows in columns.items()}
    return {name: _widened(rows) for name, rows in _gather_rows(own, world).items()}


def _widened(rows: Tensor) -> Tensor:
    return rows.float() if rows.dtype in (torch.bfloat16, torch.float16) else rows


def _gather_rows(own: Features, world: World) -> Features:
    if world.world_size == 1 or not own:
        return {name: rows.clone() for name, rows in own.items()}
    sent = torch.cat([rows.contiguous().view(-1).view(torch.uint8) for rows in own.values()])
    received = sent.new_empty(world.world_size, len(sent))
    dist.all_gather_into_tensor(received.view(-1), sent)
    parts = received.split([rows.numel() * rows.element_size() for rows in own.values()], dim=1)
    return {
        name: part.contiguous().view(-1).view(rows.dtype).view(-1, *rows.shape[1:])
        for (name, rows), part in zip(own.items(), parts, strict=True)
    }


def gradients(total: Tensor, features: Features, world: World, micro_batches: int) -> list[Features]:
    """d total / d features for this rank's rows, by micro-batch. Features that `total` does not depend on, or
    that are not floating point, have none."""
    leaves = {name: f for name, f in features.items() if f.requires_grad}
    if not leaves or not total.requires_grad:
        return [{} for _ in range(micro_batches)]
    found = torch.autograd.grad(total, list(leaves.values()), allow_unused=True)
    own = world.rows(len(next(iter(leaves.values()))))
    cut = [
        (name, g[own.start : own.stop].chunk(micro_batches))
        for name, g in zip(leaves, found, strict=True)
        if g is not None
    ]
    return [{name: chunks[k] for name, chunks in cut} for k in range(micro_batches)]


def surrogate(features: Features, grads: Features) -> Tensor | None:
    """A scalar that has the gradient of the global loss with regard to the model."""
    parts = [
        (features[name].to(g.dtype) * g).sum() for name, g in grads.items() if features[name].requires_grad
    ]
    return torch.stack(parts).sum() if parts else None


def exchange(numbers: Tensor, world: World) -> Tensor:
    """Numbers [k] of every rank, [ranks, k], in one message."""
    if world.world_size == 1:
        return numbers[None]
    received = numbers.new_empty(world.world_size, len(numbers))
    dist.all_gather_into_tensor(received.view(-1), numbers)
    return received


def host(numbers: Tensor) -> np.ndarray:
    """The only place where a step waits for the device."""
    found: np.ndarray = numbers.cpu().numpy()
    return found
