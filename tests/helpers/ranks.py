"""Run a function in several processes that form a gloo group on this machine.

A process start with torch and DeepSpeed costs seconds: give one call many cases rather than many calls.
"""

from __future__ import annotations

import os
import socket
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.multiprocessing as mp


def run_ranks(world_size: int, function: Callable[..., Any], *arguments: Any) -> list[Any]:
    """`function(*arguments)` in each of `world_size` processes; what each returned, by rank.

    Args:
        function: importable (not local), called after the process group is up.

    Raises:
        Exception: of the first process that failed, with its traceback.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with tempfile.TemporaryDirectory() as folder:
        mp.spawn(_child, (world_size, port, folder, function, arguments), nprocs=world_size)
        return [torch.load(Path(folder, f"{r}.pt"), weights_only=False) for r in range(world_size)]


def _child(
    rank: int,
    world_size: int,
    port: int,
    folder: str,
    function: Callable[..., Any],
    arguments: tuple[Any, ...],
) -> None:
    os.environ.update(
        RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(world_size),
        MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port),
    )  # fmt: skip
    torch.set_num_threads(1)
    result = function(*arguments)
    torch.save(result, Path(folder, f"{rank}.pt"))
