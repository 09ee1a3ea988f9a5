"""Consumers in this project's environment: bare pyarrow, both readers of plinth, DataLoader, plain Ray Data.

Each is a process (`workers.serve`) that is told as JSON: path, uri, storage options, rank, consumers.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pyarrow.fs
import pyarrow.parquet as pq
import torch
import torch.utils.data

from benchmarks.streaming.workers import Consumer, serve
from plinth.data.bad_rows import SAMPLE_ID
from plinth.data.batches import open_batches
from plinth.data.config import DataConfig, ReaderKind
from plinth.data.plan import Cursor
from plinth.data.sources import OpenSource, mix, open_source
from plinth.storage import Storage, StorageOptions
from plinth.storage.arrow import arrow_filesystem
from plinth.world import World
from poma3d.sample import decode

BATCH, CORES = 256, 2
LANES, WINDOW_ROW_GROUPS = 16, 2
COLUMNS = ["depth", "depth_scale", "intrinsics", "pose", "view_valid", "image_embedding", "caption_embedding"]


def threads_each(consumers: int) -> int:
    """Threads or worker processes of one consumer: the cores are shared by all of them."""
    return max(1, CORES // consumers)


def pyarrow_files(storage: Storage) -> pyarrow.fs.FileSystem:
    """The fastest that pyarrow has: its own S3 client."""
    if storage.is_local:
        return pyarrow.fs.LocalFileSystem()
    options = storage.options
    return pyarrow.fs.S3FileSystem(
        access_key=os.environ[str(options.access_key_env)],
        secret_key=os.environ[str(options.secret_key_env)],
        region=options.region,
        endpoint_override=str(options.endpoint_url).removeprefix("http://"),
        scheme="http",
    )


class WithoutState:
    """A path that begins its epoch again after a cut, and reads nothing ahead of its end."""

    def rest(self) -> None:
        """Nothing to throw away."""

    def ids(self, batch: Any) -> list[str]:
        """The id column."""
        return [str(x) for x in batch[SAMPLE_ID]]

    def state(self) -> None:
        """None."""

    def load(self, state: Any) -> None:
        """Nothing to load."""


class BarePyarrow(WithoutState):
    """Every row group by itself, in threads, thrown away: no order, no batches."""

    def __init__(self, source: OpenSource, rank: int, consumers: int) -> None:
        groups = [(s.name, g) for s in source.manifest.shards for g in range(len(s.row_group_rows))]
        self._groups = groups[rank::consumers]
        self._threads = threads_each(consumers)
        self._filesystem, self._root = pyarrow_files(source.storage), source.storage.root

    def batches(self) -> Iterator[None]:
        """One nothing per row group."""
        with ThreadPoolExecutor(self._threads) as pool:
            yield from pool.map(self._read, *zip(*self._groups, strict=True))

    def _read(self, name: str, group: int) -> None:
        with self._filesystem.open_input_file(f"{self._root}/{name}") as file:
            reader = pq.ParquetFile(file, pre_buffer=True)
            reader.read_row_group(group, columns=[SAMPLE_ID, *COLUMNS], use_threads=False)


class Ours:
    """Batches of one rank in plan order, with every tensor in its place."""

    def __init__(self, source: OpenSource, rank: int, consumers: int, reader: ReaderKind) -> None:
        self._source, self._world = source, World(rank, consumers)
        threads = threads_each(consumers)
        self._config = DataConfig(
            lanes=LANES, window_row_groups=WINDOW_ROW_GROUPS, reader=reader,
            read_threads=threads, decode_threads=threads,
        )  # fmt: skip
        self._cursor = Cursor()
        self._opened: Generator[Any, None, None] | None = None

    def batches(self) -> Iterator[Any]:
        """Up to the end of an epoch. The reader stays open, as in training: what it has read ahead of the end
        is the beginning of the next epoch."""
        if self._opened is None:
            self._opened = self._read()
        for batch in self._opened:
            self._cursor = batch.next_cursor
            yield batch
            if self._cursor.epoch > batch.cursor.epoch:
                return

    def rest(self) -> None:
        """Close the reader; the next epoch opens another."""
        if self._opened is not None:
            self._opened.close()
            self._opened = None

    def _read(self) -> Generator[Any, None, None]:
        mixture = mix(self._config, [self._source], 0, BATCH)
        with open_batches(mixture, self._world, self._cursor, COLUMNS, decode) as batches:
            yield from batches

    def ids(self, batch: Any) -> list[str]:
        """Those that are valid."""
        valid = batch.tensors["sample_valid"].tolist()
        return [x for x, is_valid in zip(batch.sample_ids, valid, strict=True) if is_valid]

    def state(self) -> dict[str, int]:
        """The cursor."""
        return self._cursor.to_dict()

    def load(self, state: Any) -> None:
        """A cursor of any number of ranks."""
        self._cursor = Cursor(**state)


class RowGroups(torch.utils.data.IterableDataset[dict[str, Any]]):
    """Batches made of the row groups of Parquet files, every N-th one in each of N worker processes."""

    def __init__(self, source: OpenSource, rank: int, consumers: int, batch: int) -> None:
        root = source.storage.root
        groups = [
            (f"{root}/{shard.name}", group)
            for shard in source.manifest.shards
            for group in range(len(shard.row_group_rows))
        ]
        self._groups, self._batch = groups[rank::consumers], batch

    def __iter__(self) -> Iterator[dict[str, Any]]:
        worker = torch.utils.data.get_worker_info()
        assert worker is not None
        parts: list[dict[str, Any]] = []
        rows = 0
        for file, group in self._groups[worker.id :: worker.num_workers]:
            table = pq.ParquetFile(file).read_row_group(
                group, columns=[SAMPLE_ID, *COLUMNS], use_threads=False
            )
            parts.append({**decode(table, COLUMNS), SAMPLE_ID: table.column(SAMPLE_ID).to_pylist()})
            rows += len(table)
            if rows >= self._batch:
                yield joined(parts)
                parts, rows = [], 0
        if parts:
            yield joined(parts)


def joined(parts: list[dict[str, Any]]) -> dict[str, Any]:
    """One batch of several row groups. As int16: torch's processes cannot hand over uint16."""
    arrays = {name: np.concatenate([part[name] for part in parts]) for name in COLUMNS}
    tensors = {
        n: torch.from_numpy(a.view(np.int16) if a.dtype == np.uint16 else a) for n, a in arrays.items()
    }
    return {**tensors, SAMPLE_ID: [x for part in parts for x in part[SAMPLE_ID]]}


class DataLoader(WithoutState):
    """Ready batches from worker processes that live on from epoch to epoch."""

    def __init__(self, source: OpenSource, rank: int, consumers: int) -> None:
        rows = RowGroups(source, rank, consumers, BATCH // consumers)
        self._loader = torch.utils.data.DataLoader(
            rows, batch_size=None, num_workers=threads_each(consumers), persistent_workers=True
        )

    def batches(self) -> Iterator[Any]:
        """An epoch."""
        yield from self._loader


def ray_data(source: OpenSource) -> Any:
    """The whole columns as Ray Data's guide shows."""
    import ray.data

    ray.data.DataContext.get_current().enable_progress_bars = False
    filesystem, root = arrow_filesystem(source.storage)
    files = [f"{root}/{shard.name}" for shard in source.manifest.shards]
    return ray.data.read_parquet(files, columns=[SAMPLE_ID, *COLUMNS], filesystem=filesystem)


class PlainRayData(WithoutState):
    """What Ray Data's guide shows: batches of NumPy arrays, in no given order.

    Args:
        split: this consumer's part of `streaming_split`; the data set itself for one.
    """

    def __init__(self, split: Any, consumers: int) -> None:
        self._split, self._batch = split, BATCH // consumers

    def batches(self) -> Iterator[Any]:
        """An epoch."""
        yield from self._split.iter_batches(batch_size=self._batch, batch_format="numpy")


def open_config(config: Mapping[str, Any]) -> OpenSource:
    """The data set that `config` names."""
    return open_source(config["uri"], StorageOptions(**config["options"]))


def opener(config: dict[str, Any]) -> Callable[[], Consumer]:
    """What makes the consumer that `config` names."""
    paths: dict[str, Callable[[OpenSource, int, int], Consumer]] = {
        "bare pyarrow": BarePyarrow,
        "threads": lambda source, rank, consumers: Ours(source, rank, consumers, ReaderKind.threads),
        "ray": lambda source, rank, consumers: Ours(source, rank, consumers, ReaderKind.ray),
        "DataLoader": DataLoader,
        "plain Ray Data": lambda source, _, consumers: PlainRayData(
            config.get("split") or ray_data(source), consumers
        ),
    }

    def make() -> Consumer:
        source = open_config(config)
        return paths[config["path"]](source, config["rank"], config["consumers"])

    return make


if __name__ == "__main__":
    serve(opener)
