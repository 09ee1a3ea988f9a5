"""Everything that only a GPU can show, in about ten minutes, one line each.

    python -m benchmarks.gpu --json gpu.json       on one GPU
    python -m benchmarks.gpu --device cpu --tiny   whether the script itself works; its speeds mean nothing

    bits        one step's gradient at two layouts of the micro-batches, and twice at one, bit by bit;
                operators that have no deterministic kernel
    attention   the implementation that scaled_dot_product_attention chose
    waits       how often the host waits for the device in a step
    speed       both stages in bf16: samples/s, share of the peak (MFU), memory
    tower       our image tower beside OpenCLIP's, or transformers' where OpenCLIP is not installed
    compiled    the main stage with model.encoder.compile=inductor
    engine      a step of the platform's engine, where DeepSpeed is installed

It needs torch, numpy and transformers. Ray is never imported, and DeepSpeed only for `engine`: all else takes
a step by hand from the parts that the engine is made of. Weights are random, batches stay in memory.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from benchmarks.gpu.step import (
    SAMPLES,
    SEED,
    SHAPES,
    Bench,
    Trained,
    gradient,
    is_here,
    micro_batches,
    settings,
    stage_of,
    tower,
)
from plinth.engine.config import OptimConfig, Precision, ZeroConfig
from plinth.engine.process import take_deterministic_kernels
from plinth.units import GIB
from poma3d.cost.flops import stage_flops
from poma3d.network.config import AS_WRITTEN, INDUCTOR
from poma3d.stages import build_stage

EXIT_CODE = 2
MICRO_BATCHES = 4
KINDS = ("warmup", "main")
OPEN_CLIP = {"B": "ViT-B-16", "L": "ViT-L-14"}
PEAK_TFLOPS = {"H100": 989, "H200": 989, "A100": 312}
"""bf16, dense, of the vendor's data sheets."""
ATTENTION = {
    "flash_attention": "flash", "efficient_attention": "memory-efficient", "cudnn_attention": "cuDNN",
    "attention_math": "math",
}  # fmt: skip
"""Part of an operator's name -> implementation."""
WAITS = ("cudaStreamSynchronize", "cudaDeviceSynchronize", "cudaEventSynchronize")


def bits(bench: Bench, size: str) -> dict[str, Any]:
    """Elements that differ between layouts, and between two runs of one layout; those that differ without
    exact sums; and operators without a deterministic kernel."""
    found: dict[str, Any] = {}
    everything = range(MICRO_BATCHES)
    half = MICRO_BATCHES // 2
    layouts = {"two ranks": [everything[:half], everything[half:]], "backwards": [everything[::-1]]}
    for kind in KINDS:
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            stage = stage_of(bench, size, kind, torch.float32)
            batches = micro_batches(bench, stage, 2, MICRO_BATCHES)
            first = gradient(bench, stage, batches, [everything])
            for name, ranks in (("again", [everything]), *layouts.items()):
                found[f"{kind}, {name}"] = differing(first, gradient(bench, stage, batches, ranks))
            plain = [gradient(bench, stage, batches, ranks, exact=False) for ranks in layouts.values()]
            found[f"{kind}, plain sums"] = differing(*plain)
        words = {str(w.message).split(" does not have")[0] for w in told if "determin" in str(w.message)}
        found[f"{kind}, not deterministic"] = sorted(words)
    return found


def differing(one: Sequence[Tensor], other: Sequence[Tensor]) -> int:
    """Elements that are not the same bit by bit."""
    pairs = zip(one, other, strict=True)
    return sum(int((a.view(torch.int32) != b.view(torch.int32)).sum()) for a, b in pairs)


def attention_and_waits(bench: Bench, size: str) -> dict[str, Any]:
    """Of a step of each stage in bf16: implementations of attention, calls by which the host waited."""
    found: dict[str, Any] = {}
    for kind in KINDS:
        events = bench.profiled(Trained(bench, size, kind).step)
        named = {text for e in events for part, text in ATTENTION.items() if part in e.key}
        found[f"{kind}, attention"] = sorted(named)
        found[f"{kind}, waits"] = {e.key: e.count for e in events if e.key in WAITS}
    return found


def speed(
    bench: Bench, size: str, compiled: str = AS_WRITTEN, kinds: Sequence[str] = KINDS
) -> dict[str, Any]:
    """Samples/s, MFU and peak memory of the stages in bf16."""
    found: dict[str, Any] = {}
    for kind in kinds:
        model, loss, shape = settings(size, kind)
        samples = SAMPLES[size][kind]
        flops = stage_flops(kind, model, loss, shape, tower(size), SEED)
        work = samples * flops.per_sample(two_pass=False) + flops.contrast(samples)
        if bench.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats()
        seconds = bench.seconds(Trained(bench, size, kind, compiled).step)
        peak = bench.peak_tflops
        found[kind] = {
            "samples_per_s": samples / seconds,
            "views_per_s": samples * shape.views / seconds,
            "tflops": work / seconds / 1e12,
            "mfu": None if peak is None else work / seconds / 1e12 / peak,
            "peak_gib": torch.cuda.max_memory_allocated() / GIB if bench.device.type == "cuda" else None,
        }
    return found


def towers(bench: Bench, size: str) -> dict[str, Any]:
    """Images/s, forward and backward in bf16: our tower and a published implementation of the same size."""
    vit, images = SHAPES[size], SAMPLES[size]["warmup"]
    ours = tower(size).build().to(bench.device, torch.bfloat16).train()
    name, other = published_tower(size)
    other = other.to(bench.device, torch.bfloat16).train()
    pixels = torch.randn(images, 3, *vit.image_size, device=bench.device, dtype=torch.bfloat16)

    def passed(forward: Callable[[Tensor], Tensor], module: Any) -> Callable[[], None]:
        def step() -> None:
            module.zero_grad(set_to_none=True)
            forward(pixels).float().square().mean().backward()

        return step

    one = images / bench.seconds(passed(lambda x: ours(x).pooled, ours))
    two = images / bench.seconds(passed(other, other))
    return {"ours": one, name: two, "ratio": one / two}


def published_tower(size: str) -> tuple[str, Any]:
    """Its name and module, which gives pooled features."""
    if is_here("open_clip") and size in OPEN_CLIP:
        import open_clip

        return "open_clip", open_clip.create_model(OPEN_CLIP[size]).visual
    from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

    vit = SHAPES[size]
    config = CLIPVisionConfig(
        hidden_size=vit.width, intermediate_size=vit.mlp_width, num_hidden_layers=vit.layers,
        num_attention_heads=vit.heads, image_size=vit.image_size[0], patch_size=vit.patch,
        projection_dim=vit.joint, attn_implementation="sdpa",
    )  # fmt: skip
    model = CLIPVisionModelWithProjection(config)

    class Pooled(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, pixels: Tensor) -> Tensor:
            return self.model(pixel_values=pixels).image_embeds

    return "transformers", Pooled()


def engine(bench: Bench, size: str) -> dict[str, Any]:
    """Samples/s of the platform's engine in bf16 at ZeRO stage 2, alone."""
    from plinth.engine.engine import Engine, EngineConfig
    from plinth.engine.process import start

    process = start(torch.get_num_threads(), use_gpu=bench.device.type == "cuda")
    found: dict[str, Any] = {}
    for kind in KINDS:
        samples = SAMPLES[size][kind]
        stage = build_stage(kind, *settings(size, kind), tower(size), SEED)
        zero = ZeroConfig(stage=2, precision=Precision.bf16)
        config = EngineConfig(OptimConfig(warmup_steps=0), zero, samples, samples, 100_000, SEED)
        one, batch = Engine(stage, config, process), stage.fake_batch(samples)
        found[f"{kind}, samples_per_s"] = samples / bench.seconds(lambda: one.step(batch))  # noqa: B023
        one.close()
    return found


def main() -> int:
    """Run the sections that there is time for; returns the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--tiny", action="store_true", help="a small tower, one step of each")
    parser.add_argument("--sizes", default="B,L")
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--limit-s", type=float, default=420.0, help="no section begins after it")
    parser.add_argument("--peak-tflops", type=float, help="bf16 peak of the device, where it is not known")
    parser.add_argument("--json")
    a = parser.parse_args()
    if a.device == "cuda" and not torch.cuda.is_available():
        print("benchmarks.gpu: torch sees no GPU; --device cpu --tiny only tries the script", file=sys.stderr)
        return EXIT_CODE
    if a.device == "cuda":
        take_deterministic_kernels()
    name = torch.cuda.get_device_name() if a.device == "cuda" else "CPU"
    peak = a.peak_tflops or next((p for part, p in PEAK_TFLOPS.items() if part in name), None)
    sizes, steps = (["tiny"], 1) if a.tiny else (a.sizes.split(","), a.steps)
    bench = Bench(torch.device(a.device), sizes, steps, peak, time.monotonic() + a.limit_s)
    sections: list[tuple[str, Callable[[], dict[str, Any]]]] = [
        ("bits", lambda: bits(bench, sizes[0])),
        ("attention and waits", lambda: attention_and_waits(bench, sizes[0])),
        *((f"speed {size}", lambda size=size: speed(bench, size)) for size in sizes),
        *((f"tower {size}", lambda size=size: towers(bench, size)) for size in sizes),
    ]
    if is_here("deepspeed"):
        sections.append(("engine", lambda: engine(bench, sizes[0])))
    if not a.tiny:  # compiling takes a minute
        sections.append(("compiled", lambda: speed(bench, sizes[0], INDUCTOR, ("main",))))
    result: dict[str, Any] = {"device": name, "torch": torch.__version__, "peak_tflops": peak}
    print(f"{name}, torch {torch.__version__}, bf16 peak {peak or 'unknown'} TFLOP/s", flush=True)
    failed = False
    for section, measure in sections:
        if time.monotonic() > bench.ends:
            print(f"{section}: left out, {a.limit_s:.0f} s are over", flush=True)
            continue
        began = time.perf_counter()
        try:
            result[section] = measure()
        except Exception as error:  # the device is lent for minutes: the other sections still count
            failed, result[section] = True, {"error": f"{type(error).__name__}: {error}"}
        shown = json.dumps(result[section], default=str)
        print(f"{section} ({time.perf_counter() - began:.0f} s): {shown}", flush=True)
        if a.json:
            with open(a.json, "w") as file:
                json.dump(result, file, indent=1)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
