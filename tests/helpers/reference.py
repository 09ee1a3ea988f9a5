"""The plain way: one process, no DeepSpeed, the whole global batch under one graph, AdamW, an EMA."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from plinth.engine.adamw import lr_at
from plinth.engine.config import OptimConfig
from plinth.engine.global_batch import pass_seed, split


@dataclass
class Trained:
    """What a run left: per step the total loss and the gradient norm; at the end weights by name."""

    losses: list[float] = field(default_factory=list)
    grad_norms: list[float] = field(default_factory=list)
    weights: dict[str, Tensor] = field(default_factory=dict)


class Ema:
    """Float32 averages by name. Starts as a copy."""

    def __init__(self, online: Mapping[str, Tensor]) -> None:
        self.averages = {name: p.detach().float().clone() for name, p in online.items()}

    @torch.no_grad()
    def update(self, online: Mapping[str, Tensor], momentum: float) -> None:
        """average = momentum * average + (1 - momentum) * online."""
        for name, average in self.averages.items():
            average.lerp_(online[name].detach().float(), 1.0 - momentum)

    @torch.no_grad()
    def copy_to(self, targets: Mapping[str, Tensor]) -> None:
        """Write each average into the target of the same name, rounded to its dtype."""
        for name, average in self.averages.items():
            targets[name].copy_(average)


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
    ema = Ema({target: stage.get_parameter(source) for source, target in stage.ema_pairs().items()})
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
        online = {target: stage.get_parameter(source) for source, target in stage.ema_pairs().items()}
        ema.update(online, stage.ema_momentum(step / max(1, total_steps - 1)))
        ema.copy_to({target: stage.get_parameter(target) for target in online})
        result.losses.append(loss.item())
        result.grad_norms.append(float(norm))
    result.weights = {name: p.detach().clone() for name, p in stage.named_parameters()}
    return result
