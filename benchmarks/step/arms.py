"""What `benchmarks.step` compares: one optimizer step of a stage on some ranks, done in several ways.

    bare        torch alone, as one would write it by hand: DistributedDataParallel, AdamW, clipping, an
                average of the encoder, features gathered with gradient
    deepspeed   the same loss through `deepspeed.initialize` at the platform's ZeRO stage, nothing else of it
    engine      `plinth.engine.Engine`: exact gradients at any split, exact sums, guards, sharded average

All of them train the same stage on the same batch, which stays in memory, and are told for each step which
epoch it counts as: an epoch has sizes of masks of its own, and with them its own cost. Each way has processes
of its own, which wait on a pipe while the others run.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any, Protocol

import torch
import torch.distributed as dist
from torch import Tensor, nn

from benchmarks.step.random_tower import random_tower
from plinth.engine.config import OptimConfig, Precision, ZeroConfig
from plinth.engine.engine import Engine, EngineConfig
from plinth.engine.global_batch import to_device
from plinth.engine.process import Process, prepare_deepspeed, start, without_prints
from plinth.engine.zero_config import deepspeed_config
from plinth.train.parts import Parts, watch_engine
from poma3d.network.config import (
    EmaConfig,
    EncoderConfig,
    LossConfig,
    MaskConfig,
    ModelConfig,
    PredictorConfig,
    TuningConfig,
)
from poma3d.network.vit import VitShape
from poma3d.sample import SampleShape
from poma3d.stages import build_stage

TOTAL_STEPS = 100_000
"""Length of the schedules: no step of a measurement is the last."""


@dataclass(frozen=True)
class Case:
    """A stage, its sizes and how it is computed."""

    name: str
    kind: str
    vit: VitShape
    views: int
    captions: int
    scene_captions: int
    global_batch_size: int
    predictor: PredictorConfig
    masks: MaskConfig
    lr: float
    tuning: str = "full"
    zero_stage: int = 2
    precision: str = "fp32"
    exact_sums: bool = True
    workers: int = 2

    @property
    def micro_batch_size(self) -> int:
        """A rank's part of the batch is one."""
        return self.global_batch_size // self.workers

    def zero(self) -> ZeroConfig:
        """The platform's settings."""
        return ZeroConfig(
            stage=self.zero_stage, precision=Precision(self.precision), exact_sums=self.exact_sums
        )

    def optim(self) -> OptimConfig:
        """AdamW as in the shipped jobs."""
        return OptimConfig(lr=self.lr, warmup_steps=0)

    def stage(self) -> Any:
        """The stage with random weights, the same on every rank."""
        shape = SampleShape(
            self.views, *self.vit.image_size, captions=self.captions, scene_captions=self.scene_captions,
            embedding=self.vit.joint,
        )  # fmt: skip
        model = ModelConfig(
            encoder=EncoderConfig(tuning=TuningConfig(mode=self.tuning)),
            predictor=self.predictor,
            masks=self.masks,
            ema=EmaConfig(momentum_start=0.99),
        )
        return build_stage(self.kind, model, LossConfig(), shape, random_tower(self.vit), seed=0)


class Arm(Protocol):
    """One way to train."""

    def step(self, epoch: int) -> float:
        """One optimizer step; returns the loss."""
        ...


def of_epoch(batch: dict[str, Tensor], epoch: int) -> dict[str, Tensor]:
    """The batch as one of an epoch, which decides what is drawn for it."""
    return {**batch, "epoch": torch.full_like(batch["epoch"], epoch)}


def adamw(stage: Any, optim: OptimConfig) -> torch.optim.AdamW:
    """The optimizer of the arms that do not use the engine."""
    return torch.optim.AdamW(
        [dict(g) for g in stage.param_groups(optim.weight_decay)],
        lr=optim.lr, betas=(optim.beta1, optim.beta2), eps=optim.eps,
    )  # fmt: skip


class TargetCopy:
    """The moving average of a stage's weights, in those arms."""

    def __init__(self, stage: Any) -> None:
        self._stage = stage
        parameters, pairs = dict(stage.named_parameters()), stage.ema_pairs()
        self._sources = [parameters[name] for name in pairs]
        self._targets = [parameters[name] for name in pairs.values()]

    @torch.no_grad()
    def update(self) -> None:
        """One step."""
        if self._targets:
            torch._foreach_lerp_(self._targets, self._sources, 1 - self._stage.ema_momentum(0.0))


class Bare:
    """torch alone. Its gradients are those of the global batch, too."""

    def __init__(self, case: Case, process: Process) -> None:
        self.stage = case.stage().to(process.device)
        self.optimizer = adamw(self.stage, case.optim())
        self.clip = case.optim().grad_clip
        self.model = nn.parallel.DistributedDataParallel(self.stage)
        self.is_half = case.precision == "bf16"
        rows = case.global_batch_size // process.world.world_size
        self.batch = to_device(self.stage.fake_batch(rows, seed=process.world.rank), process.device)
        self.target = TargetCopy(self.stage)

    def step(self, epoch: int) -> float:
        device = self.batch["sample_key"].device.type
        with torch.autocast(device, torch.bfloat16, enabled=self.is_half):
            encoded = self.model(of_epoch(self.batch, epoch))
        loss = global_loss(self.stage, encoded)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.stage.parameters(), self.clip)
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.target.update()
        return loss.item()


class DeepSpeed:
    """The same through DeepSpeed, at the platform's ZeRO stage."""

    def __init__(self, case: Case, process: Process) -> None:
        prepare_deepspeed()
        import deepspeed

        self.stage = case.stage()
        optimizer = adamw(self.stage, case.optim())
        rows = case.global_batch_size // process.world.world_size
        # As in the platform: DeepSpeed looks for tensors in dicts, not in dataclasses.
        self.stage.register_forward_hook(lambda module, inputs, output: dict(vars(output)))
        config = deepspeed_config(case.zero(), case.optim(), rows, 1)
        with without_prints():
            self.model, *_ = deepspeed.initialize(model=self.stage, optimizer=optimizer, config=config)
        self.batch = to_device(self.stage.fake_batch(rows, seed=process.world.rank), process.device)
        self.target = TargetCopy(self.stage)

    def step(self, epoch: int) -> float:
        loss = global_loss(self.stage, self.model(of_epoch(self.batch, epoch)))
        self.model.backward(loss)
        self.model.step()
        self.target.update()
        return loss.item()


class Platform:
    """The platform's engine."""

    def __init__(self, case: Case, process: Process) -> None:
        sizes = (case.global_batch_size, case.micro_batch_size)
        config = EngineConfig(case.optim(), case.zero(), *sizes, TOTAL_STEPS, seed=0)
        self.stage = case.stage()
        self.engine = Engine(self.stage, config, process)
        rows = case.global_batch_size // process.world.world_size
        self.batch = self.stage.fake_batch(rows, seed=process.world.rank)

    def step(self, epoch: int) -> float:
        return self.engine.step(of_epoch(self.batch, epoch)).loss


ARMS: dict[str, Any] = {"bare": Bare, "deepspeed": DeepSpeed, "engine": Platform}


def global_loss(stage: Any, encoded: Any) -> Tensor:
    """The loss of the global batch, whose gradient the average over ranks is exact for."""
    of = encoded if isinstance(encoded, dict) else vars(encoded)
    gathered = {name: _gathered(rows) for name, rows in of["features"].items()}
    loss: Tensor = stage.contrast(gathered).total
    for name, total in of["sums"].items():
        count = of["counts"][name].detach().float().clone()
        dist.all_reduce(count)
        loss = loss + dist.get_world_size() * of["weights"][name] * total / count.clamp(min=1)
    return loss


def _gathered(rows: Tensor) -> Tensor:
    """Rows of all ranks; the gradient of this rank's is summed over ranks."""
    if rows.requires_grad:
        from torch.distributed.nn.functional import all_gather

        return torch.cat(all_gather(rows.float()))
    sent = rows.float().contiguous() if rows.is_floating_point() else rows.contiguous()
    sent = sent.view(torch.uint8) if sent.dtype == torch.bool else sent
    received = sent.new_empty(dist.get_world_size() * len(sent), *sent.shape[1:])
    dist.all_gather_into_tensor(received, sent)
    return received.view(torch.bool) if rows.dtype == torch.bool else received


def serve(arm: str, case: Case, rank: int, port: int, pipe: Connection) -> None:
    """A rank: `("run", epochs)` answers (wall seconds, CPU seconds, loss) of a step of each of these epochs,
    `("parts", epochs)` seconds by part, `("end",)` ends."""
    os.environ.update(
        MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port), RANK=str(rank), LOCAL_RANK=str(rank),
        WORLD_SIZE=str(case.workers), OMP_NUM_THREADS="1",
    )  # fmt: skip
    process = start(threads=1, use_gpu=False)
    trained: Arm = ARMS[arm](case, process)
    parts = Parts()
    pipe.send(("ready",))
    while (message := pipe.recv())[0] != "end":
        epochs = message[1]
        dist.barrier()
        if message[0] == "parts":
            with watch_engine(trained.engine, parts):  # type: ignore[attr-defined]
                for epoch in epochs:
                    trained.step(epoch)
            pipe.send(parts.take(len(epochs)))
            continue
        wall, cpu = time.perf_counter(), time.process_time()
        loss = 0.0
        for epoch in epochs:
            loss = trained.step(epoch)
        pipe.send((time.perf_counter() - wall, time.process_time() - cpu, loss))
    dist.destroy_process_group()
