"""What a training process sets up before anything else: threads, device, process group, log.

The order matters: DeepSpeed chooses its accelerator when it is first imported, so every import of it in
this package is inside a function and after `start`.
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
from typing import Any, TextIO, TypeVar

import torch
import torch.distributed as dist

from plinth.engine import deepspeed_internals
from plinth.redaction import RedactionFilter
from plinth.world import World

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

    Without a process group the usual variables (RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR, MASTER_PORT)
    say which one to join; without those this is the only process.

    Args:
        threads: for torch's operators. Set on purpose: torch's default is one thread for each core
            of the machine, in every process, which makes several processes fight for the cores.
        use_gpu: whether to train on this process's GPU; None does so where there is one.
        label: what messages on the terminal begin with.
        deterministic: on a GPU, take kernels that give the same bits every time, where there are some.
    """
    log_to_terminal(label)
    torch.set_num_threads(threads)
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
        log.info(
            "%d training process(es) on %s, %d thread(s) each, torch %s",
            process.world.world_size, device.type, process.threads, torch.__version__,
        )  # fmt: skip
    return process


def prepare_deepspeed() -> None:
    """Import DeepSpeed quietly and without its C++ build. Call after `start`."""
    deepspeed_internals.quiet()
    deepspeed_internals.skip_cpu_all_reduce()
    # DeepSpeed's own calls: one line per collective otherwise.
    warnings.filterwarnings("ignore", message=".*torch.distributed.*deprecated", category=FutureWarning)


@contextlib.contextmanager
def without_prints() -> Iterator[None]:
    """Drop what this thread prints; other threads may have something to say meanwhile."""
    with contextlib.redirect_stdout(_OtherThreads(sys.stdout)):
        yield


class _OtherThreads(io.TextIOBase):
    """A stream of what all threads write but the one that made it."""

    def __init__(self, below: TextIO) -> None:
        self._below, self._dropped = below, threading.get_ident()

    def write(self, text: str) -> int:
        return len(text) if threading.get_ident() == self._dropped else self._below.write(text)

    def flush(self) -> None:
        self._below.flush()


def log_to_terminal(label: str = "") -> None:
    """Send this package's messages to the terminal as plain lines; Ray adds which process it was.

    Args:
        label: what they begin with.
    """
    package = logging.getLogger("plinth")
    if not package.handlers:
        handler = _Terminal()
        handler.setFormatter(logging.Formatter(f"{label} %(message)s".lstrip()))
        handler.addFilter(RedactionFilter())
        package.addHandler(handler)
        package.setLevel(logging.INFO)
        package.propagate = False


class _Terminal(logging.Handler):
    """Standard output as it is when a message comes: it may have been exchanged since."""

    def emit(self, record: logging.LogRecord) -> None:
        sys.stdout.write(self.format(record) + "\n")
        sys.stdout.flush()


def _choose_device(use_gpu: bool) -> torch.device:
    if use_gpu:
        device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
        torch.cuda.set_device(device)
        return device
    os.environ["DS_ACCELERATOR"] = "cpu"  # else DeepSpeed may pick what it finds installed
    return torch.device("cpu")


def take_deterministic_kernels() -> None:
    """The same bits from the same micro-batch, also on CUDA; an operator that has no such kernel says so once
    and runs as it is.

    See https://docs.pytorch.org/docs/stable/notes/randomness.html.
    """
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read at the first product
    torch.use_deterministic_algorithms(True, warn_only=True)
    # Nobody here reads what nobody has written.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]


def _join(device: torch.device) -> None:
    backend = "nccl" if device.type == "cuda" else "gloo"
    if "WORLD_SIZE" in os.environ and "MASTER_ADDR" in os.environ:
        dist.init_process_group(backend)
        return
    os.environ.update(RANK="0", WORLD_SIZE="1", LOCAL_RANK=os.environ.get("LOCAL_RANK", "0"))
    dist.init_process_group(backend, store=dist.HashStore(), rank=0, world_size=1)


def on_all_ranks(world: World, action: Callable[[], T]) -> list[T]:
    """`action()` on every rank and the results of all; if it fails on one, that error on all of them, so
    that no rank waits for another that is gone."""
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
