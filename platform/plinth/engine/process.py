"""Set-up of a training process: threads, device, process group, log.

DeepSpeed chooses its accelerator when it is first imported, so this package imports it inside functions only,
after `start`.
"""

from __future__ import annotations

import contextlib
import io
import logging
import os
import socket
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TextIO, TypeVar

import torch
import torch.distributed as dist

from plinth.engine import deepspeed_internals
from plinth.observe.terminal import log_to_terminal
from plinth.units import counted
from plinth.world import World

GROUP_TIMEOUT = timedelta(minutes=30)
"""How long ranks wait for each other in a collective. Who hangs is found sooner, by name
(`guard.hang_after_s`); torch's own 10 minutes over NCCL would end those who wait."""

log = logging.getLogger(__name__)
T = TypeVar("T")


@dataclass(frozen=True)
class Process:
    """This process among the others."""

    world: World
    device: torch.device
    threads: int
    host: str


def start(threads: int, use_gpu: bool | None = None, label: str = "", deterministic: bool = True) -> Process:
    """Prepare this process for training; joins the process group unless the launcher has done so.

    The usual variables (RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR, MASTER_PORT) name the group to join;
    without them this is the only process.

    Args:
        threads: for torch's operators. torch's default is one thread per core in every process, which makes
            several processes compete for the cores.
        use_gpu: whether to train on this process's GPU; None does so where there is one.
        label: what messages on the terminal begin with.
        deterministic: on a GPU, use kernels that give the same bits every time where they exist.
    """
    log_to_terminal(label)
    torch.set_num_threads(threads)
    # As in a process that has done nothing yet, which one that Ray had ready may not be.
    torch.manual_seed(torch.Generator().initial_seed())
    os.environ["OMP_NUM_THREADS"] = str(threads)  # for libraries and children that read it later
    device = _choose_device(torch.cuda.is_available() if use_gpu is None else use_gpu)
    if device.type == "cuda" and deterministic:
        take_deterministic_kernels()
    if not dist.is_initialized():
        _join(device)
    process = Process(
        World(dist.get_rank(), dist.get_world_size()), device, torch.get_num_threads(), socket.gethostname()
    )
    if process.world.rank == 0:
        processes = counted(process.world.world_size, "training process")
        each = counted(process.threads, "thread")
        log.info("%s on %s, %s each, torch %s", processes, device.type, each, torch.__version__)
    return process


def seed_pass(seed: int, device: torch.device) -> None:
    """Seed the generators that dropout draws from on a device."""
    if device.type == "cpu":
        # torch.manual_seed keeps a stack trace for each kind of device that has not been used: 1 ms.
        torch.default_generator.manual_seed(seed)
    else:
        torch.manual_seed(seed)


def prepare_deepspeed() -> None:
    """Import DeepSpeed quietly and without its C++ build. Call after `start`."""
    deepspeed_internals.quiet()
    deepspeed_internals.skip_cpu_all_reduce()
    deepspeed_internals.skip_muon_compiler()
    # DeepSpeed's own calls: one line per collective otherwise.
    warnings.filterwarnings("ignore", message=".*torch.distributed.*deprecated", category=FutureWarning)


@contextlib.contextmanager
def without_prints() -> Iterator[None]:
    """Drop what this thread prints, and let other threads print."""
    with contextlib.redirect_stdout(_OtherThreads(sys.stdout)):
        yield


class _OtherThreads(io.TextIOBase):
    """A stream that drops what the thread that made it writes."""

    def __init__(self, below: TextIO) -> None:
        self._below, self._dropped = below, threading.get_ident()

    def write(self, text: str) -> int:
        return len(text) if threading.get_ident() == self._dropped else self._below.write(text)

    def flush(self) -> None:
        self._below.flush()


def _choose_device(use_gpu: bool) -> torch.device:
    if use_gpu:
        device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
        torch.cuda.set_device(device)
        return device
    os.environ["DS_ACCELERATOR"] = "cpu"  # else DeepSpeed may pick what it finds installed
    return torch.device("cpu")


def take_deterministic_kernels() -> None:
    """Get the same bits from the same micro-batch on CUDA; an operator without such a kernel warns once and
    runs as it is.

    See https://docs.pytorch.org/docs/stable/notes/randomness.html.
    """
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read at the first product
    torch.use_deterministic_algorithms(True, warn_only=True)
    # Filling new tensors would cost time; no code here reads them before it writes them.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]


def join_group(collectives: str) -> None:
    """Join the group that the usual variables name.

    Args:
        collectives: the library that sums over ranks, `nccl` or `gloo`.
    """
    dist.init_process_group(collectives, timeout=GROUP_TIMEOUT)


def _join(device: torch.device) -> None:
    backend = "nccl" if device.type == "cuda" else "gloo"
    if "WORLD_SIZE" in os.environ and "MASTER_ADDR" in os.environ:
        join_group(backend)
        return
    os.environ.update(RANK="0", WORLD_SIZE="1", LOCAL_RANK=os.environ.get("LOCAL_RANK", "0"))
    dist.init_process_group(backend, store=dist.HashStore(), rank=0, world_size=1)


def on_all_ranks(world: World, action: Callable[[], T]) -> list[T]:
    """`action()` on every rank; returns the results of all ranks. If it fails on one, all raise its error, so
    no rank waits for one that has failed."""
    error: Exception | None = None
    result: Any = None
    try:
        result = action()
    except Exception as caught:
        error = caught
    outcomes: list[Any] = [(result, error)]
    if world.world_size > 1:
        outcomes = [None] * world.world_size
        dist.all_gather_object(outcomes, (result, error))
    for _, failed in outcomes:
        if failed is not None:
            raise failed
    return [value for value, _ in outcomes]
