"""Small data sets for the tests of the data path: real shards, toy columns."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from plinth.data import frames, manifest
from plinth.data.assemble import LocalBatch
from plinth.data.bad_rows import NO_SKIPS, Skips
from plinth.data.batches import open_batches
from plinth.data.config import DataConfig, ShardOptions
from plinth.data.manifest import Manifest
from plinth.data.plan import Cursor
from plinth.data.shards import RowGroupReader, write_shard
from plinth.data.sources import OpenSource, mix
from plinth.storage import Storage
from plinth.world import World

GLOBAL_BATCH = 12
SEED = 5
COLUMNS = ("depth", "pose", "image_embedding")
SHAPES: dict[str, tuple[str, tuple[int, ...]]] = {
    "depth": ("uint16", (2, 96, 48)),  # above and below the size from which rows are copied one by one
    "pose": ("float32", (3, 4)),
    "image_embedding": ("float16", (8,)),
}


def toy_table(first: int, rows: int, name: str = "toy", shapes: Mapping[str, Any] | None = None) -> pa.Table:
    """Rows `first` to `first + rows`; every value of row i is made from i."""
    fields = [pa.field("sample_id", pa.string(), nullable=False)]
    columns: list[pa.Array] = [pa.array([f"{name}-{i}" for i in range(first, first + rows)])]
    for column, (dtype, shape) in (shapes or SHAPES).items():
        arrays = [toy_array(i, dtype, shape) for i in range(first, first + rows)]
        metadata = {"dtype": dtype, "shape": json.dumps(shape)}
        fields.append(pa.field(column, pa.binary(arrays[0].nbytes), nullable=False, metadata=metadata))
        columns.append(pa.array([a.tobytes() for a in arrays], fields[-1].type))
    fields.append(pa.field("captions", pa.list_(pa.string())))
    columns.append(pa.array([[f"caption of {i}"] for i in range(first, first + rows)]))
    return pa.Table.from_arrays(columns, schema=pa.schema(fields))


def toy_array(row: int, dtype: str, shape: tuple[int, ...]) -> np.ndarray:
    """What row `row` holds in a column of this type."""
    return ((np.arange(np.prod(shape)).reshape(shape) % 13) + row % 1000).astype(dtype)


def make_data_set(
    uri: str | Path | Storage,
    shard_rows: Sequence[int] = (20, 17, 9),
    row_group_rows: int = 4,
    name: str = "toy",
    weight: float = 1.0,
    attributes: dict[str, Any] | None = None,
    shapes: Mapping[str, Any] | None = None,
) -> OpenSource:
    """Write shards and manifest; rows are numbered through."""
    storage = uri if isinstance(uri, Storage) else Storage.from_uri(uri)
    entries = []
    for i, rows in enumerate(shard_rows):
        table = toy_table(sum(shard_rows[:i]), rows, name, shapes)
        entries.append(
            write_shard(storage, f"part-{i:05d}", table, ShardOptions(row_group_rows=row_group_rows))
        )
    written = Manifest(entries, attributes or {"schema_version": 1, "teacher": "tiny"})
    manifest.commit(storage, written)
    return OpenSource(storage, manifest.load(storage), weight)


def damage(source: OpenSource, shard: int, row_group: int) -> None:
    """Flip a byte in the depth of a row group of a local data set."""
    path = Path(source.storage.root, source.manifest.shards[shard].name)
    depth = pq.read_metadata(path).row_group(row_group).column(1)
    content = bytearray(path.read_bytes())
    content[depth.data_page_offset + depth.total_compressed_size // 2] ^= 0xFF
    path.write_bytes(content)


def with_bad_frame(folder: Path, sample: int, view: int) -> OpenSource:
    """The data set of `make_data_set` with a frame of one sample's depth broken before it was written: its
    shard is what the manifest says."""
    whole = make_data_set(folder)
    reader, entries, first = RowGroupReader(whole.storage), [], 0
    for i, shard in enumerate(whole.manifest.shards):
        table = frames.pack(reader.read_shard(shard), ShardOptions())
        if first <= sample < first + len(table):
            rows = table["depth"].to_pylist()
            rows[sample - first][view] = rows[sample - first][view][:-3]
            at = table.schema.get_field_index("depth")
            field = table.schema.field(at)
            table = table.set_column(at, field, pa.array(rows, field.type))
        entries.append(
            write_shard(whole.storage, f"part-{i:05d}", table, ShardOptions(row_group_rows=4, packed=[]))
        )
        first += len(table)
    written = Manifest(entries, whole.manifest.attributes)
    manifest.commit(whole.storage, written)
    return OpenSource(whole.storage, manifest.load(whole.storage))


def decode(table: pa.Table, columns: Sequence[str]) -> dict[str, np.ndarray]:
    """Arrays [rows, ...] of the toy columns, without a copy."""
    out = {}
    for name in columns:
        field = table.schema.field(name)
        dtype, shape = np.dtype(field.metadata[b"dtype"].decode()), json.loads(field.metadata[b"shape"])
        column = table.column(name).combine_chunks()
        if isinstance(column, pa.ChunkedArray):
            column = column.chunk(0)
        width = column.type.byte_width
        data = memoryview(column.buffers()[1])[column.offset * width :][: len(column) * width]
        out[name] = np.frombuffer(data, dtype).reshape(len(column), *shape)
    return out


def take(
    sources: list[OpenSource],
    config: DataConfig,
    world: World,
    start: Cursor,
    count: int,
    skip: Skips = NO_SKIPS,
) -> list[LocalBatch]:
    """The next `count` batches of a rank; then everything is closed."""
    mixture = mix(config, sources, SEED, GLOBAL_BATCH)
    with open_batches(mixture, world, start, COLUMNS, decode, skip) as batches:
        return list(islice(batches, count))


def take_portable(*arguments: Any) -> list[LocalBatch]:
    """`take`, for another process: torch cannot unpickle uint16, so depth comes as int16 bits."""
    batches = take(*arguments)
    for batch in batches:
        batch.tensors["depth"] = batch.tensors["depth"].view(torch.int16)
    return batches
