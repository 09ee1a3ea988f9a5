"""What a job asks of storage, CPUs and memory while it streams: arithmetic on measured costs.

    views/s          GPUs x what one trains
    bytes/s          views/s x bytes of a view
    row groups/s     views/s / views of a row group
    requests/s       row groups/s x (ranges of a row group + the share whose footer is not at hand)
    cores            views/s x CPU seconds of a view, reading and decoding
    object store     ranks x what one reads ahead
    trainer          the windows that a rank's lanes hold open, and those read ahead, as they are stored
    plan, manifest   linear in row groups and in shards: every rank has the whole of both

A footer is kept by the process that has read it, the last `footers_kept` of them. Row groups come in an order
without locality, so one is at hand with the probability `footers_kept / shards`.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Costs:
    """What was measured on one machine."""

    cpu_s_per_view: float
    """Of all processes: reading, checking, decoding, putting into batches."""
    bytes_per_view: float
    footer_bytes: float
    """Of one shard."""
    ranges_per_row_group: float
    plan_s_per_row_group: float
    """CPU seconds until the first window of an epoch."""
    plan_bytes_per_row_group: float
    """Resident at its peak, with the pieces of two epochs kept."""
    manifest_bytes_per_shard: float
    """As a file."""
    manifest_s_per_shard: float
    """CPU seconds to read and check it."""


@dataclass(frozen=True)
class Layout:
    """How a data set is cut, and how it is read."""

    row_group_views: int
    shard_views: int
    window_row_groups: int
    lanes_per_rank: int
    prefetch_windows: int
    ahead_bytes: int
    """Of a rank, in the object store."""
    footers_kept: int
    """By one process that reads."""
    windows_per_task: int


@dataclass(frozen=True)
class Load:
    """What a job asks for."""

    views_per_s: float
    bytes_per_s: float
    requests_per_s: float
    footer_requests_per_s: float
    footer_bytes_per_s: float
    tasks_per_s: float
    cores: float
    object_store_bytes: float
    """Of all ranks, at most."""
    trainer_bytes: float
    """Of one rank, in windows that are open or ahead."""
    plan_s: float
    """Of every rank, at its start and in every epoch."""
    plan_bytes: float
    """Of every rank."""
    manifest_bytes: float
    manifest_s: float
    """Of every rank, at its start."""
    epoch_s: float


def footers_missing(shards: float, kept: int) -> float:
    """The share of row groups whose footer has to be fetched first, once the cache is full."""
    return max(0.0, 1 - kept / shards)


def requests_of_epoch(row_groups: int, shards: int, layout: Layout, ranges: float, ranks: int = 1) -> float:
    """Of an epoch from its start, with nothing at hand, read by one process a rank."""
    first = min(shards, layout.footers_kept)
    per_rank = row_groups / ranks
    footers = min(per_rank, first + max(0.0, per_rank - first) * footers_missing(shards, layout.footers_kept))
    return row_groups * ranges + ranks * footers


def load(gpus: int, views: int, views_per_s_per_gpu: float, layout: Layout, costs: Costs) -> Load:
    """Of a job in the middle of an epoch, one rank a GPU."""
    row_groups, shards = views / layout.row_group_views, views / layout.shard_views
    views_per_s = gpus * views_per_s_per_gpu
    row_groups_per_s = views_per_s / layout.row_group_views
    footers_per_s = row_groups_per_s * footers_missing(shards, layout.footers_kept)
    windows = layout.lanes_per_rank + layout.prefetch_windows
    row_group_bytes = layout.row_group_views * costs.bytes_per_view
    return Load(
        views_per_s=views_per_s,
        bytes_per_s=views_per_s * costs.bytes_per_view + footers_per_s * costs.footer_bytes,
        requests_per_s=row_groups_per_s * costs.ranges_per_row_group + footers_per_s,
        footer_requests_per_s=footers_per_s,
        footer_bytes_per_s=footers_per_s * costs.footer_bytes,
        tasks_per_s=row_groups_per_s / (layout.windows_per_task * layout.window_row_groups),
        cores=views_per_s * costs.cpu_s_per_view,
        object_store_bytes=gpus * layout.ahead_bytes,
        trainer_bytes=windows * layout.window_row_groups * row_group_bytes,
        plan_s=row_groups * costs.plan_s_per_row_group,
        plan_bytes=row_groups * costs.plan_bytes_per_row_group,
        manifest_bytes=shards * costs.manifest_bytes_per_shard,
        manifest_s=shards * costs.manifest_s_per_shard,
        epoch_s=views / views_per_s,
    )
