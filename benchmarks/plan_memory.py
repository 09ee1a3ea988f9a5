"""How far `poma plan`'s memory is from what a training process holds: `python -m benchmarks.plan_memory`.

Three sizes, each in a process of its own on the CPU, fp32, ZeRO stage 2, one worker: the peak of the resident
set over two steps beside the prediction plus what the process held before it built anything. glibc is told to
give freed memory back at once: by default it keeps holes, which the resident set then counts.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
STEPS = 2
MIB = 2**20
PATCH, SIDE, JOINT = 16, 224, 512
GIVE_BACK = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}


@dataclass(frozen=True)
class Case:
    """A stage and its micro-batch."""

    kind: str
    mode: str
    width: int
    layers: int
    views: int
    samples: int


CASES = {
    "small, main, full": Case("main", "full", 192, 12, 8, 2),
    "medium, main, LoRA": Case("main", "lora", 384, 12, 8, 1),
    "base, warm-up, full": Case("warmup", "full", 768, 12, 1, 4),
}


def main() -> None:
    """Measure each case in a child process, or be that child."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--case", help=argparse.SUPPRESS)
    case = parser.parse_args().case
    if case:
        print(json.dumps(measure(CASES[case])))
        return
    print("| case | predicted MiB | measured MiB | off by | without the process itself |")
    print("|---|---|---|---|---|")
    for name in CASES:
        command = [sys.executable, "-m", "benchmarks.plan_memory", "--case", name]
        environment = {**os.environ, **GIVE_BACK}
        done = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True, env=environment)
        r = json.loads(done.stdout.splitlines()[-1])
        whole = r["before"] + r["predicted"]
        own = r["predicted"] / (r["measured"] - r["before"]) - 1
        print(
            f"| {name} | {whole / MIB:.0f} | {r['measured'] / MIB:.0f} | {whole / r['measured'] - 1:+.0%} "
            f"| {own:+.0%} |",
            flush=True,
        )


def measure(case: Case) -> dict[str, int]:
    """Train a few steps; bytes of the resident set before and at its peak, and the prediction."""
    os.environ.setdefault("DS_ACCELERATOR", "cpu")
    import torch

    from jobs.plan.memory import memory
    from plinth.engine.config import OptimConfig, ZeroConfig
    from plinth.engine.engine import BatchSizes, Engine
    from plinth.engine.process import start
    from poma3d.cost.activations import activations, meta_stage, outline, stage_size
    from poma3d.network.config import EncoderConfig, LossConfig, ModelConfig, TuningConfig
    from poma3d.network.vit import ImageTower, VisionTransformer, VitShape
    from poma3d.sample import SampleShape
    from poma3d.stages import build_stage

    side = SIDE // PATCH
    vit = VitShape(
        (side, side), PATCH, 3, case.width, case.layers, case.width // 64, 4 * case.width, "quick_gelu", 1e-5,
        "class", JOINT,
    )  # fmt: skip
    model = ModelConfig(encoder=EncoderConfig(tuning=TuningConfig(mode=case.mode)))
    loss, zero = LossConfig(), ZeroConfig(stage=2)
    shape = SampleShape(case.views, SIDE, SIDE, embedding=JOINT)
    outlined = meta_stage(case.kind, model, loss, shape, outline(vit))
    kept = activations(outlined, torch.float32)
    predicted = memory(stage_size(outlined), kept, zero, 2, world_size=1, micro_batch_size=case.samples)

    process = start(threads=1)
    import deepspeed  # noqa: F401  # what it brings is the process, not the model

    weights = {n: torch.randn_like(p) * 0.02 for n, p in VisionTransformer(vit).state_dict().items()}
    tower = ImageTower(vit, weights, 4.6)
    before = resident()
    stage = build_stage(case.kind, model, loss, shape, tower, seed=0)
    batch = stage.fake_batch(2 * case.samples)
    sizes = BatchSizes(2 * case.samples, case.samples)
    engine = Engine(stage, OptimConfig(warmup_steps=0), zero, process, total_steps=STEPS, sizes=sizes, seed=0)
    started = time.perf_counter()
    for _ in range(STEPS):
        engine.step(batch)
    seconds = (time.perf_counter() - started) / STEPS
    return {
        "before": before,
        "predicted": predicted.peak,
        "measured": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        "step_ms": round(1000 * seconds),
    }


def resident() -> int:
    """Bytes of this process's resident set now."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize()


if __name__ == "__main__":
    main()
