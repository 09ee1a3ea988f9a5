"""A stage's step by hand, from the parts that the engine is made of, without DeepSpeed and Ray."""

from __future__ import annotations

import sys
import time
import types
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile


def is_here(name: str) -> bool:
    """Whether a package can be imported."""
    if name in sys.modules:
        return sys.modules[name] is not None
    return find_spec(name) is not None


if not is_here("pyarrow"):  # named in annotations of modules whose tables nothing here reads
    sys.modules["pyarrow"] = types.ModuleType("pyarrow")

from benchmarks.step.random_tower import random_tower  # noqa: E402
from plinth.engine import global_batch  # noqa: E402
from plinth.engine.exact_sums import ExactSums  # noqa: E402
from plinth.engine.process import Process  # noqa: E402
from plinth.world import World  # noqa: E402
from poma3d.network import config  # noqa: E402
from poma3d.network.vit import ImageTower, VitShape  # noqa: E402
from poma3d.sample import SampleShape  # noqa: E402
from poma3d.stages import build_stage  # noqa: E402

ALONE = World(0, 1)
SEED, LR, EMA = 0, 1e-4, 0.996
CLIP = ("quick_gelu", 1e-5, "class")
VIEWS = {"warmup": 1, "main": 8}
SHAPES = {
    "tiny": VitShape((4, 4), 16, 3, 96, 4, 4, 384, *CLIP, 64),
    "B": VitShape((14, 14), 16, 3, 768, 12, 12, 3072, *CLIP, 512),
    "L": VitShape((16, 16), 14, 3, 1024, 24, 16, 4096, *CLIP, 768),
}
SAMPLES = {
    "tiny": {"warmup": 4, "main": 2},
    "B": {"warmup": 256, "main": 32},
    "L": {"warmup": 128, "main": 16},
}
"""Of a step, in one micro-batch."""


@dataclass
class Bench:
    """What all sections share."""

    device: torch.device
    sizes: list[str]
    steps: int
    peak_tflops: float | None
    ends: float
    """`time.monotonic()` after which no section begins."""

    @property
    def process(self) -> Process:
        """This process, alone."""
        return Process(ALONE, self.device, torch.get_num_threads(), "here")

    def wait(self) -> None:
        """Until the device is done."""
        if self.device.type == "cuda":
            torch.cuda.synchronize()

    def seconds(self, step: Callable[[], object]) -> float:
        """Of a call, after two to warm up."""
        for _ in range(2):
            step()
        self.wait()
        began = time.perf_counter()
        for _ in range(self.steps):
            step()
        self.wait()
        return (time.perf_counter() - began) / self.steps

    def profiled(self, step: Callable[[], object]) -> list[Any]:
        """Names and counts of what ran in a call, after one to warm up."""
        step()
        self.wait()
        activities = [ProfilerActivity.CPU]
        if self.device.type == "cuda":
            activities.append(ProfilerActivity.CUDA)
        with profile(activities=activities) as profiler:
            step()
        return list(profiler.key_averages())


def settings(size: str, kind: str, compiled: str = config.AS_WRITTEN) -> tuple[Any, ...]:
    """What `build_stage` and `stage_flops` take, without the weights: model, loss, samples."""
    vit = SHAPES[size]
    small = size == "tiny"
    model = config.ModelConfig(
        encoder=config.EncoderConfig(tuning=config.TuningConfig(mode=config.FULL), compile=compiled),
        predictor=config.PredictorConfig(layers=2, width=96, heads=4) if small else config.PredictorConfig(),
        masks=config.MaskConfig(min_context=4) if small else config.MaskConfig(),
    )
    views = 2 if small and kind == "main" else VIEWS[kind]
    return model, config.LossConfig(), SampleShape(views, *vit.image_size, embedding=vit.joint)


def tower(size: str) -> ImageTower:
    """Random weights, the same each time."""
    return random_tower(SHAPES[size])


def stage_of(
    bench: Bench, size: str, kind: str, dtype: torch.dtype, compiled: str = config.AS_WRITTEN
) -> Any:
    """A stage on the device."""
    stage = build_stage(kind, *settings(size, kind, compiled), tower(size), SEED)
    return stage.to(bench.device, dtype).train()


def micro_batches(bench: Bench, stage: Any, samples: int, count: int) -> list[Any]:
    """Prepared, on the device."""
    parts = global_batch.split(stage.fake_batch(samples * count), samples)
    return [global_batch.to_device(stage.prepare(part), bench.device) for part in parts]


def backward(stage: Any, batches: Sequence[Any], taken: Callable[[int], None], order: Sequence[int]) -> None:
    """The gradient of the global batch, micro-batch by micro-batch, as the engine takes it.

    Args:
        taken: called after each backward pass, whose gradients it takes from the parameters.
        order: of the micro-batches.
    """

    def encode(k: int) -> Any:
        torch.manual_seed(global_batch.pass_seed(SEED, 0, k))
        return stage(batches[k], features_only=False)

    alone = len(batches) == 1
    with torch.set_grad_enabled(alone):
        encoded = [encode(k) for k in range(len(batches))]
    counted = [{f"count/{n}": c.detach().view(1) for n, c in e.counts.items()} for e in encoded]
    pairs = zip(encoded, counted, strict=True)
    gathered = global_batch.gather([{**e.features, **c} for e, c in pairs], ALONE)
    counts = {name: gathered.pop(f"count/{name}").sum() for name in encoded[0].counts}
    for rows in gathered.values():
        rows.requires_grad_(rows.is_floating_point())
    grads = global_batch.gradients(stage.contrast(gathered).total, gathered, ALONE, len(batches))
    for k in order:
        of = encoded[0] if alone else encode(k)
        loss = global_batch.surrogate(of.features, grads[k])
        for name, total in of.sums.items():
            loss = loss + of.weights[name] * total / counts[name].clamp(min=1).float()
        loss.backward()
        taken(k)


def gradient(
    bench: Bench, stage: Any, batches: Sequence[Any], ranks: Sequence[Sequence[int]], exact: bool = True
) -> list[Tensor]:
    """One step's gradient in fp32, with the micro-batches dealt to ranks, whose sums are then added.

    Args:
        ranks: micro-batches of each, in its order.
        exact: as `zero.exact_sums`.
    """
    sums = ExactSums(stage.named_parameters(), len(batches), bench.process)
    while True:
        of_ranks = [[torch.zeros_like(p, dtype=torch.float32) for p in sums.parameters] for _ in ranks]
        owner = {k: rank for rank, own in enumerate(ranks) for k in own}

        def take(k: int) -> None:
            found = [torch.zeros_like(p) if p.grad is None else p.grad for p in sums.parameters]
            for parameter in sums.parameters:
                parameter.grad = None
            if exact:
                found = sums.rounded(found)
            torch._foreach_add_(of_ranks[owner[k]], found)  # noqa: B023  # called in this round

        backward(stage, batches, take, [k for own in ranks for k in own])
        if sums.settle(sums.largest.tolist()):
            break
    for other in of_ranks[1:]:
        torch._foreach_add_(of_ranks[0], other)
    return of_ranks[0]


class Trained:
    """A stage in bf16 with fp32 masters, AdamW and a target copy, one micro-batch a step."""

    def __init__(self, bench: Bench, size: str, kind: str, compiled: str = config.AS_WRITTEN) -> None:
        self.stage = stage_of(bench, size, kind, torch.bfloat16, compiled)
        self.batches = micro_batches(bench, self.stage, SAMPLES[size][kind], 1)
        self.weights = [p for p in self.stage.parameters() if p.requires_grad]
        self.masters = [p.detach().float().clone() for p in self.weights]
        self.optimizer = torch.optim.AdamW(self.masters, lr=LR, fused=bench.device.type == "cuda")
        by_name, pairs = dict(self.stage.named_parameters()), self.stage.ema_pairs()
        place = {id(p): i for i, p in enumerate(self.weights)}
        self.sources = [self.masters[place[id(by_name[n])]] for n in pairs]
        self.averages = [m.clone() for m in self.sources]
        self.targets = [by_name[n].data for n in pairs.values()]

    def step(self) -> None:
        """One optimizer step."""
        backward(self.stage, self.batches, lambda k: None, [0])
        for master, weight in zip(self.masters, self.weights, strict=True):
            master.grad = torch.zeros_like(master) if weight.grad is None else weight.grad.float()
            weight.grad = None
        torch.nn.utils.clip_grad_norm_(self.masters, 1.0, foreach=True)
        self.optimizer.step()
        with torch.no_grad():
            torch._foreach_copy_([w.data for w in self.weights], self.masters)
            if self.targets:
                torch._foreach_lerp_(self.averages, self.sources, 1 - EMA)
                torch._foreach_copy_(self.targets, self.averages)
