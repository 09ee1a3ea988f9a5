"""Write the content in the formats of the peers.

python -m benchmarks.streaming.peers.convert COLUMNS OUTPUT

    mds        StreamingDataset: shards of arrays, zstd per shard
    litdata    LitData: chunks of items, zstd per 256 items
    wds        WebDataset: tar files with two members a sample, depth as one zstd frame, the rest as a .ten
"""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path
from typing import Any

import zstandard

from benchmarks.streaming.peers.columns import DEPTH, ID, SMALL, ZSTD_LEVEL, Columns
from benchmarks.streaming.peers.without_pictures import import_streaming

SHARD_VIEWS = 512
PROCESSES = 2


def to_mds(columns: Columns, folder: Path) -> None:
    """Shards of about SHARD_VIEWS before compression."""
    first = columns[0]
    types = {ID: "str"} | {
        name: f"ndarray:{first[name].dtype}:{','.join(map(str, first[name].shape))}"
        for name in (DEPTH, *SMALL)
    }
    view_bytes = sum(first[name].nbytes for name in (DEPTH, *SMALL))
    with import_streaming().MDSWriter(
        out=str(folder), columns=types, compression=f"zstd:{ZSTD_LEVEL}", size_limit=SHARD_VIEWS * view_bytes
    ) as writer:
        for index in range(len(columns)):
            writer.write(columns[index])


def item(index: int, columns: Path) -> dict[str, Any]:
    """In a process of LitData."""
    return Columns(columns)[index]


def to_litdata(source: Path, count: int, folder: Path) -> None:
    """Chunks of SHARD_VIEWS."""
    import litdata

    litdata.optimize(
        partial(item, columns=source), list(range(count)), str(folder), chunk_size=SHARD_VIEWS,
        compression=f"zstd:{ZSTD_LEVEL}", num_workers=PROCESSES, verbose=False,
    )  # fmt: skip


def to_wds(columns: Columns, folder: Path) -> None:
    """Tar files of SHARD_VIEWS."""
    import webdataset
    from webdataset import tenbin

    folder.mkdir()
    compressor = zstandard.ZstdCompressor(ZSTD_LEVEL)
    with webdataset.ShardWriter(str(folder / "%05d.tar"), maxcount=SHARD_VIEWS, verbose=0) as writer:
        for index in range(len(columns)):
            sample = columns[index]
            writer.write(
                {
                    "__key__": sample[ID],
                    "depth.zst": compressor.compress(sample[DEPTH].tobytes()),
                    "rest.ten": bytes(tenbin.encode_buffer([sample[name] for name in SMALL])),
                }
            )


def main() -> None:
    """All three."""
    source, output = map(Path, sys.argv[1:])
    columns = Columns(source)
    to_mds(columns, output / "mds")
    to_litdata(source, len(columns), output / "litdata")
    to_wds(columns, output / "wds")


if __name__ == "__main__":
    main()
