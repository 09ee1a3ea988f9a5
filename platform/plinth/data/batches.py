"""Batches of a rank in plan order, each with its cursor.

    windows (stream)  ->  one queue of rows per lane  ->  rows put into batch tensors  ->  prefetch queue

See `plinth.data.assemble` for the middle of it.

Legend: n rows of this rank's part of the global batch; the rows of a lane are consecutive.
"""

from __future__ import annotations

import logging
import queue
import sys
import threading
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from typing import Any, NamedTuple

from plinth.data.assemble import Assembler, Decode, LocalBatch
from plinth.data.bad_rows import NO_SKIPS, Skips
from plinth.data.config import DataConfig, DecodePlace, ReaderKind
from plinth.data.plan import Cursor, Plan, Window, rank_windows
from plinth.data.sources import Mixture, OpenSource, PieceReader, check_sources
from plinth.data.stream_threads import Ahead, WindowTables, put_unless_closed, read_windows
from plinth.errors import ConfigError
from plinth.units import counted
from plinth.world import World

CLOSE_TIMEOUT_S = 30.0

log = logging.getLogger(__name__)


def open_batches(
    mixture: Mixture,
    world: World,
    start: Cursor,
    columns: Sequence[str],
    decode: Decode,
    skip: Skips = NO_SKIPS,
    read_ahead: Callable[[dict[str, Any]], None] | None = None,
) -> Batches:
    """The batches of this rank from `start` on, epoch after epoch without end.

    Args:
        columns: tensor columns to read; the sample id comes by itself.
        decode: turns a table of those columns into arrays, e.g. `poma3d.sample.decode`.
        skip: samples that are left out; all others keep their places.
        read_ahead: told the tensors of every batch by the reading thread, some batches before it is trained
            on: for what the stage will need beside its rows.

    Raises:
        DataError: the sources cannot be read or mixed. Later, from the iterator: a shard is missing,
            truncated or altered; or more row groups are than may be skipped.
    """
    check_sources(mixture.sources, columns)
    plan, config = mixture.plan, mixture.config
    reader = choose_reader(config, world.world_size)
    if reader.why and world.rank == 0:
        log.info("reading by %s: %s", reader.kind.value, reader.why)
    windows = rank_windows(plan, world, start)
    stream = _open_stream(reader.kind, windows, mixture.sources, columns, config)
    assembler = Assembler(mixture, world, start, columns, decode, skip)
    return Batches(plan, assembler.batches(stream), config.prefetch_batches, read_ahead)


class Reader(NamedTuple):
    """Who reads, never `auto`, and why, for the log; "" where there was no choice."""

    kind: ReaderKind
    why: str = ""


def choose_reader(config: DataConfig, workers: int) -> Reader:
    """What `data.reader` comes to in this process, one of so many workers.

    Without a CPU to spare, tasks that read and Ray Data's scheduling take the time of the training step; what
    tasks decode, and what the job says of the tasks, needs them.

    Raises:
        ConfigError: it is ray, and this process is not part of a Ray cluster.
    """
    in_ray = "ray" in sys.modules and sys.modules["ray"].is_initialized()
    if config.reader is ReaderKind.ray and not in_ray:
        raise ConfigError(
            "data.reader is ray, but this process is not part of a Ray cluster.",
            "Use workers, or set data.reader=threads: the order is the same.",
        )
    if config.reader is not ReaderKind.auto:
        return Reader(config.reader)
    if not in_ray:
        return Reader(ReaderKind.threads)
    asks = {
        "ray_label": config.ray_label is not None,
        "ray_task_cpus": config.ray_task_cpus > 0,
        "decode": config.decode is DecodePlace.task,
    }
    if any(asks.values()):
        return Reader(ReaderKind.ray, f"data.{max(asks, key=asks.__getitem__)} asks for its tasks")
    cpus = sys.modules["ray"].cluster_resources().get("CPU", 0)
    room = f"{cpus:g} CPUs for {counted(workers, 'worker')}"
    return Reader(ReaderKind.ray if cpus > workers else ReaderKind.threads, room)


def _open_stream(
    kind: ReaderKind,
    windows: Iterator[Window],
    sources: Sequence[OpenSource],
    columns: Sequence[str],
    config: DataConfig,
) -> Generator[WindowTables]:
    if kind is ReaderKind.threads:
        read = PieceReader(sources, columns, config.on_bad_shard).read_run
        return read_windows(windows, read, Ahead.of(config, sources))
    from plinth.data import stream  # here, because importing Ray takes seconds

    return stream.read_windows(windows, sources, columns, config)


class Batches(Iterator[LocalBatch]):
    """Iterator over `LocalBatch`, assembled ahead by a thread. Close it, or use it in a `with`."""

    def __init__(
        self,
        plan: Plan,
        batches: Generator[LocalBatch],
        ahead: int,
        read_ahead: Callable[[dict[str, Any]], None] | None = None,
    ) -> None:
        self.plan = plan
        self._read_ahead = read_ahead
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
                if self._read_ahead is not None:
                    self._read_ahead(batch.tensors)
                if not self._put(batch):
                    break
        except BaseException as error:  # handed to the consumer, whatever it is
            self._put(error)
        finally:
            self._batches.close()

    def _put(self, item: LocalBatch | BaseException) -> bool:
        return put_unless_closed(self._queue, item, self._closed)
