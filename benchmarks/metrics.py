"""What a step's metrics cost: measuring, gathering from the ranks, writing, telling Prometheus and trackers.

    python -m benchmarks.metrics [--steps 2000] [--ranks 2] [--step-s 0.5]

Each rank calls what the training loop calls after a step, without training between: record the step (with a
message of its own for sample keys and times, which in training travel with the step's), the writer
(metrics.jsonl, TensorBoard, the queue of a tracker), and Prometheus' gauges. Printed are microseconds a step
on rank 0, and their share of a step.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from jobs.common.cluster import free_port, ray_cluster
from jobs.common.ray_config import RayConfig
from plinth.data.assemble import LocalBatch
from plinth.data.plan import Cursor
from plinth.engine.engine import StepResult
from plinth.engine.message import Message
from plinth.engine.process import Process
from plinth.observe import sinks
from plinth.observe.config import MetricsConfig, SinkKind
from plinth.observe.ledger import FINISHED
from plinth.observe.metrics import MetricsWriter, StepRecord, record_step, scalars, told
from plinth.observe.sinks import RunName, Sinks
from plinth.observe.stragglers import COMPUTE, DATA_WAIT
from plinth.observe.telemetry import Telemetry
from plinth.storage import Storage
from plinth.world import World

GLOBAL_BATCH = 48
TERMS = ("view_text", "view_image", "scene_text", "jepa")
LOGS = ("target_feature_std", "effective_rank", "logit_scale", "masked_share", "captions", "views")
MICROSECONDS = 1e6
ROUNDS = 10


class Silent:
    """A tracker that takes everything at once: what is measured is handing over."""

    def __init__(self, *_: Any) -> None: ...

    def log(self, rows: Any) -> None: ...

    def close(self, outcome: str) -> None: ...


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--step-s", type=float, default=0.5, help="a step that the sum is compared with")
    parser.add_argument("--no-ray", action="store_true", help="leave Prometheus out")
    a = parser.parse_args()
    context = multiprocessing.get_context("spawn")
    answers: Any = context.Queue()
    port = free_port()
    processes = [
        context.Process(target=measure, args=(r, a.ranks, port, a.steps, answers)) for r in range(a.ranks)
    ]
    for process in processes:
        process.start()
    found: dict[str, float] = answers.get()
    for process in processes:
        process.join()
    if not a.no_ray:
        with ray_cluster(RayConfig(num_cpus=1, object_store_bytes=100_000_000), 1):
            found["Prometheus, through Ray"] = exported(a.steps)
    for what, us in found.items():
        print(f"{what:42} {us:7.0f} us a step")
    total = sum(found.values())
    print(f"{'together':42} {total:7.0f} us a step, {total / MICROSECONDS / a.step_s:.2%} of {a.step_s:g} s")


def measure(rank: int, ranks: int, port: int, steps: int, answers: Any) -> None:
    """On each rank."""
    torch.set_num_threads(1)
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    dist.init_process_group("gloo", rank=rank, world_size=ranks)
    process = Process(World(rank, ranks), torch.device("cpu"), 1, f"host-{rank}")
    keys = torch.arange(GLOBAL_BATCH // ranks)
    batch = LocalBatch({"sample_key": keys}, Cursor(), Cursor(), [], wait_s=0.01)
    result = StepResult(0, 5.0, dict.fromkeys(TERMS, 1.0), dict.fromkeys(LOGS, 0.5), 1.0, 1e-4)

    def record() -> StepRecord:
        message = Message(process.device)
        message.add("told", torch.from_numpy(told(batch, 0.1)))
        of_ranks = message.exchange(process.world)["told"]
        return record_step(result, of_ranks, batch, process, GLOBAL_BATCH, time.perf_counter(), 0.0, 0.1)

    found = {f"recording it, with a gather over {ranks} ranks": of_each(steps, record)}
    if rank == 0:
        line = replace(
            record_alone(), world_size=ranks, ranks={DATA_WAIT: [0.01] * ranks, COMPUTE: [0.1] * ranks}
        )
        found |= {
            "metrics.jsonl and TensorBoard": written(steps, line),
            "handing it to a tracker": sent(steps, line),
        }
        answers.put(found)
    dist.barrier()
    dist.destroy_process_group()


def record_alone() -> StepRecord:
    """A step as rank 0 writes it down."""
    return StepRecord(
        step=1, epoch=0, step_in_epoch=1, loss=5.0, terms=dict.fromkeys(TERMS, 1.0),
        logs=dict.fromkeys(LOGS, 0.5), grad_norm=1.0, lr=1e-4, digest="0123456789abcdef", world_size=1,
        samples=GLOBAL_BATCH, step_s=0.5, data_wait_s=0.01, checkpoint_s=0.0, memory_bytes=1 << 30, time=0.0,
        compute_s=0.1,
    )  # fmt: skip


def written(steps: int, record: StepRecord) -> float:
    """Microseconds of a step in the writer."""
    with tempfile.TemporaryDirectory() as folder:
        writer = MetricsWriter(
            MetricsConfig(progress_every_s=1e9), Storage.from_uri(f"{folder}/run"), Path(folder) / "local",
            "main", 0, steps + 1, [f"host-{rank}" for rank in range(record.world_size)],
        )  # fmt: skip
        took = of_each(steps, lambda: writer.step(record))
        writer.close()
    return took


def sent(steps: int, record: StepRecord) -> float:
    """Microseconds of handing a step to the thread of a tracker."""
    sinks.TRACKERS[SinkKind.wandb] = Silent
    tracker = Sinks(MetricsConfig(sinks=[SinkKind.wandb]), RunName("a", "b", "c"), {}, Path())
    numbers = scalars(record)
    took = of_each(min(steps, sinks.QUEUED_STEPS), lambda: tracker.log(numbers, record.step))
    tracker.close(FINISHED)
    return took


def exported(steps: int) -> float:
    """Microseconds of a step in Ray's gauges and counters."""
    telemetry, record = Telemetry("bench", "main", 0), record_alone()
    return of_each(steps, lambda: telemetry.record(record))


def of_each(steps: int, call: Callable[[], Any]) -> float:
    """Median over rounds of the mean microseconds of a call."""
    each = max(1, steps // ROUNDS)
    rounds = []
    for _ in range(ROUNDS):
        began = time.perf_counter()
        for _ in range(each):
            call()
        rounds.append((time.perf_counter() - began) / each)
    return MICROSECONDS * statistics.median(rounds)


if __name__ == "__main__":
    main()
