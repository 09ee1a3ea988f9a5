"""Training the toy stage through the engine, as cases that can be sent to other processes."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from plinth.checkpoint import save_load as checkpoint
from plinth.checkpoint.config import CheckpointConfig
from plinth.checkpoint.saver import Saver
from plinth.engine import process
from plinth.engine.config import OptimConfig, Precision, ZeroConfig
from plinth.engine.engine import Engine, EngineConfig
from plinth.storage import Storage
from plinth.world import World
from tests.helpers.reference import Trained
from tests.helpers.toy.stage import ToyStage

GLOBAL_BATCH = 16
SEED = 5
OPTIM = OptimConfig(lr=5e-3, warmup_steps=3, weight_decay=0.1, grad_clip=1.0)


@dataclass
class Case:
    """One training of the toy stage."""

    zero: int
    precision: str = "fp32"
    micro_batch_size: int = 4
    steps: int = 20
    total_steps: int = 20
    clips: bool = True
    exact_sums: bool = True
    one_message: bool = False
    """Whether a bucket holds all gradients; a small one makes them travel in several messages."""

    def zero_config(self) -> ZeroConfig:
        """ZeRO at this stage."""
        return ZeroConfig(
            stage=self.zero,
            precision=Precision[self.precision],
            exact_sums=self.exact_sums,
            bucket_size=1_000_000 if self.one_message else 1000,
        )

    def optim_config(self) -> OptimConfig:
        """The same for all but the clipping."""
        return OPTIM if self.clips else replace(OPTIM, grad_clip=0.0)


def global_batches(steps: int) -> list[dict[str, Any]]:
    """The same batches in every process."""
    return [ToyStage().fake_batch(GLOBAL_BATCH, seed=step) for step in range(steps)]


def local_rows(batch: dict[str, Any], world: World) -> dict[str, Any]:
    """This rank's rows of a global batch."""
    rows = world.rows(GLOBAL_BATCH)
    return {k: v[rows.start : rows.stop] for k, v in batch.items()}


def toy_engine(case: Case, proc: process.Process, stage: Any = None) -> Engine:
    """An engine around `stage`, a fresh toy stage when None."""
    zero, size = case.zero_config(), case.micro_batch_size
    config = EngineConfig(case.optim_config(), zero, GLOBAL_BATCH, size, case.total_steps, SEED)
    return Engine(stage or ToyStage(), config, proc)


def full_state(engine: Engine) -> dict[str, torch.Tensor]:
    """Everything that a checkpoint holds, of all ranks, flat and by its key there."""
    shards = [
        (p.key, p.numel, p.start, p.tensor.detach().clone())
        for p in checkpoint.tensor_shards(engine, writing=True)
    ]
    gathered: list[Any] = [None] * engine.world.world_size
    torch.distributed.all_gather_object(gathered, shards)
    whole: dict[str, torch.Tensor] = {}
    for key, numel, start, values in (p for rank in gathered for p in rank):
        flat = whole.setdefault(key, torch.zeros(numel, dtype=values.dtype))
        flat[start : start + len(values)] = values
    return whole


def full_weights(engine: Engine) -> dict[str, torch.Tensor]:
    """Masters, averages and frozen weights in their shapes, fp32."""
    named = ((*key.split("/", 1), flat) for key, flat in full_state(engine).items())
    return {
        name: flat.float().view(engine.shards.shape(name))
        for kind, name, flat in named
        if kind in ("master", "ema", "frozen")
    }


def trained_by(engine: Engine, batches: list[dict[str, Any]], details: bool = False) -> Trained:
    """Train on this rank's rows of global batches, and close the engine; on all ranks."""
    result = Trained()
    for batch in batches:
        rows = engine.world.rows(len(batch["sample_valid"]))
        outcome = engine.step({k: v[rows.start : rows.stop] for k, v in batch.items()}, details=details)
        result.losses.append(outcome.loss)
        result.grad_norms.append(outcome.grad_norm)
    result.weights = full_weights(engine)
    engine.close()
    return result


def train_case(case: Case) -> Trained:
    """Train, on all ranks."""
    return trained_by(toy_engine(case, process.start(threads=1)), global_batches(case.steps))


def train_cases(cases: list[Case]) -> list[Trained]:
    """Several trainings one after the other in the same processes."""
    return [train_case(case) for case in cases]


def first_gradients(micro_batch_sizes: list[int]) -> list[dict[str, torch.Tensor]]:
    """Gradient of the first batch for each micro-batch size, with all its bits, read from Adam's first
    moment: without clipping it is (1 - beta1) times the gradient after one step."""
    proc = process.start(threads=1)
    found = []
    for size in micro_batch_sizes:
        case = Case(zero=2, micro_batch_size=size, clips=False, exact_sums=False)
        engine = toy_engine(case, proc, ToyStage(dropout=0.0))
        engine.step(local_rows(global_batches(1)[0], proc.world))
        moments = {k.removeprefix("exp_avg/"): v for k, v in full_state(engine).items() if "exp_avg/" in k}
        found.append({n: m.view(engine.shards.shape(n)) / (1 - OPTIM.beta1) for n, m in moments.items()})
        engine.close()
    return found


def save_now(engine: Engine, storage: Storage, scratch: Path, notes: dict[str, Any], keep_last: int) -> None:
    """On all ranks: a checkpoint that counts when this returns."""
    saver = Saver(engine.world, storage, scratch, CheckpointConfig(keep_last=keep_last, asynchronous=False))
    checkpoint.save(engine, saver, notes)
    saver.close()
