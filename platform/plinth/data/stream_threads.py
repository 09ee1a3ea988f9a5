"""Windows of a rank read by threads of this process, in plan order, a bounded number ahead.

How far ahead follows the storage: each time the next window is not there yet, one more is read ahead from
then on, with more requests at once, up to a bound. A store whose answers take long is soon asked for enough
at once.
"""

from __future__ import annotations

import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import pyarrow as pa

from plinth.data.config import DataConfig
from plinth.data.plan import Window
from plinth.data.sources import OpenSource

WindowTables = tuple[Window, list[pa.Table]]
"""A window and its rows in the order of its pieces, in one table or several."""
ReadRun = Callable[[np.ndarray], list[pa.Table]]
"""Reads pieces [n, 4] of adjacent row groups: `plinth.data.sources.PieceReader.read_run`."""
T = TypeVar("T")
POLL_S = 0.2
# A shorter wait is that for the interpreter, not for the storage.
WAITED_S = 0.002


@dataclass(frozen=True)
class Ahead:
    """How much is read before it is asked for."""

    threads: int
    """Requests at once."""
    least: int
    most: int
    """Windows, to start with and at most; requests at once grow with them."""

    @classmethod
    def of(cls, config: DataConfig, sources: Sequence[OpenSource]) -> Ahead:
        """What a job allows: more than the least only of object stores. A disk is not waited for, but cores
        are."""
        is_local = all(source.storage.is_local for source in sources)
        least = config.prefetch_windows
        return cls(config.read_threads, least, least if is_local else config.max_prefetch_windows)

    @property
    def most_threads(self) -> int:
        """Requests at once when `most` windows are read ahead."""
        return self.threads * self.most // self.least


def read_windows(windows: Iterator[Window], read: ReadRun, ahead: Ahead) -> Generator[WindowTables]:
    """Each window with its tables.

    Run by run rather than window by window, so that the threads share the window needed next.
    """
    pending: deque[tuple[Window, _Reads]] = deque()
    depth, at_once = ahead.least, ahead.threads
    gate = threading.Semaphore(at_once)

    def read_in_turn(pieces: np.ndarray) -> list[pa.Table]:
        with gate:
            return read(pieces)

    pool = ThreadPoolExecutor(ahead.most_threads, thread_name_prefix="plinth-read")
    try:
        for window in windows:
            pending.append((window, _Reads(pool, read_in_turn, window.pieces)))
            if len(pending) <= depth:
                continue
            window, reads = pending.popleft()
            started = time.perf_counter()
            tables = reads.tables()
            if time.perf_counter() - started > WAITED_S and depth < ahead.most:
                depth += 1
                grown = ahead.threads * depth // ahead.least
                for _ in range(at_once, grown):
                    gate.release()
                at_once = grown
            yield window, tables
        for window, reads in pending:
            yield window, reads.tables()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def read_pieces(pieces: np.ndarray, read: ReadRun, threads: int) -> list[pa.Table]:
    """The table of each piece.

    Args:
        pieces: int64 [n, 4].
        threads: requests at once.
    """
    with ThreadPoolExecutor(threads, thread_name_prefix="plinth-read") as pool:
        return _Reads(pool, read, pieces).tables()


def runs(pieces: np.ndarray) -> list[list[int]]:
    """The numbers of the pieces, those of adjacent row groups of a source together: one request each.

    Args:
        pieces: int64 [n, 4] of source, row group, first row, end row.
    """
    found: list[list[int]] = []
    before = (-1, -1)
    for number in np.lexsort((pieces[:, 1], pieces[:, 0])).tolist():
        source, row_group = pieces[number, :2].tolist()
        if found and before in ((source, row_group - 1), (source, row_group)):
            found[-1].append(number)
        else:
            found.append([number])
        before = (source, row_group)
    return found


class _Reads:
    """Pieces being read by a pool, a run each time."""

    def __init__(self, pool: Executor, read: ReadRun, pieces: np.ndarray) -> None:
        self._count = len(pieces)
        self._runs = [(run, pool.submit(read, pieces[run])) for run in runs(pieces)]

    def tables(self) -> list[pa.Table]:
        """The table of each piece, in their order; waits for them."""
        found: list[pa.Table] = [None] * self._count
        for run, future in self._runs:
            for number, table in zip(run, future.result(), strict=True):
                found[number] = table
        return found


def put_unless_closed(items: queue.Queue[T], item: T, closed: threading.Event) -> bool:
    """Wait until there is space for the item, or until `closed` is set; returns whether it was put."""
    while not closed.is_set():
        try:
            items.put(item, timeout=POLL_S)
            return True
        except queue.Full:
            continue
    return False
