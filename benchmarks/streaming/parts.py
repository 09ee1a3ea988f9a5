"""Where the time of our thread reader goes: each part alone, one thread, CPU seconds per 1,000 views.

python -m benchmarks.streaming.parts [--scan FOLDER] [--views 8192] [--rounds 3] [--codec lz4]

    bytes          ranges of row groups read into memory
    checksums, Arrow    their CRC-32s, and Parquet pages to tables with the frames as they are stored
    codec          each frame decoded to the same place, without tables and places of their own
    frames         each frame found in its table and decoded to a place of its own
    batches        the whole: order, threads, batches, with everything above; an epoch that follows on another

What `batches` takes above bytes, checksums and frames is putting rows in order, allocating, and threads that
wait for the interpreter. The last line is the share of two cores that the whole keeps busy.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median

import numpy as np
import pyarrow as pa

from benchmarks.streaming import content
from benchmarks.streaming.ours import COLUMNS, CORES, Ours
from benchmarks.streaming.report import machine
from plinth.data.bad_rows import SAMPLE_ID
from plinth.data.config import Codec, ReaderKind, ShardOptions
from plinth.data.frames import FrameColumn, decode_into, is_packed
from plinth.data.shards import RowGroupReader
from plinth.data.sources import OpenSource, open_source
from plinth.storage import Storage, StorageOptions

BYTES, ARROW, CODEC, FRAMES, BATCHES = "bytes", "checksums, Arrow", "codec", "frames", "batches"


def main() -> None:
    """Make the data set, measure its parts in turns, print the table."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.streaming.parts", description=__doc__,
        formatter_class=argparse.RawTextHelpFormatter,
    )  # fmt: skip
    parser.add_argument("--scan", type=Path, help="folder of a scan whose depth is used")
    parser.add_argument("--views", type=int, default=8192)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--codec", choices=[codec.value for codec in Codec], default=ShardOptions().depth_codec.value
    )
    arguments = parser.parse_args()
    depth = (
        content.scan_depth(arguments.scan) if arguments.scan else content.made_depth(content.DISTINCT_VIEWS)
    )
    codec = Codec(arguments.codec)
    with tempfile.TemporaryDirectory() as folder:
        _, made = content.make_data_sets(Storage.from_uri(folder), depth, arguments.views, codec)
        source = open_source(made.storage.uri, StorageOptions())
        rounds = [parts(source, codec) for _ in range(arguments.rounds)]
    thousands = arguments.views / 1000
    print(f"{machine()}; {codec.value}, {made.bytes_per_view / 1024:.1f} KiB a view\n")
    print("| part | CPU-s per 1,000 views |\n| --- | --- |")
    for name in rounds[0][0]:
        print(f"| {name} | {median(cpu[name] for cpu, _ in rounds) / thousands:.3f} |")
    wall_s = median(wall for _, wall in rounds)
    busy = median(cpu[BATCHES] / wall / CORES for cpu, wall in rounds)
    print(f"\nbatches: {arguments.views / wall_s:,.0f} views/s, {busy:.0%} of {CORES} cores busy")


def parts(source: OpenSource, codec: Codec) -> tuple[dict[str, float], float]:
    """CPU seconds of each part for the whole data set, and the wall seconds of `batches`."""
    reader, columns = RowGroupReader(source.storage), [SAMPLE_ID, *COLUMNS]
    found: dict[str, float] = {}
    groups = [
        (shard, group) for shard in source.manifest.shards for group in range(len(shard.row_group_rows))
    ]
    with cpu(found, BYTES):
        fetched = [reader.fetch(shard, [group], columns) for shard, group in groups]
    with cpu(found, ARROW):
        tables = [
            reader.read_packed(shard, group, columns, bytes_)
            for (shard, group), bytes_ in zip(groups, fetched, strict=True)
        ]
    packed = [column for table in tables for column in packed_columns(table)]
    place = np.empty(packed[0].shape, packed[0].dtype)
    frames = [
        frame for table in tables for frame in table.column("depth").combine_chunks().flatten().to_pylist()
    ]
    with cpu(found, CODEC):
        for frame in frames:
            decode_into(frame, codec, place[0])
    most = max(map(len, packed))
    batch = np.empty((most, *place.shape), place.dtype)
    with cpu(found, FRAMES):
        for column in packed:
            for row in range(len(column)):
                column.read_row(row, batch[row])
    consumer = Ours(source, 0, 1, ReaderKind.threads)
    for _ in consumer.batches():
        pass
    began = time.perf_counter()
    with cpu(found, BATCHES):
        for _ in consumer.batches():
            pass
    seconds = time.perf_counter() - began
    consumer.rest()
    return found, seconds


def packed_columns(table: pa.Table) -> Iterator[FrameColumn]:
    """The columns of a table that are stored as frames."""
    for index, field in enumerate(table.schema):
        if is_packed(field):
            yield FrameColumn(table.column(index), field)


@contextmanager
def cpu(found: dict[str, float], name: str) -> Iterator[None]:
    """Note the CPU seconds of all threads of this process in here."""
    before = time.process_time()
    yield
    found[name] = time.process_time() - before


if __name__ == "__main__":
    main()
