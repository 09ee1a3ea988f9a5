"""Peak memory of a step: what `poma plan` says, beside torch's own memory tracker or a real process.

    python -m benchmarks.memory                          ViT-B, L and H at every ZeRO stage, tracked; no GPU
    python -m benchmarks.memory --sizes B L --stages 2   two lines of it
    python -m benchmarks.memory --resident               three small runs, resident set of a real process

Tracked: the engine itself, on fake tensors (shapes and dtypes without data), as rank 0 of a process group
that sends nothing, under `torch.distributed._tools.mem_tracker`. It sees every tensor, DeepSpeed's too, but
no holes between allocations, no workspaces of CUDA libraries and no CUDA context. Each case is a process of
its own, because DeepSpeed keeps state in modules.

Resident: fp32, ZeRO stage 2, one worker; the peak of the resident set over two steps beside the prediction
plus what the process held before it built anything. glibc is told to give freed memory back at once: by
default it keeps holes, which the resident set then counts.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from unittest import mock

from plinth.units import GIB, MIB

ROOT = Path(__file__).parents[1]
STEPS = 2
"""The second one has Adam's moments from the start."""
SIDE, JOINT = 224, 512
GIVE_BACK = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}
MICRO_BATCHES = 2
SEED = 0


@dataclass(frozen=True)
class Case:
    """A stage, its size and its micro-batch."""

    kind: str
    mode: str
    width: int
    layers: int
    heads: int
    patch: int
    views: int
    samples: int
    """Of a micro-batch."""
    stage: int = 2
    precision: str = "fp32"
    world_size: int = 1


SIZES = {"B": (768, 12, 12, 16), "L": (1024, 24, 16, 14), "H": (1280, 32, 16, 14)}
"""Width, layers, heads, patch."""
RESIDENT = {
    "small, main, full": Case("main", "full", 192, 12, 3, 16, views=8, samples=2),
    "medium, main, LoRA": Case("main", "lora", 384, 12, 6, 16, views=8, samples=1),
    "base, warm-up, full": Case("warmup", "full", 768, 12, 12, 16, views=1, samples=4),
}


def main() -> None:
    """Measure each case in a child process, or be that child."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sizes", nargs="+", choices=list(SIZES), default=list(SIZES), help="of ViT")
    parser.add_argument(
        "--stages", nargs="+", type=int, choices=range(4), default=[0, 1, 2, 3], help="of ZeRO"
    )
    parser.add_argument("--kind", choices=("warmup", "main"), default="main")
    parser.add_argument("--mode", choices=("full", "lora"), default="full")
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="bf16", help="stage 0 is fp32")
    parser.add_argument("--workers", type=int, default=8)
    parser.add_argument("--views", type=int, default=8)
    parser.add_argument("--samples", type=int, default=4, help="of a micro-batch")
    parser.add_argument("--resident", action="store_true")
    parser.add_argument("--child", nargs=2, metavar=("WAY", "CASE"), help=argparse.SUPPRESS)
    a = parser.parse_args()
    if a.child:
        way, case = a.child
        print(json.dumps({"track": track, "reside": reside}[way](Case(**json.loads(case)))))
    elif a.resident:
        show_resident()
    else:
        show_tracked(a)


def show_tracked(a: argparse.Namespace) -> None:
    """The table of sizes and ZeRO stages."""
    print(
        f"{a.kind}, {a.mode}, {a.views} views of {SIDE} px, micro-batches of {a.samples}, {a.workers} workers"
    )
    print("| size | ZeRO | precision | plan GiB | tracked GiB | plan is off by | tracker's CPU s |")
    print("|---|---|---|---|---|---|---|")
    for size in a.sizes:
        for stage in a.stages:
            precision = a.precision if stage else "fp32"  # without masters there is no bf16
            width, layers, heads, patch = SIZES[size]
            case = Case(
                a.kind, a.mode, width, layers, heads, patch, a.views, a.samples, stage, precision, a.workers
            )
            r = child("track", case)
            plan, peak = r["plan"] / GIB, r["peak"] / GIB
            print(
                f"| ViT-{size}/{patch} | {stage} | {precision} | {plan:.2f} | {peak:.2f} "
                f"| {plan / peak - 1:+.0%} | {r['seconds']:.0f} |",
                flush=True,
            )


def show_resident() -> None:
    """The table of real processes."""
    print("| case | predicted MiB | measured MiB | off by | without the process itself |")
    print("|---|---|---|---|---|")
    for name, case in RESIDENT.items():
        r = child("reside", case)
        whole = r["before"] + r["predicted"]
        own = r["predicted"] / (r["measured"] - r["before"]) - 1
        print(
            f"| {name} | {whole / MIB:.0f} | {r['measured'] / MIB:.0f} | {whole / r['measured'] - 1:+.0%} "
            f"| {own:+.0%} |",
            flush=True,
        )


def child(way: str, case: Case) -> dict[str, Any]:
    """What a process of its own found."""
    command = [sys.executable, "-m", "benchmarks.memory", "--child", way, json.dumps(asdict(case))]
    environment = {**os.environ, **(GIVE_BACK if way == "reside" else {})}
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=environment, check=False)
    if done.returncode:
        raise SystemExit(f"{case}: {done.stderr.strip()[-2000:]}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


# -- in the child ------------------------------------------------------------------------------------------


def settings(case: Case) -> tuple[Any, Any, Any, Any, Any]:
    """Tower shape, model, loss, samples, ZeRO settings."""
    from plinth.engine.config import Precision, ZeroConfig
    from poma3d.network.config import EncoderConfig, LossConfig, ModelConfig, TuningConfig
    from poma3d.network.vit import VitShape
    from poma3d.sample import SampleShape

    side = SIDE // case.patch
    vit = VitShape(
        (side, side), case.patch, 3, case.width, case.layers, case.heads, 4 * case.width, "quick_gelu", 1e-5,
        "class", JOINT,
    )  # fmt: skip
    model = ModelConfig(encoder=EncoderConfig(tuning=TuningConfig(mode=case.mode)))
    shape = SampleShape(case.views, SIDE, SIDE, embedding=JOINT)
    return vit, model, LossConfig(), shape, ZeroConfig(stage=case.stage, precision=Precision(case.precision))


def predicted(case: Case, pairs: bool) -> int:
    """The peak of `poma plan`; with or without the contrastive losses of the global batch."""
    from jobs.plan.memory import dtype_of, memory
    from poma3d.cost.activations import activations, meta_stage, outline, stage_size
    from poma3d.cost.flops import stage_flops

    vit, model, loss, shape, zero = settings(case)
    outlined = meta_stage(case.kind, model, loss, shape, outline(vit))
    kept = activations(outlined, dtype_of(zero))
    counted = 0
    if pairs:
        flops = stage_flops(case.kind, model, loss, shape, outline(vit), SEED)
        counted = flops.pairs(MICRO_BATCHES * case.samples * case.world_size)
    size = stage_size(outlined)
    return memory(size, kept, zero, case.stage, case.world_size, case.samples, counted).peak


def track(case: Case) -> dict[str, float]:
    """The plan's peak and the tracker's, in bytes."""
    plan = predicted(case, pairs=True)
    started = time.process_time()
    return {"plan": plan, "peak": tracked(case), "seconds": time.process_time() - started}


def tracked(case: Case) -> int:
    """The peak of the engine's second step on fake tensors."""
    import numpy as np
    import torch

    from plinth.engine import global_batch
    from plinth.engine.config import OptimConfig
    from plinth.engine.engine import Engine, EngineConfig
    from plinth.engine.process import Process, prepare_deepspeed
    from plinth.world import World
    from poma3d import masking
    from poma3d.network.vit import ImageTower, VisionTransformer
    from poma3d.stages import STAGES

    vit, model, loss, shape, zero = settings(case)
    process = Process(World(0, case.world_size), torch.device("cpu"), 1, "")
    with fake_ranks(case.world_size) as (fake, tracker):
        prepare_deepspeed()
        masking.sizes(model.masks, vit.grid, SEED, 0)  # kept; it draws, which fake tensors cannot
        with fake, tracker:
            state = {n: torch.empty_like(p) for n, p in VisionTransformer(vit).state_dict().items()}
            stage = STAGES[case.kind](model, loss, shape, ImageTower(vit, state, 0.0), SEED)
            del state
            dtype = torch.bfloat16 if case.precision == "bf16" else torch.float32
            for parameter in stage.parameters():
                parameter.data = parameter.data.to(dtype)
            # DeepSpeed would move the module, which torch refuses for fake parameters with references.
            stage._apply = lambda *_, **__: stage  # type: ignore[method-assign, assignment]
            size = MICRO_BATCHES * case.samples * case.world_size
            config = EngineConfig(OptimConfig(warmup_steps=0), zero, size, case.samples, 100, SEED)
            engine = Engine(stage, config, process)
        batch = stage.fake_batch(MICRO_BATCHES * case.samples)

        def to_device(batch: dict[str, Any], device: Any) -> dict[str, Any]:
            return {k: fake.from_tensor(v) if isinstance(v, torch.Tensor) else v for k, v in batch.items()}

        with (
            mock.patch.multiple(
                global_batch,
                split=on_host(global_batch.split),
                to_device=to_device,
                host=lambda numbers: np.zeros(tuple(numbers.shape)),
            ),
            mock.patch.object(stage, "prepare", on_host(stage.prepare)),
        ):
            for _ in range(STEPS):
                with fake, tracker:  # the tracker's peak begins anew
                    engine.step(batch)
        peak = tracker.get_tracker_snapshot("peak")[torch.device("cpu")]["Total"]
    return int(peak)


@contextmanager
def fake_ranks(world_size: int) -> Iterator[tuple[Any, Any]]:
    """torch's fake tensors and memory tracker, and DeepSpeed among ranks that are not there."""
    import torch
    import torch.distributed as dist
    from torch._subclasses import fake_impls
    from torch._subclasses.fake_tensor import FakeTensorMode
    from torch.distributed._tools.mem_tracker import MemTracker
    from torch.testing._internal.distributed.fake_pg import FakeStore

    class PeakTracker(MemTracker):
        """Without the module hooks: they refuse frozen parameters, and modules that are called twice."""

        def _pre_fw_hook(self, *_: Any) -> None:
            """Nothing."""

        _post_fw_hook = _pre_bw_hook = _post_bw_hook = _pre_fw_hook  # type: ignore[assignment]

    def same_everywhere(received: list[Any], sent: Any, group: Any = None) -> None:
        received[:] = [sent] * len(received)

    def read(mode: Any, function: Any, tensor: Any) -> Any:
        """A number that is read from the device: nought lets a step be applied."""
        return 0.0 if tensor.dtype.is_floating_point else 0

    os.environ.update(DS_ACCELERATOR="cpu", RANK="0", LOCAL_RANK="0", WORLD_SIZE=str(world_size))
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT="0")
    dist.init_process_group("fake", store=FakeStore(), rank=0, world_size=world_size)
    import deepspeed.runtime.zero.partitioned_param_coordinator as coordinator

    with ExitStack() as patched:
        for owner, name, value in (
            (dist, "all_gather_object", same_everywhere),
            (torch.nn.init, "trunc_normal_", lambda tensor, **_: tensor),
            (coordinator, "assert_ints_same_as_other_ranks", lambda *_: None),
        ):
            patched.enter_context(mock.patch.object(owner, name, value))
        of_op = {torch.ops.aten._local_scalar_dense.default: read}
        patched.enter_context(mock.patch.dict(fake_impls.op_implementations_dict, of_op))
        yield FakeTensorMode(allow_non_fake_inputs=True), PeakTracker()
    dist.destroy_process_group()


def on_host(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function on real tensors."""
    from torch._subclasses.fake_tensor import unset_fake_temporarily

    def outside(*arguments: Any, **named: Any) -> Any:
        with unset_fake_temporarily():
            return function(*arguments, **named)

    return outside


def reside(case: Case) -> dict[str, int]:
    """Train a few steps; bytes of the resident set before and at its peak, and the prediction."""
    os.environ.setdefault("DS_ACCELERATOR", "cpu")
    from benchmarks.step.random_tower import random_tower
    from plinth.engine.config import OptimConfig
    from plinth.engine.engine import Engine, EngineConfig
    from plinth.engine.process import start
    from poma3d.stages import build_stage

    plan = predicted(case, pairs=False)
    vit, model, loss, shape, zero = settings(case)
    process = start(threads=1)
    import deepspeed  # noqa: F401  # what it brings is the process, not the model

    tower = random_tower(vit)
    before = resident()
    stage = build_stage(case.kind, model, loss, shape, tower, seed=SEED)
    size = MICRO_BATCHES * case.samples
    config = EngineConfig(OptimConfig(warmup_steps=0), zero, size, case.samples, STEPS, SEED)
    engine = Engine(stage, config, process)
    batch = stage.fake_batch(size)
    for _ in range(STEPS):
        engine.step(batch)
    measured = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {"before": before, "predicted": plan, "measured": measured}


def resident() -> int:
    """Bytes of this process's resident set now."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize()


if __name__ == "__main__":
    main()
