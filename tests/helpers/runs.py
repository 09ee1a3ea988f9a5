"""Training the toy stage through the engine, as cases that can be sent to other processes."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch

from plinth.train import process
from plinth.train.engine import BatchSizes, Engine
from plinth.train.schedules import OptimConfig
from plinth.train.zero import Precision, ZeroConfig
from plinth.world import World
from tests.helpers.reference import Trained
from tests.helpers.toy import ToyStage

GLOBAL_BATCH = 16
OPTIM = OptimConfig(lr=5e-3, warmup_steps=3, weight_decay=0.1, grad_clip=1.0)


@dataclass
class Case:
    """One training of the toy stage."""

    zero: int
    precision: str = "fp32"
    micro_batch_size: int = 4
    steps: int = 20
    total_steps: int = 20
    seed: int = 5
    dropout: float = 0.2
    options: dict[str, Any] = field(default_factory=dict)

    def config(self) -> ZeroConfig:
        return ZeroConfig(
            stage=self.zero, precision=Precision[self.precision], bucket_size=1000, **self.options
        )


def global_batches(steps: int) -> list[dict[str, Any]]:
    """The same batches in every process."""
    return [ToyStage().fake_batch(GLOBAL_BATCH, seed=step) for step in range(steps)]


def local_rows(batch: dict[str, Any], world: World) -> dict[str, Any]:
    """This rank's rows of a global batch."""
    rows = world.rows(GLOBAL_BATCH)
    return {k: v[rows.start : rows.stop] for k, v in batch.items()}


def toy_engine(case: Case, proc: process.Process, **stage_options: Any) -> Engine:
    """An engine around a fresh toy stage."""
    return Engine(
        ToyStage(dropout=case.dropout, **stage_options),
        OPTIM,
        case.config(),
        proc,
        total_steps=case.total_steps,
        sizes=BatchSizes(GLOBAL_BATCH, case.micro_batch_size),
        seed=case.seed,
    )


def full_weights(engine: Engine) -> dict[str, torch.Tensor]:
    """Masters, averages and frozen weights of all ranks in their full shapes, fp32."""
    pieces = [(f.name, f.numel, f.start, f.master) for f in engine.shards.fragments]
    pieces += [(p.key, p.numel, p.start, p.tensor) for p in engine.ema.pieces()]
    frozen = [
        engine.shards.frozen(n) for n in engine.shards.frozen_names() if n not in engine.ema.pairs.values()
    ]
    pieces += [(p.key, p.numel, p.start, p.tensor) for p in frozen]
    gathered: list[Any] = [None] * engine.world.world_size
    torch.distributed.all_gather_object(gathered, [(*p[:3], p[3].float().clone()) for p in pieces])
    whole: dict[str, torch.Tensor] = {}
    for name, numel, start, values in (p for rank in gathered for p in rank):
        whole.setdefault(name, torch.full((numel,), torch.nan))[start : start + len(values)] = values
    return {name: flat.view(engine.shards.shape(name)) for name, flat in whole.items()}


def train_case(case: Case) -> Trained:
    """Train, on all ranks."""
    proc = process.start(threads=1)
    engine = toy_engine(case, proc)
    result = Trained()
    for batch in global_batches(case.steps):
        outcome = engine.step(local_rows(batch, proc.world))
        result.losses.append(outcome.loss)
        result.grad_norms.append(outcome.grad_norm)
    result.weights = full_weights(engine)
    engine.close()
    return result


def train_cases(cases: list[Case]) -> list[Trained]:
    """Several trainings one after the other in the same processes."""
    return [train_case(case) for case in cases]
