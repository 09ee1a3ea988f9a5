"""What a GPU holds in training, by ZeRO stage: a sum of parts that can be checked one by one."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch

from plinth.engine.config import Precision, ZeroConfig
from plinth.engine.gradients import is_short
from poma3d.cost.activations import Activations, StageSize

FLOAT32_BYTES = 4
MOMENTS = 2
USABLE_SHARE = 0.92
"""Share of a GPU's memory: the rest is the CUDA context, NCCL's buffers and holes between allocations."""
PAIR_BYTES = 34
"""Bytes per pair of rows in the contrastive losses: 18 that autograd keeps (a test counts them), the rest
while the logits are masked and their gradient is formed."""
STEP_COPIES = 2
"""float32 tensors as large as a rank's masters that exist while Adam steps."""


@dataclass(frozen=True)
class Memory:
    """Bytes of one GPU, by part."""

    weights: int
    gradients: int
    optimizer: int
    """fp32 masters and Adam's two moments."""
    average: int
    """The target encoder's fp32 average; its copy in another precision or cut is among the weights."""
    buckets: int
    """What travels between ranks."""
    activations: int
    """For one micro-batch, with the batch itself and temporary tensors of both passes."""
    chamfer: int
    """Distances that exist at a time."""
    contrast: int
    """Logits of the global batch, which every GPU computes whole."""
    two_pass: bool
    """Whether the logits are gone when a micro-batch's activations are there."""
    step: int
    """While Adam steps; the activations are gone by then."""
    frozen: int = 0
    """Of the weights, those that are not trained."""

    @property
    def trained(self) -> int:
        """The other weights."""
        return self.weights - self.frozen

    @property
    def resident(self) -> int:
        """Held between steps."""
        return self.weights + self.gradients + self.optimizer + self.average

    @property
    def peak(self) -> int:
        """The most at any time."""
        passing = self.activations + self.chamfer + self.buckets
        contrasting = self.contrast if self.two_pass else self.contrast + self.activations
        return self.resident + max(passing, contrasting, self.step)


def dtype_of(zero: ZeroConfig) -> torch.dtype:
    """The dtype of weights and activations."""
    return torch.bfloat16 if zero.precision is Precision.bf16 else torch.float32


def memory(
    size: StageSize,
    activations: Activations,
    zero: ZeroConfig,
    stage: int,
    world_size: int,
    micro_batch_size: int,
    pairs: int = 0,
    two_pass: bool = True,
) -> Memory:
    """What each of `world_size` GPUs holds.

    Args:
        zero: precisions and buckets; its stage is not read.
        stage: ZeRO stage. At 0 the weights are their own masters.
        pairs: rows of the contrastive losses against each other, over the global batch.
        two_pass: more than one micro-batch on a GPU.
    """
    itemsize = dtype_of(zero).itemsize
    in_one_message = is_short(replace(zero, stage=stage), size.trainable)
    of_optimizer = world_size if stage >= 1 else 1
    of_gradients = world_size if stage >= 2 and not in_one_message else 1
    of_weights = world_size if stage == 3 else 1
    accumulated = FLOAT32_BYTES if zero.accumulate_precision is Precision.fp32 else itemsize
    masters = 0 if stage == 0 else FLOAT32_BYTES * size.trainable // of_optimizer
    # Until a bucket is full its gradients exist twice: as their parameters' own and in it. Stage 3 has
    # another for the weights that it gathers. What fits in one message is added up in it, so that beside it
    # there are the parameters' own alone.
    copies = 0 if stage == 0 else 1 if in_one_message else 2
    buckets = copies * itemsize * min(zero.bucket_size, size.trainable)
    if stage == 3:
        buckets += itemsize * min(zero.bucket_size, size.parameters)
    return Memory(
        weights=itemsize * size.parameters // of_weights,
        gradients=accumulated * size.trainable // of_gradients,
        optimizer=masters + MOMENTS * FLOAT32_BYTES * size.trainable // of_optimizer,
        average=0
        if stage < 3 and itemsize == FLOAT32_BYTES
        else FLOAT32_BYTES * size.averaged // of_optimizer,
        buckets=buckets,
        activations=activations.of(micro_batch_size) - activations.block,
        chamfer=activations.block,
        contrast=PAIR_BYTES * pairs,
        two_pass=two_pass,
        step=STEP_COPIES * FLOAT32_BYTES * size.trainable // of_optimizer,
        frozen=itemsize * (size.parameters - size.trainable) // of_weights,
    )


def largest_micro_batch(
    size: StageSize,
    activations: Activations,
    zero: ZeroConfig,
    stage: int,
    world_size: int,
    gpu_bytes: float,
    pairs: int = 0,
) -> int:
    """Samples that fit through the model at once, also where they are all that a GPU has; 0 where not even
    one does."""
    without = memory(size, activations, zero, stage, world_size, 0, pairs, two_pass=False)
    beside = max(without.chamfer + without.buckets, without.contrast)
    left = USABLE_SHARE * gpu_bytes - without.resident - beside
    if USABLE_SHARE * gpu_bytes < without.resident + without.step:
        return 0
    return max(0, int(left // (activations.of(1) - activations.block)))


def divisors_up_to(largest: int, global_batch_size: int, world_size: int) -> list[int]:
    """Micro-batches of at most `largest` that cut the global batch evenly over the workers, ascending."""
    if global_batch_size % world_size:
        return []
    per_rank = global_batch_size // world_size
    return [n for n in range(1, min(largest, per_rank) + 1) if per_rank % n == 0]
