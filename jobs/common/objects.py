"""Small objects in storage: named by their content, read several at a time."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from plinth.digests import text_digest
from plinth.storage import Storage

NAME_BYTES = 12


REQUESTS = 16
"""Small objects that are read at a time."""


def digest(*parts: object) -> str:
    """Name of something by what it is made of (JSON types)."""
    return text_digest(json.dumps(parts, sort_keys=True), NAME_BYTES)


def names_in(storage: Storage, folder: str) -> set[str]:
    """Stems of the objects in a folder."""
    return {key.rsplit("/", 1)[-1].partition(".")[0] for key, _ in storage.list(folder)}


def write_table(storage: Storage, key: str, table: pa.Table) -> None:
    """A small Parquet object, the same bytes for the same rows."""
    sink = io.BytesIO()
    pq.write_table(table, sink, compression="zstd")
    storage.write(key, sink.getvalue())


def read_table(storage: Storage, key: str, columns: Sequence[str] | None = None) -> pa.Table:
    """A small Parquet object."""
    return pq.read_table(pa.BufferReader(storage.read(key)), columns=columns and list(columns))


def to_csv(kind: type[Any], rows: Iterable[object]) -> bytes:
    """Objects of a dataclass as CSV in UTF-8, a column per field; what is no Unicode as backslash escapes."""
    names = [each.name for each in fields(kind)]
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(names)
    writer.writerows([getattr(row, name) for name in names] for row in rows)
    return text.getvalue().encode(errors="backslashreplace")


def read_many(storage: Storage, keys: Sequence[str]) -> list[bytes]:
    """Several small objects, in order."""
    with ThreadPoolExecutor(REQUESTS) as pool:
        return list(pool.map(storage.read, keys))
