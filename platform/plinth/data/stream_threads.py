"""Windows of a rank read by threads of this process, in plan order, a bounded number ahead."""

from __future__ import annotations

import queue
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import numpy as np
import pyarrow as pa

from plinth.data.plan import Window

WindowTables = tuple[Window, list[pa.Table]]
"""A window and its rows in the order of its pieces, in one table or several."""
ReadPiece = Callable[[np.ndarray], pa.Table]
"""Reads one piece of a row group: `plinth.data.sources.PieceReader.read`."""
T = TypeVar("T")
POLL_S = 0.2


def read_windows(
    windows: Iterator[Window], read: ReadPiece, threads: int, ahead: int
) -> Generator[WindowTables]:
    """Each window with its tables; `ahead` windows are read before they are asked for.

    Piece by piece rather than window by window, so that the threads share the window needed next.
    """
    pieces = ((window, list(window.pieces)) for window in windows)
    yield from _read_ahead(pieces, read, threads, ahead)


def read_pieces(pieces: Iterable[np.ndarray], read: ReadPiece, threads: int) -> Generator[pa.Table]:
    """The table of each piece, in order, one being read ahead per thread."""
    singles = ((None, [piece]) for piece in pieces)
    for _, tables in _read_ahead(singles, read, threads, threads):
        yield tables[0]


def _read_ahead(
    groups: Iterator[tuple[T, list[np.ndarray]]], read: ReadPiece, threads: int, ahead: int
) -> Generator[tuple[T, list[pa.Table]]]:
    pending: deque[tuple[T, list[Future[pa.Table]]]] = deque()
    pool = ThreadPoolExecutor(threads, thread_name_prefix="plinth-read")
    try:
        for label, pieces in groups:
            pending.append((label, [pool.submit(read, piece) for piece in pieces]))
            if len(pending) > ahead:
                yield _wait(*pending.popleft())
        while pending:
            yield _wait(*pending.popleft())
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def put_unless_closed(items: queue.Queue[T], item: T, closed: threading.Event) -> bool:
    """Wait until there is space for the item, or until `closed` is set; returns whether it was put."""
    while not closed.is_set():
        try:
            items.put(item, timeout=POLL_S)
            return True
        except queue.Full:
            continue
    return False


def _wait(label: T, futures: list[Future[pa.Table]]) -> tuple[T, list[pa.Table]]:
    return label, [future.result() for future in futures]
