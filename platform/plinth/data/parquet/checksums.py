"""CRC-32 of every column chunk, in the footer of a shard, whose own hash the manifest knows.

Parquet has a CRC-32 for each page, and ours are written with it. But Arrow computes it byte by byte from
tables: checking a view takes as long as reading it. libdeflate's takes a tenth of that.

    footer   plinth.crc32 = base64 of uint32 little-endian [row groups, leaf columns]
"""

from __future__ import annotations

import base64
import io
from typing import Any

import imagecodecs
import numpy as np
import pyarrow.parquet as pq

KEY = b"plinth.crc32"


def of_chunks(content: bytes) -> dict[bytes, bytes]:
    """The footer's entry for a whole Parquet file."""
    metadata = pq.read_metadata(io.BytesIO(content))
    view = memoryview(content)
    sums = np.empty((metadata.num_row_groups, metadata.num_columns), "<u4")
    for row_group in range(metadata.num_row_groups):
        for column in range(metadata.num_columns):
            start, stop = chunk_range(metadata.row_group(row_group).column(column))
            sums[row_group, column] = crc32(view[start:stop])
    return {KEY: base64.b64encode(sums.tobytes())}


def from_footer(footer: pq.FileMetaData) -> np.ndarray | None:
    """uint32 [row groups, leaf columns]; None for a shard of before they were written.

    Raises:
        ValueError: not as many as the file has chunks.
    """
    text = (footer.metadata or {}).get(KEY)
    if text is None:
        return None
    return np.frombuffer(base64.b64decode(text), "<u4").reshape(footer.num_row_groups, footer.num_columns)


def chunk_range(chunk: pq.ColumnChunkMetaData) -> tuple[int, int]:
    """Where the bytes of a column chunk begin and end in the file."""
    start = chunk.dictionary_page_offset or chunk.data_page_offset
    return start, start + chunk.total_compressed_size


def crc32(content: Any) -> int:
    """Of bytes or a view of them. Lets other threads run meanwhile."""
    return int(imagecodecs.deflate_crc32(content))
