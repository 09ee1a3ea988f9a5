"""Where samples of a step are stored: for people who look at what went wrong."""

from __future__ import annotations

import contextlib
from collections.abc import Collection
from dataclasses import dataclass

import numpy as np

from plinth.data.bad_rows import SAMPLE_ID
from plinth.data.plan import Cursor, global_batch
from plinth.data.shards import RowGroupReader
from plinth.data.sources import Mixture, Places
from plinth.errors import DataError


@dataclass(frozen=True)
class SampleLocation:
    """Where a sample is stored."""

    sample_id: str
    shard_uri: str
    row_group: int
    """Counted in the shard."""


def locate(mixture: Mixture, cursor: Cursor, sample_ids: Collection[str]) -> list[SampleLocation]:
    """Find samples of one global batch, in the order in which the batch has them.

    Reads the sample ids of the batch's row groups until all are found, so it takes seconds over S3. A
    sample that is not in the batch is left out, and so is one whose row group can no longer be read, unless
    its id is the place that stands for such a row.

    Raises:
        StorageError: the storage cannot be used.
    """
    sources, missing = mixture.sources, set(sample_ids)
    found = []
    places = [Places(source) for source in sources]
    readers = [RowGroupReader(source.storage) for source in sources]
    rows = np.unique(global_batch(mixture.plan, cursor)[:, :3], axis=0)
    for source, row_group in np.unique(rows[:, :2], axis=0).tolist():
        if not missing:
            break
        shard, group = places[source].find(row_group)
        inside = rows[(rows[:, 0] == source) & (rows[:, 1] == row_group), 2].tolist()
        ids = {places[source].id(row_group, row) for row in inside}
        if not ids & missing:
            with contextlib.suppress(DataError):
                stored = readers[source].read(shard, group, [SAMPLE_ID]).column(SAMPLE_ID).to_pylist()
                ids = {stored[row] for row in inside}
        uri = f"{sources[source].storage.uri}/{shard.name}"
        found += [SampleLocation(sample_id, uri, group) for sample_id in sorted(ids & missing)]
        missing -= ids
    return found
