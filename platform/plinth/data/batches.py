"""Batches of a rank in plan order, each with its cursor.

    windows (stream)  ->  one queue of rows per lane  ->  rows copied into batch tensors  ->  prefetch queue

Rows are copied once: from the decoded table straight to their place in the batch.

Legend: n rows of this rank's part of the global batch; the rows of a lane are consecutive.
"""

from __future__ import annotations

import hashlib
import queue
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from plinth.data.bad_rows import NO_SKIPS, SAMPLE_ID, Budget, Skips, problems
from plinth.data.config import DataConfig, ReaderKind
from plinth.data.plan import Cursor, Plan, Window, rank_windows
from plinth.data.sources import Mixture, OpenSource, PieceReader, check_sources
from plinth.data.stream_threads import WindowTables, put_unless_closed, read_windows
from plinth.errors import ConfigError, DataError
from plinth.world import World

Decode = Callable[[pa.Table, Sequence[str]], Mapping[str, np.ndarray]]
"""Tensor columns of a table as arrays [rows, ...]; views of the table's memory are welcome."""

# Rows from this size on are copied one by one from where they were decoded; smaller ones are joined
# per window first, because a call per row would cost more than the bytes.
BIG_ROW_BYTES = 16 << 10
CLOSE_TIMEOUT_S = 30.0
# In a tiny data set a rank may have no good row for an epoch; after this many there is none to wait for.
EPOCHS_SEARCHED = 8


@dataclass
class LocalBatch:
    """This rank's rows of a global batch.

    tensors            dtype      shape
    <tensor columns>   as stored  [n, ...]   uint16 stays torch.uint16
    sample_valid       bool       [n]        False for the repeats that fill the last batch of an epoch, and
                                             for rows that cannot be trained on (`bad_rows`)
    sample_key         int64      [n]        hash of the sample id
    epoch              int64      [n]
    sample_id          list of n strings
    """

    tensors: dict[str, Any]
    cursor: Cursor
    """Position of this batch."""
    next_cursor: Cursor
    """Where a run resumes that has trained on this batch: what a checkpoint keeps."""
    sample_ids: list[str]
    skipped: list[str] = field(default_factory=list)
    """Rows that would be valid but cannot be trained on, each with the reason: `id: reason`."""
    wait_s: float = 0.0
    """How long the consumer waited for it."""


def sample_key(sample_id: str) -> int:
    """The signed 64-bit hash by which a sample seeds its randomness."""
    return int.from_bytes(hashlib.blake2b(sample_id.encode(), digest_size=8).digest(), "little", signed=True)


def open_batches(
    mixture: Mixture,
    world: World,
    start: Cursor,
    columns: Sequence[str],
    decode: Decode,
    skip: Skips = NO_SKIPS,
) -> Batches:
    """The batches of this rank from `start` on, epoch after epoch without end.

    Args:
        columns: tensor columns to read; the sample id comes by itself.
        decode: turns a table of those columns into arrays, e.g. `poma3d.sample.decode`.
        skip: samples that are left out; all others keep their places.

    Raises:
        DataError: the sources cannot be read or mixed. Later, from the iterator: a shard is missing,
            truncated or altered; or more row groups are than may be skipped.
    """
    check_sources(mixture.sources, columns)
    plan, config = mixture.plan, mixture.config
    stream = _open_stream(rank_windows(plan, world, start), mixture.sources, columns, config)
    assembler = _Assembler(plan, world, start, columns, decode, skip, Budget(config.max_bad_row_groups))
    return Batches(plan, assembler.batches(stream), config.prefetch_batches)


def _open_stream(
    windows: Iterator[Window], sources: Sequence[OpenSource], columns: Sequence[str], config: DataConfig
) -> Generator[WindowTables]:
    in_ray = "ray" in sys.modules and sys.modules["ray"].is_initialized()
    if config.reader is ReaderKind.ray and not in_ray:
        raise ConfigError(
            "data.reader is ray, but this process is not part of a Ray cluster.",
            "Use workers, or set data.reader=threads: the order is the same.",
        )
    if config.reader is ReaderKind.threads or not in_ray:
        read = PieceReader(sources, columns, config.on_bad_shard).read
        return read_windows(windows, read, config.read_threads, config.prefetch_windows)
    from plinth.data import stream  # here, because importing Ray takes seconds

    return stream.read_windows(windows, sources, columns, config)


class Batches(Iterator[LocalBatch]):
    """Iterator over `LocalBatch`, assembled ahead by a thread. Close it, or use it in a `with`."""

    def __init__(self, plan: Plan, batches: Generator[LocalBatch], ahead: int) -> None:
        self.plan = plan
        self._batches = batches
        self._queue: queue.Queue[LocalBatch | BaseException] = queue.Queue(ahead)
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._fill, name="plinth-batches", daemon=True)
        self._thread.start()

    def __next__(self) -> LocalBatch:
        if self._closed.is_set():
            raise StopIteration
        started = time.perf_counter()
        item = self._queue.get()
        if isinstance(item, BaseException):
            self.close()
            raise item
        item.wait_s = time.perf_counter() - started
        return item

    def close(self) -> None:
        """Stop reading and wait for the thread to end; not for ever, as it may wait for a stuck server."""
        self._closed.set()
        self._thread.join(CLOSE_TIMEOUT_S)

    def __enter__(self) -> Batches:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _fill(self) -> None:
        try:
            for batch in self._batches:
                if not self._put(batch):
                    break
        except BaseException as error:  # handed to the consumer, whatever it is
            self._put(error)
        finally:
            self._batches.close()

    def _put(self, item: LocalBatch | BaseException) -> bool:
        return put_unless_closed(self._queue, item, self._closed)


class _Assembler:
    """Puts the rows of windows at their places in batches."""

    def __init__(
        self,
        plan: Plan,
        world: World,
        start: Cursor,
        columns: Sequence[str],
        decode: Decode,
        skip: Skips,
        budget: Budget,
    ) -> None:
        self._skip = skip
        self._budget = budget
        self._plan = plan
        self._start = start
        self._columns = list(columns)
        self._decode = decode
        self._rows = len(world.rows(plan.global_batch_size))
        self._lanes: dict[int, deque[_OpenWindow]] = {lane: deque() for lane in world.lanes(plan.lanes)}

    def batches(self, stream: Generator[WindowTables]) -> Generator[LocalBatch]:
        """One batch after the other from `start` on."""
        cursor = self._start
        try:
            while True:
                yield self._batch(stream, cursor)
                cursor = self._plan.after(cursor)
        finally:
            stream.close()

    def _batch(self, stream: Generator[WindowTables], cursor: Cursor) -> LocalBatch:
        out: _Rows | None = None
        row = 0
        for windows in self._lanes.values():
            end = row + self._plan.rows_per_lane
            while row < end:
                while not windows:
                    self._open_next(stream)
                out = out or _Rows(self._rows, cursor.epoch, windows[0].columns)
                row += windows[0].take(out, row, end - row)
                if windows[0].is_empty:
                    windows.popleft()
        assert out is not None, "every rank owns a lane: checked by open_batches"
        return LocalBatch(
            {**out.tensors, "sample_id": out.ids}, cursor, self._plan.after(cursor), out.ids,
            skipped=self._replace_bad(out, stream, cursor.epoch),
        )  # fmt: skip

    def _replace_bad(self, out: _Rows, stream: Generator[WindowTables], epoch: int) -> list[str]:
        """Give the bad rows of a batch the tensors of a good one; returns those that were to be valid."""
        if not out.problems:
            return []
        bad = list(out.problems)
        good = next((row for row in range(self._rows) if row not in out.problems), None)
        if good is None:
            tensors = self._good_row(stream, epoch)
        else:
            tensors = {name: out.arrays[name][good] for name in out.columns}
        for name, tensor in tensors.items():
            out.arrays[name][bad] = tensor
        valid = out.arrays["sample_valid"]
        skipped = [f"{out.ids[row]}: {problem}" for row, problem in out.problems.items() if valid[row]]
        valid[bad] = False
        return skipped

    def _good_row(self, stream: Generator[WindowTables], epoch: int) -> dict[str, np.ndarray]:
        """For a batch without one: from the windows that are open, or else from the next that has one."""
        while True:
            for windows in self._lanes.values():
                for window in windows:
                    if (row := window.good_row()) is not None:
                        return row
            if self._open_next(stream) >= epoch + EPOCHS_SEARCHED:
                raise DataError(
                    f"No sample of {EPOCHS_SEARCHED} epochs can be trained on: all are damaged or left out.",
                    "Build the data set again, or look at what the run's incidents leave out.",
                )

    def _open_next(self, stream: Generator[WindowTables]) -> int:
        """Take the next window from the stream; returns its epoch."""
        window, tables = next(stream)
        skip = 0
        if window.epoch == self._start.epoch:
            skip = max(0, self._start.step * self._plan.rows_per_lane - window.first)
        if skip < len(window.order):
            decoded = [self._decode(table, self._columns) for table in tables]
            ids = [sample_id for table in tables for sample_id in table.column(SAMPLE_ID).to_pylist()]
            found = problems(tables, ids, self._skip)
            if found:
                self._budget.spend(window, found)
            self._lanes[window.lane].append(_OpenWindow(window, decoded, ids, found, skip))
        return window.epoch


class _Rows:
    """The memory of one batch: tensors, and NumPy views of them to write through."""

    def __init__(self, rows: int, epoch: int, columns: Mapping[str, list[np.ndarray]]) -> None:
        self.ids = [""] * rows
        self.problems: dict[int, str] = {}
        """Row -> why it cannot be trained on."""
        self.columns = list(columns)
        self.tensors = {name: _empty(rows, parts[0]) for name, parts in columns.items()}
        self.tensors["sample_valid"] = _empty(rows, np.empty(0, bool))
        self.tensors["sample_key"] = _empty(rows, np.empty(0, np.int64))
        self.tensors["epoch"] = _empty(rows, np.empty(0, np.int64)).fill_(epoch)
        self.arrays = {name: tensor.numpy() for name, tensor in self.tensors.items()}


class _OpenWindow:
    """The decoded rows of a window, of which some are still to be delivered."""

    def __init__(
        self,
        window: Window,
        decoded: Sequence[Mapping[str, np.ndarray]],
        ids: list[str],
        problems: list[str],
        skip: int,
    ) -> None:
        self._ids = ids
        self._problems = problems
        self._keys = np.array([sample_key(sample_id) for sample_id in ids], np.int64)
        self._order = window.order
        self._valid = window.valid
        self._position = skip
        self.columns: dict[str, list[np.ndarray]] = {}
        """Column -> its arrays, one after the other: several for big rows, a single one for small."""
        for name in decoded[0]:
            parts = [arrays[name] for arrays in decoded]
            big = parts[0][0].nbytes >= BIG_ROW_BYTES
            self.columns[name] = parts if big or len(parts) == 1 else [np.concatenate(parts)]
        self._ends = np.cumsum([len(next(iter(arrays.values()))) for arrays in decoded])

    @property
    def is_empty(self) -> bool:
        """Whether all rows are delivered."""
        return self._position == len(self._order)

    def good_row(self) -> dict[str, np.ndarray] | None:
        """The columns of some row that can be trained on, if there is one."""
        good = next((i for i in range(len(self._ids)) if not (self._problems and self._problems[i])), None)
        if good is None:
            return None
        row = {}
        for name, parts in self.columns.items():
            part = int(np.searchsorted(self._ends, good, side="right")) if len(parts) > 1 else 0
            row[name] = parts[part][good - (int(self._ends[part - 1]) if part else 0)]
        return row

    def take(self, out: _Rows, row: int, most: int) -> int:
        """Copy the next rows to `out` from `row` on; returns how many."""
        begin = self._position
        chosen = self._order[begin : begin + most]
        count = len(chosen)
        part = np.searchsorted(self._ends, chosen, side="right")
        inner = chosen - np.concatenate([[0], self._ends])[part]
        for name, parts in self.columns.items():
            target = out.arrays[name]
            if len(parts) == 1 and parts[0][0].nbytes < BIG_ROW_BYTES:
                np.take(parts[0], chosen, axis=0, out=target[row : row + count], mode="clip")
                continue
            for place, (i, j) in enumerate(zip(part.tolist(), inner.tolist(), strict=True), row):
                target[place] = parts[i][j]
        out.arrays["sample_key"][row : row + count] = self._keys[chosen]
        out.arrays["sample_valid"][row : row + count] = np.arange(begin, begin + count) < self._valid
        out.ids[row : row + count] = [self._ids[i] for i in chosen.tolist()]
        if self._problems:
            why = [self._problems[i] for i in chosen.tolist()]
            out.problems |= {place: text for place, text in enumerate(why, row) if text}
        self._position += count
        return count


def _empty(rows: int, like: np.ndarray) -> torch.Tensor:
    """Memory for `rows` rows of the dtype and row shape of `like`, page-locked where there is a GPU."""
    dtype = torch.from_numpy(np.empty(0, like.dtype)).dtype
    return torch.empty((rows, *like.shape[1:]), dtype=dtype, pin_memory=torch.cuda.is_available())
