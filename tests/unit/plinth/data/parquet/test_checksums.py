import zlib
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from plinth.data.parquet import checksums
from plinth.data.shards import RowGroupReader, write_shard
from plinth.errors import DataError
from plinth.storage import Storage
from tests.helpers.datasets import toy_table


def test_every_chunk_has_the_sum_that_zlib_gives(tmp_path: Path) -> None:
    storage = Storage.from_uri(str(tmp_path))
    shard = write_shard(storage, "part", toy_table(0, 20))
    content = storage.read(shard.name)
    footer = pq.read_metadata(pa.BufferReader(content))
    sums = checksums.from_footer(footer)
    assert sums is not None
    assert sums.shape == (footer.num_row_groups, footer.num_columns)
    for group in range(footer.num_row_groups):
        for column in range(footer.num_columns):
            start, stop = checksums.chunk_range(footer.row_group(group).column(column))
            assert zlib.crc32(content[start:stop]) == sums[group, column]


def test_shards_of_before_are_checked_page_by_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They have no sums of chunks in their footer."""
    monkeypatch.setattr(checksums, "of_chunks", lambda content: {})
    storage = Storage.from_uri(str(tmp_path))
    table = toy_table(0, 20)
    shard = write_shard(storage, "part", table)
    content = bytearray(storage.read(shard.name))
    footer = pq.read_metadata(pa.BufferReader(bytes(content)))
    assert checksums.from_footer(footer) is None
    assert RowGroupReader(storage).read_shard(shard).equals(table)
    paths = [footer.row_group(0).column(i).path_in_schema for i in range(footer.num_columns)]
    start, stop = checksums.chunk_range(footer.row_group(0).column(paths.index("image_embedding")))
    content[(start + stop) // 2] ^= 0xFF
    storage.write(shard.name, bytes(content))
    with pytest.raises(DataError, match="row group 0: cannot be decoded"):
        RowGroupReader(storage).read(shard, 0, ["image_embedding"])


def test_the_sum_of_a_view_is_that_of_its_bytes() -> None:
    data = np.random.default_rng(0).bytes(1000)
    assert checksums.crc32(memoryview(data)[10:900]) == zlib.crc32(data[10:900])
