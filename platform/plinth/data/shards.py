"""Shards: Parquet files of one row group per handful of rows, read by ranges.

Parquet is told what these columns are: no dictionary and no statistics (neither helps on depth or
embeddings), zstd where bytes repeat, nothing where they do not or where a column comes packed
(`plinth.data.frames`), a checksum on every page. A reader fetches the wanted columns of a row group with one
range request, compares their checksums (`plinth.data.parquet.checksums`) and decodes only those.
"""

from __future__ import annotations

import fnmatch
import hashlib
import io
import logging
import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.parquet as pq

from plinth.data import frames
from plinth.data.config import ShardOptions
from plinth.data.manifest import SHARD_FOLDER, Manifest, ShardEntry
from plinth.data.parquet import checksums
from plinth.data.parquet.fetched_ranges import FetchedRanges
from plinth.errors import DataError
from plinth.storage import MissingKeyError, Storage

log = logging.getLogger(__name__)

FOOTER_TRAILER_BYTES = 8  # length of the footer and the magic number
PAGE_BYTES = 1 << 20
# A gap of unwanted bytes up to this size is cheaper to fetch than a second request.
MAX_GAP_BYTES = 1 << 20
HASH_BLOCK_BYTES = 64 << 20
NAME_HASH_CHARACTERS = 16
MEND = "Restore the object or build the data set again; data.on_bad_shard=skip trains without these rows."


def write_shard(
    storage: Storage, name: str, table: pa.Table, options: ShardOptions | None = None
) -> ShardEntry:
    """Write `table` as one shard and return its entry for the manifest.

    The key is made of `name` and a hash of the content: writing the same rows again changes nothing,
    writing others leaves the shard of the current manifest alone.

    Args:
        name: stem such as train-00003.
    """
    options = options or ShardOptions()
    options.validate()
    if table.num_rows == 0:
        raise DataError(f"shard {name} has no rows.", "Leave empty shards out.")
    columns = describe_columns(table.schema)
    table = frames.pack(table, options)
    codecs = frames.codecs(table.schema)
    zstd = {
        name: name not in codecs and not any(fnmatch.fnmatch(name, p) for p in options.uncompressed)
        for name in table.schema.names
    }
    without_sums = _parquet(table, zstd, options, {})  # the sums are known once the bytes are
    content = _parquet(table, zstd, options, checksums.of_chunks(without_sums))
    digest = hashlib.sha256(content).hexdigest()
    key = f"{SHARD_FOLDER}/{name}-{digest[:NAME_HASH_CHARACTERS]}.parquet"
    storage.write(key, content)
    metadata = pq.read_metadata(io.BytesIO(content))
    footer_bytes = metadata.serialized_size + FOOTER_TRAILER_BYTES
    return ShardEntry(
        name=key,
        rows=table.num_rows,
        size_bytes=len(content),
        sha256=digest,
        row_group_rows=[metadata.row_group(i).num_rows for i in range(metadata.num_row_groups)],
        footer_bytes=footer_bytes,
        footer_sha256=hashlib.sha256(content[-footer_bytes:]).hexdigest(),
        codecs=codecs,
        columns=columns,
    )


def _parquet(
    table: pa.Table, zstd: Mapping[str, bool], options: ShardOptions, metadata: Mapping[bytes, bytes]
) -> bytes:
    """The table as a Parquet file with `metadata` in its footer, which change no byte before it.

    Args:
        zstd: column -> whether Parquet compresses it.
    """
    leaves = {path: zstd[path.split(".")[0]] for path in _leaf_paths(table.schema)}
    sink = io.BytesIO()
    with pq.ParquetWriter(
        sink,
        table.schema,
        compression={path: "zstd" if is_zstd else "none" for path, is_zstd in leaves.items()},
        compression_level={path: options.zstd_level for path, is_zstd in leaves.items() if is_zstd},
        use_dictionary=False,
        write_statistics=False,
        write_page_checksum=True,
        data_page_size=PAGE_BYTES,
    ) as writer:
        writer.write_table(table, options.row_group_rows)
        if metadata:
            writer.add_key_value_metadata(metadata)
    return sink.getvalue()


def describe_columns(schema: pa.Schema) -> dict[str, str]:
    """Column name -> type and metadata in words, to compare schemas by; packed columns as once decoded."""
    described = {}
    for stored in schema:
        f = frames.unpacked_field(stored) if frames.is_packed(stored) else stored
        metadata = {
            k.decode(): v.decode() for k, v in (f.metadata or {}).items() if not k.startswith(b"PARQUET:")
        }
        kind = str(f.type).replace("<item: ", "<element: ")  # Arrow's name of it, and Parquet's
        described[f.name] = " ".join([kind, *(f"{k}={v}" for k, v in sorted(metadata.items()))])
    return described


class AlteredError(DataError):
    """Bytes of a shard that are not what was written."""


class RowGroupReader:
    """Reads row groups of the shards of one data set. Safe to use from several threads.

    Args:
        max_footers: how many parsed footers are kept; one is about 10 KB per row group.
    """

    def __init__(self, storage: Storage, max_footers: int = 1024) -> None:
        self.storage = storage
        self._max_footers = max_footers
        self._footers: OrderedDict[str, pq.FileMetaData] = OrderedDict()
        self._lock = threading.Lock()

    def read(self, shard: ShardEntry, row_group: int, columns: Sequence[str]) -> pa.Table:
        """The wanted columns of a row group, in the order asked for, each in one chunk, decoded.

        Raises:
            DataError: as `read_packed`, or a frame of a packed column cannot be decoded; names row and view.
        """
        return self.decoded(shard, row_group, self.read_packed(shard, row_group, columns))

    def decoded(self, shard: ShardEntry, row_group: int, packed: pa.Table) -> pa.Table:
        """Rows of what `read_packed` gave, decoded; raises DataError as `read` does."""
        try:
            return frames.unpack(packed)
        except frames.FrameError as error:
            raise DataError(f"{self._where(shard, row_group)}, {error}.", MEND) from error

    def fetch(
        self, shard: ShardEntry, row_groups: Sequence[int], columns: Sequence[str]
    ) -> FetchedRanges | None:
        """The bytes of neighbouring row groups, with one request where no gap between them is large.

        Returns:
            For `read_packed`; None where they cannot be had, which reading each by itself will explain.
        """
        try:
            footer = self._footer(shard)
            chunks = [c for g in row_groups for c in _chunks(footer.row_group(g), set(columns)).values()]
            return self._fetch_ranges(shard, chunks, f"{self.storage.uri}/{shard.name}")
        except DataError:
            return None

    def read_packed(
        self,
        shard: ShardEntry,
        row_group: int,
        columns: Sequence[str],
        fetched: FetchedRanges | None = None,
    ) -> pa.Table:
        """As `read`, with the packed columns as they are stored.

        Bytes that are not what was written are fetched once more: what was altered on its way is whole in
        the store.

        Args:
            fetched: its bytes, where they are at hand.

        Raises:
            DataError: naming the shard and the row group, where the object is missing, truncated or
                altered, or lacks a column.
        """
        where = self._where(shard, row_group)
        missing = [name for name in columns if name not in shard.columns]
        if missing:
            raise DataError(
                f"{where}: no column {', '.join(missing)}; there are {', '.join(shard.columns)}.",
                "Ask for columns that the data set has, or build it with them.",
            )
        try:
            return self._read(shard, row_group, columns, where, fetched)
        except AlteredError as error:
            log.warning("%s Reading it again.", error.problem)
        with self._lock:
            self._footers.pop(shard.name, None)
        return self._read(shard, row_group, columns, where)

    def _where(self, shard: ShardEntry, row_group: int) -> str:
        return f"{self.storage.uri}/{shard.name}, row group {row_group}"

    def _fetch_ranges(
        self, shard: ShardEntry, chunks: Sequence[tuple[int, int]], where: str
    ) -> FetchedRanges:
        fetched = FetchedRanges(shard.size_bytes)
        for start, stop in _ranges(chunks):
            if not 0 <= start <= stop <= shard.size_bytes:
                raise AlteredError(f"{where}: its footer points outside the shard.", MEND)
            fetched.add(start, self._fetch(shard, start, stop, where))
        return fetched

    def _read(
        self,
        shard: ShardEntry,
        row_group: int,
        columns: Sequence[str],
        where: str,
        fetched: FetchedRanges | None = None,
    ) -> pa.Table:
        footer = self._footer(shard)
        chunks = _chunks(footer.row_group(row_group), set(columns))
        fetched = fetched or self._fetch_ranges(shard, list(chunks.values()), where)
        expected = checksums.from_footer(footer)
        if expected is not None:
            for column, (start, stop) in chunks.items():
                if checksums.crc32(fetched.view(start, stop)) != expected[row_group, column]:
                    name = footer.schema.column(column).path.split(".")[0]
                    raise AlteredError(f"{where}: cannot be decoded (checksum of column {name}).", MEND)
        try:
            file = pq.ParquetFile(
                pa.PythonFile(fetched, mode="r"),
                metadata=footer,
                page_checksum_verification=expected is None,
                pre_buffer=False,
            )
            table = file.read_row_group(row_group, columns=list(columns), use_threads=False)
        except (pa.ArrowException, OSError, ValueError) as error:
            raise _altered(where, error) from error
        if table.num_rows != shard.row_group_rows[row_group]:
            raise AlteredError(
                f"{where}: {table.num_rows} rows, the manifest says {shard.row_group_rows[row_group]}.",
                MEND,
            )
        return table.select(list(columns)).replace_schema_metadata(None).combine_chunks()

    def schema(self, shard: ShardEntry, columns: Sequence[str]) -> pa.Schema:
        """The schema of what `read_packed` gives.

        Raises:
            DataError: the shard's footer cannot be read.
        """
        schema = self._footer(shard).schema.to_arrow_schema()
        return pa.schema([schema.field(name) for name in columns])

    def read_shard(self, shard: ShardEntry, columns: Sequence[str] | None = None) -> pa.Table:
        """All rows of a shard, for tools rather than training; every column when `columns` is None."""
        wanted = list(shard.columns) if columns is None else list(columns)
        groups = range(len(shard.row_group_rows))
        return pa.concat_tables([self.read(shard, group, wanted) for group in groups])

    def _footer(self, shard: ShardEntry) -> pq.FileMetaData:
        with self._lock:
            footer = self._footers.get(shard.name)
            if footer is not None:
                self._footers.move_to_end(shard.name)
                return footer
        where = f"{self.storage.uri}/{shard.name}, footer"
        content = self._fetch(shard, shard.size_bytes - shard.footer_bytes, shard.size_bytes, where)
        if hashlib.sha256(content).hexdigest() != shard.footer_sha256:
            raise AlteredError(  # found here, because Arrow may abort the process on a broken footer
                f"{where}: cannot be decoded (its SHA-256 differs from the manifest's).",
                MEND,
            )
        try:
            footer = pq.read_metadata(pa.BufferReader(content))
        except (pa.ArrowException, OSError, ValueError) as error:
            raise _altered(where, error) from error
        groups = [footer.row_group(i).num_rows for i in range(footer.num_row_groups)]
        if groups != shard.row_group_rows:
            raise AlteredError(
                f"{where}: row groups of {groups} rows, the manifest says {shard.row_group_rows}.",
                MEND,
            )
        with self._lock:
            self._footers[shard.name] = footer
            while len(self._footers) > self._max_footers:
                self._footers.popitem(last=False)
        return footer

    def _fetch(self, shard: ShardEntry, start: int, stop: int, where: str) -> bytes:
        try:
            content = self.storage.read_range(shard.name, start, stop)
        except MissingKeyError as error:
            raise DataError(f"{where}: the shard is missing.", MEND) from error
        if len(content) != stop - start:
            raise DataError(
                f"{where}: truncated: {len(content)} of {stop - start} bytes at offset {start}.",
                MEND,
            )
        return content


@dataclass(frozen=True)
class Problem:
    """A shard that is not what the manifest says."""

    shard: str
    kind: str
    """missing, truncated or altered."""
    detail: str

    def __str__(self) -> str:
        return f"{self.shard}: {self.kind} ({self.detail})"


def verify(storage: Storage, manifest: Manifest) -> list[Problem]:
    """Read every shard and compare it with the manifest; empty when all is well."""
    problems = []
    for shard in manifest.shards:
        try:
            size: int | None = storage.size(shard.name)
        except MissingKeyError:
            size = None
        problem = _wrong_size(shard, size)
        if problem is not None:
            problems.append(problem)
            continue
        digest = hashlib.sha256()
        for start in range(0, shard.size_bytes, HASH_BLOCK_BYTES):
            stop = min(shard.size_bytes, start + HASH_BLOCK_BYTES)
            digest.update(storage.read_range(shard.name, start, stop))
        if digest.hexdigest() != shard.sha256:
            problems.append(Problem(shard.name, "altered", "its SHA-256 differs from the manifest's"))
    return problems


def refuse_incomplete(storage: Storage, manifest: Manifest, fix: str) -> None:
    """Before a command says that a data set is done: its shards are there, by name and size, in one listing.

    Args:
        fix: what to do where they are not.

    Raises:
        DataError: shards are missing or of another size; says how many and names the first.
    """
    sizes = dict(storage.list(SHARD_FOLDER))
    found = [_wrong_size(shard, sizes.get(shard.name)) for shard in manifest.shards]
    problems = [problem for problem in found if problem is not None]
    if problems:
        count = f"{len(problems)} of {len(manifest.shards)} shards are damaged"
        raise DataError(f"{storage.uri}: {count}, the first is {problems[0]}.", fix)


def _wrong_size(shard: ShardEntry, size: int | None) -> Problem | None:
    """What the size of a shard tells, None for one that is not there; None when it is right."""
    if size is None:
        return Problem(shard.name, "missing", f"expected {shard.size_bytes} bytes")
    if size == shard.size_bytes:
        return None
    kind = "truncated" if size < shard.size_bytes else "altered"
    return Problem(shard.name, kind, f"{size} bytes, expected {shard.size_bytes}")


def _chunks(group: pq.RowGroupMetaData, columns: set[str]) -> dict[int, tuple[int, int]]:
    """Leaf column -> byte range of its chunk, of the wanted columns."""
    found = {}
    for i in range(group.num_columns):
        chunk = group.column(i)
        if chunk.path_in_schema.split(".")[0] in columns:
            found[i] = checksums.chunk_range(chunk)
    return found


def _ranges(chunks: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """Byte ranges to fetch: those of the chunks, neighbours and near neighbours joined."""
    ranges: list[tuple[int, int]] = []
    for start, stop in sorted(chunks):
        if ranges and start - ranges[-1][1] <= MAX_GAP_BYTES:
            ranges[-1] = (ranges[-1][0], max(stop, ranges[-1][1]))
        else:
            ranges.append((start, stop))
    return ranges


def _leaf_paths(schema: pa.Schema) -> list[str]:
    """Paths of the Parquet leaf columns, as the writer's per-column options name them."""
    sink = io.BytesIO()
    pq.write_table(schema.empty_table(), sink)
    parquet = pq.read_metadata(sink).schema
    return [parquet.column(i).path for i in range(len(parquet))]


def _altered(where: str, error: Exception) -> AlteredError:
    reason = str(error).splitlines()[0] if str(error) else type(error).__name__
    return AlteredError(f"{where}: cannot be decoded ({reason}).", MEND)
