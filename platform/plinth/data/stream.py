"""Windows of a rank, read in plan order with a bounded look-ahead."""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import pyarrow as pa

from plinth.data.plan import Window
from plinth.data.sources import PieceReader

WindowTables = tuple[Window, list[pa.Table]]
"""A window and its rows in the order of its pieces, in one table or several."""


def read_in_threads(
    windows: Iterator[Window], reader: PieceReader, threads: int, ahead: int
) -> Generator[WindowTables]:
    """Read with a few threads of this process; `ahead` windows are read before they are asked for.

    Piece by piece rather than window by window, so that the threads share the window needed next.
    """
    pending: deque[tuple[Window, list[Future[pa.Table]]]] = deque()
    pool = ThreadPoolExecutor(threads, thread_name_prefix="plinth-read")
    try:
        for window in windows:
            pending.append((window, [pool.submit(reader.read, piece) for piece in window.pieces]))
            if len(pending) > ahead:
                ready, futures = pending.popleft()
                yield ready, [future.result() for future in futures]
        for ready, futures in pending:
            yield ready, [future.result() for future in futures]
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
