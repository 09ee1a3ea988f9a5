"""Windows of a rank, read by Ray Data tasks on any node and delivered in plan order.

    windows -> tasks of several windows -> segments (one execution of Ray Data each) -> blocks in order
            -> cut at the rows where windows end

An execution takes seconds to start, so one spans epochs, and the next is started before it ends. It cannot
be endless, because Ray Data holds all its tasks in lists. Each piece of a row group travels as one binary
value (an Arrow stream), because Ray takes eight times as long for a table of many columns. Blocks arrive in
shared memory and are used there without a copy: packed columns as frames (unless data.decode is task), which
are decoded when they are gathered into a batch.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections import deque
from collections.abc import Generator, Iterable, Iterator, Sequence
from functools import lru_cache, partial
from itertools import islice, pairwise
from typing import Any

import numpy as np
import pyarrow as pa
import ray
import ray.data
from ray.data import DataContext, Datasource, ExecutionResources, ReadTask
from ray.data.block import BlockMetadata

from plinth.data.config import DataConfig, DecodePlace
from plinth.data.plan import Window
from plinth.data.sources import OpenSource, PieceReader
from plinth.data.stream_threads import Ahead, WindowTables, put_unless_closed, read_pieces
from plinth.errors import cause_of
from plinth.ray_internals.data import (
    block_refs,
    drop_data_statistics,
    execution_callback,
    quiet_data_progress,
)
from plinth.ray_labels import label_selector, nodes_with

CLOSE_TIMEOUT_S = 20.0
STREAM = "stream"
"""The only column of a block: the rows of a piece as an Arrow stream."""
# Ray Data's scheduling loop runs in this process and does not wait while the consumer is behind: it would
# take half of the interpreter's time from the training step. A pause after each round delays a task by that;
# while a block is ready that nobody has asked for, there is no hurry.
SCHEDULING_PAUSE_S = 0.02
IDLE_PAUSE_S = 0.5
# The next execution starts when this many tasks are left per task that may run at once: it delivers by the
# time that they have ended.
OVERLAP = 4

ExecutionCallback: Any = execution_callback()

log = logging.getLogger(__name__)


def read_windows(
    windows: Iterator[Window], sources: Sequence[OpenSource], columns: Sequence[str], config: DataConfig
) -> Generator[WindowTables]:
    """Each window with its tables, from a Ray that this process is already part of.

    Raises:
        DataError, StorageError: as a task raised them.
    """
    warn_if_label_is_missing(config.ray_label)
    decodes = config.decode is DecodePlace.task
    shared = ray.put((list(sources), list(columns), config.on_bad_shard, decodes))
    threads = Ahead.of(config, sources).most_threads  # a task is asked for all that it reads at once
    overlap = OVERLAP * config.ray_concurrency * config.ray_windows_per_task
    current = _Segment(windows, shared, threads, config)
    running = [current]
    try:
        while True:
            following = None
            rows = _Rows(current.batches())
            for delivered, window in enumerate(current.windows):
                yield window, rows.take(window.rows)
                if following is None and delivered >= len(current.windows) - overlap:
                    following = _Segment(windows, shared, threads, config)
                    running.append(following)
            assert following is not None, "started before the last window"
            current = following
            running = [segment for segment in running if segment is current or segment.is_running]
    finally:
        for segment in running:
            segment.close()


class _Segment:
    """Some windows as one execution of Ray Data, started at once; a thread puts its blocks in a queue."""

    def __init__(
        self, windows: Iterator[Window], shared: ray.ObjectRef, threads: int, config: DataConfig
    ) -> None:
        per_task = config.ray_windows_per_task
        self.windows = list(islice(windows, per_task * config.ray_tasks_per_segment))
        self._shared, self._threads = shared, threads
        self._config = config
        self._queue: queue.Queue[pa.Table | BaseException | None] = queue.Queue(1)
        self._closed = threading.Event()
        _demand.ask(self)
        self._thread = threading.Thread(target=self._run, name="plinth-ray", daemon=True)
        self._thread.start()

    def batches(self) -> Iterator[pa.RecordBatch]:
        """The rows of the windows in order, in batches of any size."""
        while (item := self._queue.get()) is not None:
            if isinstance(item, BaseException):
                raise cause_of(item)
            for chunk in item.column(STREAM).chunks:
                yield from unsealed(chunk)

    @property
    def is_running(self) -> bool:
        """Whether the execution runs or is being shut down."""
        return self._thread.is_alive()

    def close(self) -> None:
        """Stop reading and wait until Ray Data has shut the execution down: Ray must outlive it."""
        self._closed.set()
        _demand.ask(self)
        self._thread.join(CLOSE_TIMEOUT_S)

    def _run(self) -> None:
        try:
            for ref in block_refs(self._dataset()):
                if not self._put(ray.get(ref)):
                    return  # the iterator goes out of scope, which ends the execution
            self._put(None)
        except BaseException as error:  # raised in the consumer
            self._put(error)
        finally:
            _demand.rest(self)

    def _put(self, item: pa.Table | BaseException | None) -> bool:
        if self._queue.full():
            _demand.rest(self)
        was_put = put_unless_closed(self._queue, item, self._closed)
        _demand.ask(self)
        return was_put

    def _dataset(self) -> ray.data.Dataset:
        config = self._config
        starts = range(0, len(self.windows), config.ray_windows_per_task)
        tasks = [
            np.concatenate([w.pieces for w in self.windows[i : i + config.ray_windows_per_task]])
            for i in starts
        ]
        drop_data_statistics()
        with DataContext.current(_context(config)):
            return ray.data.read_datasource(
                _Pieces(tasks, self._shared, self._threads),
                override_num_blocks=len(tasks),
                concurrency=config.ray_concurrency,
                num_cpus=config.ray_task_cpus,
            )


class _Demand:
    """Whether some execution of this process is asked for blocks."""

    def __init__(self) -> None:
        self._wanted: set[object] = set()
        self._lock = threading.Lock()
        self._is_any = threading.Event()

    def ask(self, segment: object) -> None:
        """The segment's next block is wanted."""
        with self._lock:
            self._wanted.add(segment)
            self._is_any.set()

    def rest(self, segment: object) -> None:
        """The segment has delivered enough for now, or all."""
        with self._lock:
            self._wanted.discard(segment)
            if not self._wanted:
                self._is_any.clear()

    def pause(self) -> None:
        """Sleep a little, or longer while nothing is wanted."""
        if self._is_any.is_set():
            time.sleep(SCHEDULING_PAUSE_S)
        else:
            self._is_any.wait(IDLE_PAUSE_S)


_demand = _Demand()


class _Pause(ExecutionCallback):
    """Leaves the interpreter to the training step between two rounds of Ray Data's scheduling."""

    def on_execution_step(self, executor: object) -> None:
        _demand.pause()


class _Pieces(Datasource):
    """The plan as a Ray Data source: each task reads some pieces of row groups in order."""

    def __init__(self, tasks: list[np.ndarray], shared: ray.ObjectRef, threads: int) -> None:
        super().__init__()
        self._tasks = tasks
        self._shared = shared
        self._threads = threads

    def get_name(self) -> str:
        return "Windows"

    def estimate_inmemory_data_size(self) -> int | None:
        return None

    def get_read_tasks(self, parallelism: int, *_: Any, **__: Any) -> list[ReadTask]:
        return [
            ReadTask(
                partial(read_task, pieces, self._shared, self._threads),
                BlockMetadata(
                    num_rows=int((pieces[:, 3] - pieces[:, 2]).sum()),
                    size_bytes=None, input_files=None, exec_stats=None,
                ),
            )
            for pieces in self._tasks
        ]  # fmt: skip


def read_task(pieces: np.ndarray, shared: ray.ObjectRef, threads: int) -> Iterable[pa.Table]:
    """Runs in a worker of Ray."""
    for table in read_pieces(pieces, _reader(shared).read_run, threads):
        yield sealed(table)


def sealed(table: pa.Table) -> pa.Table:
    """A table as one value of the column `STREAM`."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    content = sink.getvalue()
    ends = pa.py_buffer(np.array([0, content.size], np.int64))
    return pa.table({STREAM: pa.Array.from_buffers(pa.large_binary(), 1, [None, ends, content])})


def unsealed(column: pa.LargeBinaryArray) -> Iterator[pa.RecordBatch]:
    """The rows of the tables in `column`, in its memory."""
    _, ends, content = column.buffers()
    places = np.frombuffer(ends, np.int64)[column.offset : column.offset + len(column) + 1].tolist()
    for start, stop in pairwise(places):
        yield from pa.ipc.open_stream(content.slice(start, stop - start))


@lru_cache(maxsize=4)
def _reader(shared: ray.ObjectRef) -> PieceReader:
    """The reader of this worker process, which keeps connections and footers between tasks."""
    return PieceReader(*ray.get(shared))


class _Rows:
    """Takes tables of a given number of rows from a stream of record batches, without copying."""

    def __init__(self, batches: Iterator[pa.RecordBatch]) -> None:
        self._batches = batches
        self._left: deque[pa.RecordBatch] = deque()

    def take(self, count: int) -> list[pa.Table]:
        """The next `count` rows, as tables of one chunk each."""
        taken = []
        while count:
            batch = self._left.popleft() if self._left else next(self._batches)
            if batch.num_rows > count:
                self._left.appendleft(batch.slice(count))
                batch = batch.slice(0, count)
            count -= batch.num_rows
            taken.append(pa.Table.from_batches([batch]))
        return taken


def _context(config: DataConfig) -> DataContext:
    """Settings for our executions alone: this process may use Ray Data for other things too."""
    context = DataContext.get_current().copy()
    context.execution_options.preserve_order = True
    context.execution_options.label_selector = label_selector(config.ray_label)
    context.execution_options.resource_limits = ExecutionResources.for_limits(
        object_store_memory=config.ray_ahead_bytes
    )
    context.execution_no_progress_timeout_s = -1  # a training step or an evaluation may take long
    context.custom_execution_callback_classes = [*context.custom_execution_callback_classes, _Pause]
    context.enable_progress_bars = config.ray_progress
    context.print_on_execution_start = config.ray_progress
    if not config.ray_progress:
        quiet_data_progress()
    return context


def warn_if_label_is_missing(label: str | None) -> None:
    """Without a warning, a label that no node has looks like a job that hangs."""
    if not nodes_with(label, ray.nodes()):
        log.warning("data.ray_label %s: no node of the cluster has it yet; reading waits for one", label)
