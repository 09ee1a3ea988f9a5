"""Rows of a shard in batches that cross row groups."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pyarrow as pa

from plinth.data.manifest import ShardEntry
from plinth.data.shards import RowGroupReader


def batches(
    reader: RowGroupReader, shard: ShardEntry, columns: Sequence[str], size: int
) -> Iterator[pa.Table]:
    """The wanted columns of the rows of a shard in order, `size` at a time, decoded. Each row group is read
    once, and what is decoded is a batch.

    Raises:
        DataError: as `RowGroupReader.read`.
    """
    read: dict[int, pa.Table] = {}
    """The row group that was read last, by its number."""
    for pieces in _pieces(shard.row_group_rows, size):
        tables = []
        for group, first, stop in pieces:
            if group not in read:
                read.clear()
                read[group] = reader.read_packed(shard, group, columns)
            tables.append(reader.decoded(shard, group, read[group].slice(first, stop - first)))
        yield pa.concat_tables(tables).combine_chunks()


def _pieces(row_group_rows: Sequence[int], size: int) -> Iterator[list[tuple[int, int, int]]]:
    """Batches of `size` rows, each as (row group, first row, end row) of the row groups it is in."""
    pieces: list[tuple[int, int, int]] = []
    room = size
    for group, rows in enumerate(row_group_rows):
        first = 0
        while first < rows:
            stop = min(rows, first + room)
            pieces.append((group, first, stop))
            room -= stop - first
            first = stop
            if not room:
                yield pieces
                pieces, room = [], size
    if pieces:
        yield pieces
