"""The plain way: one process, no DeepSpeed, the whole global batch under one graph, AdamW, an EMA."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from plinth.engine.config import OptimConfig
from plinth.engine.global_batch import pass_seed, split
from plinth.engine.schedules import lr_at


@dataclass
class Trained:
    """What a run left: per step the total loss and the gradient norm; at the end weights by name."""

    losses: list[float] = field(default_factory=list)
    grad_norms: list[float] = field(default_factory=list)
    weights: dict[str, Tensor] = field(default_factory=dict)


def global_loss(stage: Any, batch: dict[str, Any], micro_batch_size: int, seed: int, step: int) -> Tensor:
    """Total loss over the global batch; passes are seeded as in the engine so that dropout is the same."""
    encoded = []
    for index, micro_batch in enumerate(split(batch, micro_batch_size)):
        torch.manual_seed(pass_seed(seed, step, index))
        encoded.append(stage(micro_batch))
    total = stage.contrast(
        {k: torch.cat([e.features[k] for e in encoded]) for k in encoded[0].features}
    ).total
    for name, weight in encoded[0].weights.items():
        count = sum(e.counts[name] for e in encoded).clamp(min=1)
        total = total + weight * sum(e.sums[name] for e in encoded) / count
    return total


def train(
    stage: Any,
    batches: list[dict[str, Any]],
    optim: OptimConfig,
    micro_batch_size: int,
    seed: int,
    total_steps: int,
) -> Trained:
    """Train `stage` on global batches."""
    groups = stage.param_groups(optim.weight_decay)
    adam = torch.optim.AdamW([dict(g) for g in groups], betas=(optim.beta1, optim.beta2), eps=optim.eps)
    trainable = [p for p in stage.parameters() if p.requires_grad]
    averages = {t: stage.get_parameter(s).detach().clone() for s, t in stage.ema_pairs().items()}
    result = Trained()
    stage.train()
    for step, batch in enumerate(batches):
        loss = global_loss(stage, batch, micro_batch_size, seed, step)
        adam.zero_grad()
        loss.backward()
        for p in trainable:  # DeepSpeed steps a parameter without gradient as if it were zero
            p.grad = torch.zeros_like(p) if p.grad is None else p.grad
        norm = torch.nn.utils.clip_grad_norm_(trainable, optim.grad_clip or float("inf"))
        for group, settings in zip(adam.param_groups, groups, strict=True):
            group["lr"] = lr_at(optim, step, total_steps) * settings["lr_scale"]
        adam.step()
        momentum = stage.ema_momentum(step / max(1, total_steps - 1))
        for source, target in stage.ema_pairs().items():
            source_weights = stage.get_parameter(source).detach()
            averages[target].lerp_(source_weights, 1 - momentum)
            stage.get_parameter(target).data.copy_(averages[target])
        result.losses.append(loss.item())
        result.grad_norms.append(float(norm))
    result.weights = {name: p.detach().clone() for name, p in stage.named_parameters()}
    return result
