"""Rows of windows put at their places in batches.

A row of a packed column (`plinth.data.frames`) is decoded straight to its place in the batch, by a few
threads; other rows are copied there once from the table.
"""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Callable, Generator, Mapping, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeGuard

import numpy as np
import pyarrow as pa

from plinth.data.bad_rows import SAMPLE_ID, Budget, Skips, problems
from plinth.data.config import OnBadShard
from plinth.data.frames import FrameColumn, FrameError, is_packed
from plinth.data.memory import BatchMemory
from plinth.data.plan import Cursor, Window
from plinth.data.shards import MEND
from plinth.data.sources import Mixture, Places, bad_frame
from plinth.data.stream_threads import WindowTables
from plinth.errors import DataError
from plinth.world import World

Decode = Callable[[pa.Table, Sequence[str]], Mapping[str, np.ndarray]]
"""Tensor columns of a table as arrays [rows, ...]; views of the table's memory are welcome."""
Part = np.ndarray | FrameColumn
"""Rows of a column: in memory [rows, ...], or as frames to be decoded."""

# Rows from this size on are copied one by one from where they were decoded; smaller ones are joined
# per window first, because a call per row would cost more than the bytes.
BIG_ROW_BYTES = 16 << 10
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


class Assembler:
    """Puts the rows of windows at their places in batches."""

    def __init__(
        self,
        mixture: Mixture,
        world: World,
        start: Cursor,
        columns: Sequence[str],
        decode: Decode,
        skip: Skips,
    ) -> None:
        plan, config = mixture.plan, mixture.config
        self._skip = skip
        self._skips_bad = config.on_bad_shard is OnBadShard.skip
        self._budget = Budget(config.max_bad_row_groups)
        self._places = [Places(source) for source in mixture.sources]
        self._threads = config.decode_threads
        self._memory = BatchMemory()
        self._plan = plan
        self._start = start
        self._columns = list(columns)
        self._decode = decode
        self._rows = len(world.rows(plan.global_batch_size))
        self._lanes: dict[int, deque[_OpenWindow]] = {lane: deque() for lane in world.lanes(plan.lanes)}

    def batches(self, stream: Generator[WindowTables]) -> Generator[LocalBatch]:
        """One batch after the other from `start` on."""
        cursor = self._start
        with ThreadPoolExecutor(self._threads, thread_name_prefix="plinth-decode") as pool:
            try:
                decoding = self._begin(stream, cursor, pool)
                while True:
                    cursor = self._plan.after(cursor)
                    try:  # its rows are put together while those of the one before are decoded
                        following = self._begin(stream, cursor, pool)
                    except Exception:
                        yield self._finish(decoding, stream)
                        raise
                    yield self._finish(decoding, stream)
                    decoding = following
            finally:
                stream.close()

    def _begin(self, stream: Generator[WindowTables], cursor: Cursor, pool: Executor) -> _Decoding:
        out: _Rows | None = None
        row = 0
        for windows in self._lanes.values():
            end = row + self._plan.rows_per_lane
            while row < end:
                while not windows:
                    self._open_next(stream)
                out = out or _Rows(self._rows, cursor.epoch, windows[0].columns, self._memory)
                row += windows[0].take(out, row, end - row)
                if windows[0].is_empty:
                    windows.popleft()
        assert out is not None, "every rank owns a lane: checked by open_batches"
        shares = [out.frames[i :: self._threads] for i in range(self._threads)]
        return _Decoding(cursor, out, [pool.submit(_decode_share, share) for share in shares])

    def _finish(self, batch: _Decoding, stream: Generator[WindowTables]) -> LocalBatch:
        """Wait until the frames of a batch are decoded; bad rows get the tensors of others.

        Raises:
            DataError: a frame cannot be decoded, and bad rows are not skipped; or too many are bad.
        """
        out, cursor = batch.rows, batch.cursor
        failed = [found for share in batch.shares for found in share.result()]
        for frame, reason in sorted(failed, key=lambda found: found[0].place):
            source, row_group, stored_row = frame.window.stored_at(frame.window_row)
            problem = bad_frame(self._places[source], row_group, stored_row, reason)
            if not self._skips_bad:
                raise DataError(problem, MEND)
            if frame.place not in out.problems:
                self._budget.spend_row(source, row_group, problem)
                out.problems[frame.place] = problem
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
            decoded = [self._parts(table) for table in tables]
            ids = [sample_id for table in tables for sample_id in table.column(SAMPLE_ID).to_pylist()]
            found = problems(tables, ids, self._skip)
            if found:
                self._budget.spend(window, found)
            self._lanes[window.lane].append(_OpenWindow(window, decoded, ids, found, skip))
        return window.epoch

    def _parts(self, table: pa.Table) -> dict[str, Part]:
        """The columns of a table: what is packed stays so."""
        packed = [name for name in self._columns if is_packed(table.schema.field(name))]
        arrays = self._decode(table, [name for name in self._columns if name not in packed])
        frames = {name: FrameColumn(table.column(name), table.schema.field(name)) for name in packed}
        return {name: frames[name] if name in frames else arrays[name] for name in self._columns}


class _Frame(NamedTuple):
    """A row that is still to be decoded."""

    place: int
    """Row of the batch."""
    column: FrameColumn
    row: int
    """Of the column."""
    target: np.ndarray
    window: _OpenWindow
    window_row: int


def _decode_share(frames: Sequence[_Frame]) -> list[tuple[_Frame, str]]:
    """What one thread decodes of a batch; returns the rows that cannot be, each with the reason."""
    failed = []
    for frame in frames:
        try:
            frame.column.read_row(frame.row, frame.target)
        except FrameError as error:
            failed.append((frame, str(error)))
    return failed


class _Rows:
    """The memory of one batch: tensors, and NumPy views of them to write through."""

    def __init__(self, rows: int, epoch: int, columns: Mapping[str, list[Part]], memory: BatchMemory) -> None:
        empty = memory.empty
        self.ids = [""] * rows
        self.problems: dict[int, str] = {}
        """Row -> why it cannot be trained on."""
        self.frames: list[_Frame] = []
        """Rows of packed columns, to be decoded once all places are known."""
        self.columns = list(columns)
        self.tensors = {n: empty(rows, parts[0].dtype, _row_shape(parts[0])) for n, parts in columns.items()}
        self.tensors["sample_valid"] = empty(rows, np.dtype(bool))
        self.tensors["sample_key"] = empty(rows, np.dtype(np.int64))
        self.tensors["epoch"] = empty(rows, np.dtype(np.int64)).fill_(epoch)
        self.arrays = {name: tensor.numpy() for name, tensor in self.tensors.items()}


class _Decoding(NamedTuple):
    """A batch whose rows have their places, while its frames are decoded."""

    cursor: Cursor
    rows: _Rows
    shares: list[Future[list[tuple[_Frame, str]]]]


class _OpenWindow:
    """The decoded rows of a window, of which some are still to be delivered."""

    def __init__(
        self,
        window: Window,
        decoded: Sequence[Mapping[str, Part]],
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
        self._pieces = window.pieces
        self._piece_ends = np.cumsum(window.pieces[:, 3] - window.pieces[:, 2])
        self.columns: dict[str, list[Part]] = {}
        """Column -> its parts, one after the other: several for big rows, a single one for small."""
        for name in decoded[0]:
            parts = [arrays[name] for arrays in decoded]
            small = [part for part in parts if _is_small(part)]
            self.columns[name] = [np.concatenate(small)] if len(small) == len(parts) > 1 else parts
        self._ends = np.cumsum([len(next(iter(arrays.values()))) for arrays in decoded])

    @property
    def is_empty(self) -> bool:
        """Whether all rows are delivered."""
        return self._position == len(self._order)

    def good_row(self) -> dict[str, np.ndarray] | None:
        """The columns of some row that can be trained on, if there is one."""
        for i in range(len(self._ids)):
            if self._problems and self._problems[i]:
                continue
            try:
                return {name: self._value(parts, i) for name, parts in self.columns.items()}
            except FrameError:
                continue  # it will be named when it is its turn
        return None

    def _value(self, parts: list[Part], row: int) -> np.ndarray:
        """A column's value in a row of the window."""
        number = int(np.searchsorted(self._ends, row, side="right")) if len(parts) > 1 else 0
        part, inner = parts[number], row - (int(self._ends[number - 1]) if number else 0)
        if not isinstance(part, FrameColumn):
            value: np.ndarray = part[inner]
            return value
        decoded = np.empty(part.shape, part.dtype)
        part.read_row(inner, decoded)
        return decoded

    def take(self, out: _Rows, row: int, most: int) -> int:
        """Copy the next rows to `out` from `row` on; returns how many."""
        begin = self._position
        chosen = self._order[begin : begin + most]
        count = len(chosen)
        part = np.searchsorted(self._ends, chosen, side="right")
        inner = chosen - np.concatenate([[0], self._ends])[part]
        for name, parts in self.columns.items():
            target = out.arrays[name]
            if len(parts) == 1 and _is_small(first := parts[0]):
                np.take(first, chosen, axis=0, out=target[row : row + count], mode="clip")
                continue
            for place, i, j, window_row in zip(
                range(row, row + count), part.tolist(), inner.tolist(), chosen.tolist(), strict=True
            ):
                column = parts[i]
                if not isinstance(column, FrameColumn):
                    target[place] = column[j]
                elif not (self._problems and self._problems[window_row]):
                    out.frames.append(_Frame(place, column, j, target[place], self, window_row))
        out.arrays["sample_key"][row : row + count] = self._keys[chosen]
        out.arrays["sample_valid"][row : row + count] = np.arange(begin, begin + count) < self._valid
        out.ids[row : row + count] = [self._ids[i] for i in chosen.tolist()]
        if self._problems:
            why = [self._problems[i] for i in chosen.tolist()]
            out.problems |= {place: text for place, text in enumerate(why, row) if text}
        self._position += count
        return count

    def stored_at(self, window_row: int) -> tuple[int, int, int]:
        """Where a row of the window is stored: source, row group, row counted from the group's start."""
        number = int(np.searchsorted(self._piece_ends, window_row, side="right"))
        source, row_group, _, end = self._pieces[number].tolist()
        return source, row_group, end - (int(self._piece_ends[number]) - window_row)


def _row_shape(part: Part) -> tuple[int, ...]:
    return part.shape if isinstance(part, FrameColumn) else part.shape[1:]


def _is_small(part: Part) -> TypeGuard[np.ndarray]:
    """Whether its rows are taken together, rather than put into a batch one by one."""
    return isinstance(part, np.ndarray) and part[:1].nbytes < BIG_ROW_BYTES
