"""Processes that form a gloo group on this machine and run functions for the tests.

A process start with torch and DeepSpeed costs seconds of CPU, so the processes of a world size are started
once and used by all tests of a session.
"""

from __future__ import annotations

import atexit
import multiprocessing
import os
import pickle
import socket
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection, wait
from typing import Any

TIMEOUT_S = 600.0


class RankError(AssertionError):
    """What a rank raised, with its traceback; `cause` is the exception itself."""

    def __init__(self, text: str, cause: BaseException | None) -> None:
        super().__init__(text)
        self.cause = cause


class RankPool:
    """`world_size` processes with a process group."""

    def __init__(self, world_size: int) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        context = multiprocessing.get_context("spawn")
        self.connections: list[Any] = []
        self.processes: list[Any] = []
        for rank in range(world_size):
            ours, theirs = context.Pipe()
            process = context.Process(target=_serve, args=(rank, world_size, port, theirs), daemon=True)
            process.start()
            theirs.close()
            self.connections.append(ours)
            self.processes.append(process)

    def run(self, function: Callable[..., Any], *arguments: Any) -> list[Any]:
        """`function(*arguments)` on every rank; what each returned, by rank.

        Args:
            function: importable, not local.

        Raises:
            RankError: the first failure; the pool is then closed, since other ranks may wait for the one.
        """
        task = pickle.dumps((function, arguments))
        for connection in self.connections:
            connection.send_bytes(task)
        results: dict[int, Any] = {}
        while len(results) < len(self.connections):
            waiting = [c for rank, c in enumerate(self.connections) if rank not in results]
            ready = wait(waiting, TIMEOUT_S)
            if not ready:
                self.close()
                raise TimeoutError(f"{function.__name__}: no answer from the ranks in {TIMEOUT_S} s")
            for connection in ready:
                try:
                    failed, value = pickle.loads(connection.recv_bytes())  # type: ignore[union-attr]
                except EOFError:
                    failed, value = True, ("a rank's process ended", None)
                if failed:
                    self.close()
                    raise RankError(*value)
                results[self.connections.index(connection)] = value
        return [results[rank] for rank in range(len(results))]

    def close(self) -> None:
        """End the processes; if they were shared, the next call starts others."""
        for world_size in [size for size, pool in _shared.items() if pool is self]:
            del _shared[world_size]
        for process in self.processes:
            process.kill()
            process.join()


_shared: dict[int, RankPool] = {}


def pool(world_size: int) -> RankPool:
    """The processes of a world size, started at the first call."""
    if world_size not in _shared:
        _shared[world_size] = RankPool(world_size)
        atexit.register(_shared[world_size].close)
    return _shared[world_size]


def run_ranks(world_size: int, function: Callable[..., Any], *arguments: Any) -> list[Any]:
    """`RankPool.run` in the shared pool."""
    return pool(world_size).run(function, *arguments)


def _serve(rank: int, world_size: int, port: int, connection: Connection) -> None:
    os.environ.update(
        RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(world_size),
        MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port),
    )  # fmt: skip
    while True:
        try:
            function, arguments = pickle.loads(connection.recv_bytes())
        except EOFError:
            return
        try:
            answer = pickle.dumps((False, function(*arguments)))
        except Exception as error:
            answer = pickle.dumps((True, (traceback.format_exc(), error)))
        connection.send_bytes(answer)
