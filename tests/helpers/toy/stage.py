"""A small Stage with every feature that the engine must get right.

Frozen base weights with trainable low-rank additions, a frozen target copy (EMA), two parameter groups
with their own lr_scale and weight decay, dropout, a trainable scale of shape (1,) owned by the stage
itself, a parameter that no loss uses, a buffer, contrastive features with masks, and a local loss.

Legend: n samples, V views, D width.
    batch: x [n, V, 12] float32, y [n, V, 8] float32 (teacher), sample_valid bool [n], sample_key int64 [n]
"""

from __future__ import annotations

import copy
from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from plinth.engine.stage import Batch, Contrast, Encoded, ParamGroup

INPUT, WIDTH, JOINT, VIEWS = 12, 20, 8, 2


class LowRankLinear(nn.Module):
    """A frozen linear layer plus a trainable low-rank one, as LoRA."""

    def __init__(self, width_in: int, width_out: int, rank: int, dropout: float) -> None:
        super().__init__()
        self.base = nn.Linear(width_in, width_out)
        self.base.requires_grad_(False)
        self.down = nn.Linear(width_in, rank, bias=False)
        self.up = nn.Linear(rank, width_out, bias=False)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        return self.base(x) + self.up(self.down(self.dropout(x)))


class Encoder(nn.Module):
    """Two low-rank layers between a trainable patch embedding and a norm."""

    def __init__(self, dropout: float) -> None:
        super().__init__()
        self.patch = nn.Linear(INPUT, WIDTH)
        self.first = LowRankLinear(WIDTH, WIDTH, 3, dropout)
        self.norm = nn.LayerNorm(WIDTH)
        self.out = LowRankLinear(WIDTH, JOINT, 2, dropout)

    def forward(self, x: Tensor) -> Tensor:
        x = F.gelu(self.first(self.patch(x.to(self.patch.weight.dtype))))
        return self.out(self.norm(x))


class ToyStage(nn.Module):
    """See the module's docstring; satisfies `plinth.engine.stage.Stage` by shape."""

    log_details = False

    def __init__(self, seed: int = 0, dropout: float = 0.2, local_weight: float = 0.5) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.encoder = Encoder(dropout)
            self.predictor = nn.Linear(JOINT, JOINT)
        self.target = copy.deepcopy(self.encoder).requires_grad_(False)
        self.log_scale = nn.Parameter(torch.full((1,), 1.0))
        self.unused = nn.Parameter(torch.ones(3, 2))
        self.register_buffer("centre", torch.linspace(-1, 1, INPUT))
        self.local_weight = local_weight

    def prepare(self, batch: Batch) -> Batch:
        return batch

    def forward(self, batch: Batch, features_only: bool = False) -> Encoded:
        centred = batch["x"] - self.centre
        student = F.normalize(_wide(self.encoder(centred)), dim=-1) * _wide(self.log_scale).exp()
        valid = batch["sample_valid"]
        encoded = Encoded(
            features={"student": student, "teacher": batch["y"], "valid": valid, "key": batch["sample_key"]},
            counts={"local": valid.sum()},
            weights={"local": self.local_weight},
            logs={"student_std": student.detach().std()},
        )
        if self.log_details:
            encoded.logs["student_max"] = student.detach().abs().max()
        if not features_only:
            hidden = _wide(self.predictor(self.encoder(centred * 0.5)))
            with torch.no_grad():
                target = _wide(self.target(centred))
            errors = (hidden - target).pow(2).flatten(1).mean(1)
            encoded.sums["local"] = (errors * valid).sum()
        return encoded

    def contrast(self, features: dict[str, Tensor]) -> Contrast:
        student, teacher = features["student"], features["teacher"]
        valid = features["valid"].repeat_interleave(VIEWS)
        a, b = student.flatten(0, 1)[valid], teacher.flatten(0, 1)[valid]
        b = F.normalize(b, dim=-1)
        labels = torch.arange(len(a), device=a.device)
        view = 0.5 * (F.cross_entropy(a @ b.T, labels) + F.cross_entropy(b @ a.T, labels))
        return Contrast(total=view, terms={"view": view.detach()}, logs={"rows": valid.sum()})

    def param_groups(self, weight_decay: float) -> list[ParamGroup]:
        trainable = [(n, p) for n, p in self.named_parameters() if p.requires_grad]
        decayed = [p for _, p in trainable if p.ndim > 1]
        others = [p for _, p in trainable if p.ndim <= 1]
        return [
            {"name": "decayed", "params": decayed, "weight_decay": weight_decay, "lr_scale": 1.0},
            {"name": "others", "params": others, "weight_decay": 0.0, "lr_scale": 0.5},
        ]

    def ema_pairs(self) -> dict[str, str]:
        trainable = [n for n, p in self.named_parameters() if p.requires_grad]
        return {n: n.replace("encoder.", "target.") for n in trainable if n.startswith("encoder.")}

    def ema_momentum(self, progress: float) -> float:
        return 0.9 + 0.1 * progress

    def columns(self) -> Iterable[str]:
        return ("x", "y")

    def fake_batch(self, n: int, seed: int = 0) -> Batch:
        generator = torch.Generator().manual_seed(seed)
        return {
            "x": torch.randn(n, VIEWS, INPUT, generator=generator),
            "y": torch.randn(n, VIEWS, JOINT, generator=generator),
            "sample_valid": torch.arange(n) % 7 != 3,
            "sample_key": torch.arange(n) + 1000 * seed,
            "sample_id": [f"sample-{seed}-{i}" for i in range(n)],
            "epoch": torch.zeros(n, dtype=torch.int64),
        }

    def pictures(self, batch: Batch) -> dict[str, np.ndarray]:
        with torch.no_grad():
            grey = self.encoder(batch["x"] - self.centre).float().flatten(0, 1).sigmoid().cpu().numpy()
        return {"features": np.repeat((grey * 255).astype(np.uint8)[..., None], 3, axis=-1)}


def _wide(x: Tensor) -> Tensor:
    """At least fp32: losses are computed so, whatever the weights are."""
    return x if x.dtype == torch.float64 else x.float()


def build_toy(**options: Any) -> ToyStage:
    """For callers that pass a constructor across processes."""
    return ToyStage(**options)
