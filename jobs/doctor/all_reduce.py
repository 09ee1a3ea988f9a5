"""`poma doctor` on the ring: one process per worker of the job, here or on the nodes of its cluster, sums a
tensor over gloo or NCCL. Each of them imports this file, so it imports little."""

from __future__ import annotations

import multiprocessing
import os
import queue
import time
from collections.abc import Iterable
from datetime import timedelta
from typing import Any

from jobs.common.cluster import free_port
from jobs.doctor.finding import Finding, Level
from plinth.errors import first_line
from plinth.units import MIB

GLOO, NCCL = "gloo", "nccl"
TIMEOUT_S = 30.0
ELEMENTS = 1 << 20
BYTES_EACH = 4
MOST_PROCESSES = 8
"""On this machine: each costs the import of torch, and more would show nothing new."""
POLL_S = 0.2

WHY = "Training would hang at its first collective."
FIX = "Look at the firewall between the machines, and set GLOO_SOCKET_IFNAME or NCCL_SOCKET_IFNAME."


def local_ring(workers: int, gpus: int) -> Iterable[Finding]:
    """An all-reduce between processes of this machine, each with a GPU where there are several.

    Args:
        workers: of the job.
        gpus: that this machine has and the job uses.
    """
    backend = NCCL if gpus > 1 else GLOO
    size = min(gpus, workers) if backend == NCCL else min(max(2, workers), MOST_PROCESSES, _cores())
    address = f"127.0.0.1:{free_port()}"
    context = multiprocessing.get_context("spawn")
    answers: Any = context.Queue()
    processes = [
        context.Process(target=_member, args=(rank, size, address, backend, answers)) for rank in range(size)
    ]
    for process in processes:
        process.start()
    took = _collect(answers, processes)
    for process in processes:
        process.kill()
        process.join()
    yield _finding(f"{size} processes of this machine", backend, took, [f"rank {r}" for r in range(size)])


def _collect(answers: Any, processes: list[Any]) -> dict[int, float | str]:
    """Rank -> seconds of a sum, or what went wrong; ranks without an answer in time are missing."""
    took: dict[int, float | str] = {}
    deadline = time.monotonic() + TIMEOUT_S
    while len(took) < len(processes) and time.monotonic() < deadline:
        try:
            rank, said = answers.get(timeout=POLL_S)
            took[rank] = said
        except queue.Empty:
            if not any(process.is_alive() for process in processes) and answers.empty():
                break
    return took


def cluster_ring(node_ids: list[str], hosts: list[str], on_gpus: bool) -> Iterable[Finding]:
    """An all-reduce between one process on each of these nodes of the Ray cluster that was joined."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    backend = NCCL if on_gpus else GLOO
    member = ray.remote(num_cpus=0, num_gpus=1 if on_gpus else 0)(_Member)
    members = [
        member.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False)).remote()
        for node in node_ids
    ]
    took: dict[int, float | str] = {}
    try:
        address = ray.get(members[0].address.remote(), timeout=TIMEOUT_S)
        asked = {
            m.take_part.remote(rank, len(members), address, backend): rank for rank, m in enumerate(members)
        }
        ready, _ = ray.wait(list(asked), num_returns=len(asked), timeout=TIMEOUT_S)
        took = {asked[answer]: ray.get(answer) for answer in ready}
    except ray.exceptions.RayError as error:
        took = {0: first_line(error)}
    finally:
        for one in members:
            ray.kill(one)
    yield _finding(f"{len(hosts)} nodes", backend, took, hosts)


class _Member:
    """An actor on a node."""

    def address(self) -> str:
        """Where the others find rank 0."""
        import ray

        return f"{ray.util.get_node_ip_address()}:{free_port('')}"

    def take_part(self, rank: int, size: int, address: str, backend: str) -> float | str:
        """Seconds of a sum, or what went wrong."""
        return _take_part(rank, size, address, backend, 0)


def _member(rank: int, size: int, address: str, backend: str, answers: Any) -> None:
    answers.put((rank, _take_part(rank, size, address, backend, rank)))


def _take_part(rank: int, size: int, address: str, backend: str, gpu: int) -> float | str:
    import torch
    import torch.distributed as dist

    try:
        torch.set_num_threads(1)
        device = torch.device("cuda", gpu) if backend == NCCL else torch.device("cpu")
        dist.init_process_group(
            backend, init_method=f"tcp://{address}", rank=rank, world_size=size,
            timeout=timedelta(seconds=TIMEOUT_S),
        )  # fmt: skip
        seconds = 0.0
        for _ in range(2):  # the first one connects
            numbers = torch.full((ELEMENTS,), float(rank + 1), device=device)
            began = time.perf_counter()
            dist.all_reduce(numbers)
            total = numbers[-1].item()
            seconds = time.perf_counter() - began
        dist.destroy_process_group()
    except Exception as error:
        return f"{type(error).__name__}: {first_line(error)}"
    expected = size * (size + 1) / 2
    return seconds if total == expected else f"the sum is {total:g}, expected {expected:g}"


def _finding(who: str, backend: str, took: dict[int, float | str], names: list[str]) -> Finding:
    """What the ranks of these names have answered."""
    failed = [rank for rank in range(len(names)) if not isinstance(took.get(rank), float)]
    if failed:
        reason = next((str(took[rank]) for rank in failed if took.get(rank)), f"no answer in {TIMEOUT_S:g} s")
        named = ", ".join(names[rank] for rank in failed)
        return Finding("ring", Level.bad, f"{who} over {backend}: {named}: {reason}", WHY, FIX)
    slowest = max(s for s in took.values() if isinstance(s, float))
    mib = ELEMENTS * BYTES_EACH // MIB
    return Finding("ring", Level.ok, f"{who} sum {mib} MiB over {backend} in {1000 * slowest:.0f} ms")


def _cores() -> int:
    return max(2, os.cpu_count() or 1)
