"""An epoch read for real by 1 and 2 ranks, in plan order, with requests and bytes counted."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from benchmarks.streaming.ours import BATCH, COLUMNS, LANES, WINDOW_ROW_GROUPS
from plinth.data.bad_rows import SAMPLE_ID
from plinth.data.config import DataConfig
from plinth.data.plan import Cursor, rank_windows
from plinth.data.shards import RowGroupReader
from plinth.data.sources import OpenSource, Places, mix
from plinth.storage import Storage
from plinth.world import World


@dataclass(frozen=True)
class Counted:
    """What an epoch asked of the store."""

    row_groups: int
    ranges: int
    """Requests for row groups."""
    footers: int
    bytes: int

    @property
    def requests(self) -> int:
        """All of them."""
        return self.ranges + self.footers


class CountingStorage(Storage):
    """Counts ranges, and tells those that end with their shard from the others."""

    def __init__(self, of: Storage, counts: Counter[str]) -> None:
        super().__init__(of.protocol, of.root, of.options)
        self.counts = counts

    def read_range(self, key: str, start: int, stop: int) -> bytes:
        """As the storage does."""
        content = super().read_range(key, start, stop)
        self.counts["requests"] += 1
        self.counts["bytes"] += len(content)
        return content


def count_epoch(source: OpenSource, ranks: int, footers_kept: int) -> Counted:
    """One process a rank would read so; here one after the other."""
    config = DataConfig(lanes=LANES, window_row_groups=WINDOW_ROW_GROUPS)
    plan = mix(config, [source], 0, BATCH).plan
    places = Places(source)
    counts: Counter[str] = Counter()
    row_groups = 0
    for rank in range(ranks):
        storage = CountingStorage(source.storage, counts)
        reader = RowGroupReader(storage, max_footers=footers_kept)
        for window in rank_windows(plan, World(rank, ranks), Cursor()):
            if window.epoch:
                break
            for _, group, _, _ in window.pieces:
                shard, number = places.find(int(group))
                before = counts["requests"]
                reader.schema(shard, [SAMPLE_ID])
                counts["footers"] += counts["requests"] - before
                reader.read_packed(shard, number, [SAMPLE_ID, *COLUMNS])
                row_groups += 1
    return Counted(row_groups, counts["requests"] - counts["footers"], counts["footers"], counts["bytes"])
