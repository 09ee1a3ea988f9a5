"""Opened data sets: storage + manifest + weight, checked against each other and put in their order."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from plinth.data import frames
from plinth.data import manifest as manifests
from plinth.data.bad_rows import PROBLEM, SAMPLE_ID, place_id, stand_in, with_no_problem
from plinth.data.config import DataConfig, OnBadShard, validate
from plinth.data.manifest import Manifest, ShardEntry, differing_columns
from plinth.data.parquet.fetched_ranges import FetchedRanges
from plinth.data.plan import Plan, SourceRows, make_plan
from plinth.data.shards import MEND, RowGroupReader
from plinth.errors import DataError
from plinth.storage import Storage, StorageOptions

AGREEING_ATTRIBUTES = ("schema_version", "teacher")
"""Attributes of the manifests that must be equal in all data sets of a mixture."""


@dataclass(frozen=True)
class OpenSource:
    """A data set that is there: its manifest has been read."""

    storage: Storage
    manifest: Manifest
    weight: float = 1.0
    version: int | None = None
    """The version that was asked for; None for the newest."""

    @property
    def uri(self) -> str:
        """Where it is, with the version that was asked for."""
        return manifests.with_version(self.storage.uri, self.version)


@dataclass(frozen=True)
class Mixture:
    """The data sets of a stage, opened once by the driver, and the order in which all ranks read them."""

    config: DataConfig
    sources: tuple[OpenSource, ...]
    plan: Plan


def mix(config: DataConfig, sources: Sequence[OpenSource], seed: int, global_batch_size: int) -> Mixture:
    """Opened data sets in the order of the job.

    Raises:
        DataError: see `make_plan`.
    """
    rows = [
        SourceRows(
            np.array([n for shard in s.manifest.shards for n in shard.row_group_rows], np.int64),
            s.weight,
            s.storage.uri,
            s.manifest.hash,
        )
        for s in sources
    ]
    plan = make_plan(rows, config.lanes, config.window_row_groups, global_batch_size, seed)
    return Mixture(config, tuple(sources), plan)


def open_sources(config: DataConfig, options: StorageOptions) -> list[OpenSource]:
    """Read the manifest of every data set of the job.

    Raises:
        ConfigError: see `plinth.data.config.validate`.
        DataError: one is no finished data set, or lacks the version that is named.
        StorageError: the storage cannot be used.
    """
    validate(config)
    return [open_source(source.uri, options, source.weight) for source in config.sources]


def open_source(uri: str, options: StorageOptions, weight: float = 1.0) -> OpenSource:
    """The data set at `uri`: the version that it names (`images#3`), else the newest.

    Raises:
        DataError: no finished data set, or no such version.
        StorageError: the storage cannot be used.
    """
    folder, version = manifests.split_version(uri)
    storage = Storage.from_uri(folder, options)
    return OpenSource(storage, manifests.load_version(storage, version), weight, version)


def check_unchanged(sources: Sequence[OpenSource]) -> None:
    """Refuse to read a data set that was built again after `sources` were opened, elsewhere or earlier.

    A worker starts minutes or days after the driver opened the data sets: a restart after a lost machine must
    read what the run has read so far.

    Raises:
        DataError: naming the data set.
    """
    for source in sources:
        if manifests.load_version(source.storage, source.version).hash != source.manifest.hash:
            raise DataError(
                f"{source.uri} was built again while the run was under way: it is another data set now.",
                "Bring the old one back, or give the command again: it says what changed.",
            )


def check_sources(sources: Sequence[OpenSource], columns: Sequence[str]) -> None:
    """Refuse data sets that cannot be read or mixed.

    Args:
        columns: those that will be read, without the sample id.

    Raises:
        DataError: an empty data set, a missing column, columns of different types or shapes, or
            manifests that name different teachers or schema versions.
    """
    if not sources:
        raise DataError("There is no data source.", "List at least one under data.sources.")
    for source in sources:
        name = source.storage.uri
        if source.manifest.rows == 0:
            raise DataError(f"The data set {name} has no samples.", "Build it again or leave it out.")
        missing = [c for c in (SAMPLE_ID, *columns) if c not in source.manifest.columns]
        if missing:
            raise DataError(
                f"The data set {name} has no column {', '.join(missing)}; "
                f"there are {', '.join(source.manifest.columns)}.",
                "Build or extend it with the columns that this job reads.",
            )
    first = sources[0]
    for other in sources[1:]:
        pair = f"The data sets {first.storage.uri} and {other.storage.uri}"
        wanted = [{c: s.manifest.columns[c] for c in columns} for s in (first, other)]
        if wanted[0] != wanted[1]:
            raise DataError(
                f"{pair} differ in {differing_columns(*wanted)}.",
                "Only equal shapes can be mixed in a batch.",
            )
        for key in AGREEING_ATTRIBUTES:
            a, b = (s.manifest.attributes.get(key) for s in (first, other))
            if a != b:
                raise DataError(
                    f"{pair} have different {key}: {a} and {b}.",
                    "Build one of them again to match the other.",
                )


class PieceReader:
    """Reads pieces of row groups as the plan names them. Safe to use from several threads.

    Args:
        columns: which to read besides the sample id.
        on_bad_shard: with `skip`, a row group that cannot be read becomes a stand-in (`bad_rows`).
        decode: whether packed columns are decoded, or left to who puts them into batches.
    """

    def __init__(
        self,
        sources: Sequence[OpenSource],
        columns: Sequence[str],
        on_bad_shard: OnBadShard,
        decode: bool = False,
    ) -> None:
        self._decodes = decode
        self._columns = [SAMPLE_ID, *columns]
        self._skips_bad = on_bad_shard is OnBadShard.skip
        self._sources = list(sources)
        self._readers = [RowGroupReader(source.storage) for source in sources]
        self._places = [Places(source) for source in sources]

    def read_run(self, pieces: np.ndarray) -> list[pa.Table]:
        """The rows of each piece; one request for those whose row groups are next to each other in a shard.

        Args:
            pieces: int64 [n, 4] of source, row group in the source, first row, end row; row groups in
                ascending order, each the same as the one before or the next.

        Raises:
            DataError: a row group cannot be read, and bad ones are not skipped.
        """
        source = int(pieces[0, 0])
        in_shards: dict[str, tuple[ShardEntry, list[int]]] = {}
        for row_group in pieces[:, 1].tolist():
            shard, group = self._places[source].find(row_group)
            in_shards.setdefault(shard.name, (shard, []))[1].append(group)
        fetched = {
            shard.name: self._readers[source].fetch(shard, groups, self._columns)
            for shard, groups in in_shards.values()
            if len(groups) > 1
        }
        return [self._read(piece, fetched) for piece in pieces]

    def _read(self, piece: np.ndarray, fetched: Mapping[str, FetchedRanges | None]) -> pa.Table:
        source, row_group, start, stop = (int(x) for x in piece)
        shard, group = self._places[source].find(row_group)
        try:
            table = self._readers[source].read_packed(shard, group, self._columns, fetched.get(shard.name))
        except DataError as error:
            if not self._skips_bad:
                raise
            ids = [self._places[source].id(row_group, row) for row in range(start, stop)]
            table = stand_in(self._schema(source, error), ids, error.problem)
        else:
            table = table.slice(start, stop - start)
            table = with_no_problem(table) if self._skips_bad else table
        return self._decoded(table, piece) if self._decodes else table

    def _decoded(self, table: pa.Table, piece: np.ndarray) -> pa.Table:
        source, row_group, start, _ = (int(x) for x in piece)
        found = [""] * len(table)
        if PROBLEM in table.schema.names:
            found = [text or "" for text in table.column(PROBLEM).to_pylist()]
        already = list(found)
        table = frames.unpack(table, found)
        for row, text in enumerate(found):
            if text == already[row]:
                continue
            found[row] = bad_frame(self._places[source], row_group, start + row, text)
            if not self._skips_bad:
                raise DataError(found[row], MEND)
        if found != already:
            column = pa.array([text or None for text in found], pa.string())
            table = table.set_column(table.schema.get_field_index(PROBLEM), PROBLEM, column)
        return table

    def _schema(self, source: int, error: DataError) -> pa.Schema:
        """The schema of what is read from a source, from its first readable shard."""
        for shard in self._sources[source].manifest.shards:
            with contextlib.suppress(DataError):
                return self._readers[source].schema(shard, self._columns)
        raise error


def bad_frame(places: Places, row_group: int, row: int, problem: str) -> str:
    """What to say of a row whose frames cannot be decoded.

    Args:
        row: counts from the row group's start.
        problem: names view and column.
    """
    return f"{places.where(row_group)}, row {row}, {problem}."


class Places:
    """Where the row groups of a data set are, counted over all its shards."""

    def __init__(self, source: OpenSource) -> None:
        self._uri = source.storage.uri
        self._shards = source.manifest.shards
        counts = [len(shard.row_group_rows) for shard in self._shards]
        self._first_groups = np.cumsum([0, *counts[:-1]])

    def find(self, row_group: int) -> tuple[ShardEntry, int]:
        """Its shard, and its number in there."""
        shard = int(np.searchsorted(self._first_groups, row_group, side="right")) - 1
        return self._shards[shard], row_group - int(self._first_groups[shard])

    def where(self, row_group: int) -> str:
        """Its shard and its number in there, in words."""
        shard, group = self.find(row_group)
        return f"{self._uri}/{shard.name}, row group {group}"

    def id(self, row_group: int, row: int) -> str:
        """Stands for the sample id of a row that cannot be read."""
        shard, group = self.find(row_group)
        return place_id(self._uri, shard.name, group, row)
