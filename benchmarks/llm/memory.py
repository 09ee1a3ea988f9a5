"""Memory of a worker that tunes a language model, at ZeRO 2 and 3, on one worker and on several.

    python -m benchmarks.llm memory [--stages 2 3] [--workers 1 2] [--tune full lora]
        [--width 1024] [--layers 8]

Each line is a job of `workers` processes (gloo, CPUs) that take two steps of the platform's engine on a
language model of Qwen3's class with new weights. Shown is the largest resident memory of a process over what
it held before it built the model, building included; beside it the size of the model's weights in fp32. glibc
is told to give freed memory back at once: by default it keeps holes, which the resident set then counts.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
from collections.abc import Sequence
from multiprocessing.connection import Connection
from typing import Any

from benchmarks.llm import speed
from benchmarks.memory import GIVE_BACK
from benchmarks.scale.plan import forget_peak, peak_bytes
from jobs.common.cluster import free_port
from plinth.engine import process
from plinth.engine.config import ZeroConfig
from plinth.engine.engine import Engine, EngineConfig
from plinth.units import MIB
from poma3d.llm.config import FULL, LORA

STEPS = 2
LOOPBACK = "127.0.0.1"


def main(words: Sequence[str]) -> None:
    """Measure each combination in processes of its own and print a table."""
    parser = argparse.ArgumentParser(prog="benchmarks.llm memory", description=__doc__.splitlines()[0])
    parser.add_argument("--stages", type=int, nargs="+", default=[2, 3])
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--tune", nargs="+", default=[FULL, LORA], choices=[FULL, LORA])
    parser.add_argument("--width", type=int, default=1024)
    parser.add_argument("--layers", type=int, default=8)
    parser.add_argument("--vocabulary", type=int, default=8192)
    arguments = parser.parse_args(words)
    print("| tuned | ZeRO | workers | weights, MiB | MiB per worker over the start | times the weights |")
    print("|---|---|---|---|---|---|")
    for tune in arguments.tune:
        for stage in arguments.stages:
            for workers in arguments.workers:
                sizes = speed.Sizes(arguments.width, arguments.layers, arguments.vocabulary, 4, 1)
                weights, most = measured(sizes, tune, stage, workers)
                print(
                    f"| {tune} | {stage} | {workers} | {weights / MIB:,.0f} | {most / MIB:,.0f} | "
                    f"{most / weights:.2f} |",
                    flush=True,
                )


def measured(sizes: speed.Sizes, tune: str, stage: int, workers: int) -> tuple[int, int]:
    """Bytes of the weights, and of the worker that takes most over what it held before."""
    os.environ.update(GIVE_BACK)
    context = multiprocessing.get_context("spawn")
    port = free_port()
    ends: list[Connection] = []
    started = []
    for rank in range(workers):
        ours, theirs = context.Pipe(duplex=False)
        worker = context.Process(target=_work, args=(sizes, tune, stage, rank, workers, port, theirs))
        worker.start()
        theirs.close()  # so that a worker that dies ends the wait below
        ends.append(ours)
        started.append(worker)
    found = [end.recv() for end in ends]
    for worker in started:
        worker.join()
    return found[0][0], max(most for _, most in found)


def _work(sizes: speed.Sizes, tune: str, stage: int, rank: int, workers: int, port: int, pipe: Any) -> None:
    os.environ.update(
        RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(workers), MASTER_ADDR=LOOPBACK,
        MASTER_PORT=str(port),
    )  # fmt: skip
    own = process.start(threads=1, use_gpu=False)
    process.prepare_deepspeed()
    import deepspeed  # noqa: F401  before the memory at the start is read
    import peft  # noqa: F401
    import transformers  # noqa: F401

    forget_peak()
    before = peak_bytes()
    model = speed.model(sizes, tune)
    weights = sum(p.numel() * p.element_size() for p in model.parameters())
    config = EngineConfig(
        speed.OPTIM,
        ZeroConfig(stage=stage),
        sizes.global_batch,
        sizes.micro_batch,
        speed.TOTAL_STEPS,
        speed.SEED,
    )
    batches = [model.fake_batch(sizes.global_batch // workers, seed) for seed in range(STEPS)]
    engine = Engine(model, config, own)
    del model
    for batch in batches:
        engine.step(batch)
    engine.close()
    pipe.send((weights, peak_bytes() - before))
