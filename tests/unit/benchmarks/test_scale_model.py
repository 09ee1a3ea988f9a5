"""The arithmetic of `benchmarks.scale` against an epoch that is read and counted."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.scale.counted import count_epoch
from benchmarks.scale.model import Costs, Layout, footers_missing, load, requests_of_epoch
from benchmarks.streaming import content
from plinth.data.config import Codec
from plinth.data.sources import OpenSource, open_source
from plinth.storage import Storage, StorageOptions

COSTS = Costs(
    cpu_s_per_view=2e-4, bytes_per_view=20_000, footer_bytes=10_000, ranges_per_row_group=1.0,
    plan_s_per_row_group=1e-6, plan_bytes_per_row_group=160, manifest_bytes_per_shard=500,
    manifest_s_per_shard=1e-5,
)  # fmt: skip
LAYOUT = Layout(
    row_group_views=64, shard_views=512, window_row_groups=4, lanes_per_rank=1, prefetch_windows=4,
    ahead_bytes=256 << 20, footers_kept=1024, windows_per_task=4,
)  # fmt: skip


def test_a_job_of_8_gpus_by_hand() -> None:
    found = load(8, 512_000, 400.0, LAYOUT, COSTS)
    assert found.views_per_s == 3200
    assert found.cores == pytest.approx(0.64)
    assert found.requests_per_s == pytest.approx(50)  # 1,000 shards: all footers are at hand
    assert found.footer_requests_per_s == 0
    assert found.bytes_per_s == pytest.approx(64e6)
    assert found.tasks_per_s == pytest.approx(50 / 16)
    assert found.object_store_bytes == 8 * (256 << 20)
    assert found.trainer_bytes == pytest.approx(5 * 4 * 64 * 20_000)
    assert found.plan_s == pytest.approx(0.008)
    assert found.epoch_s == pytest.approx(160)


def test_footers_come_again_in_large_data_sets() -> None:
    assert footers_missing(shards=1000, kept=1024) == 0
    assert footers_missing(shards=10_240, kept=1024) == pytest.approx(0.9)
    small, large = (load(8, views, 400.0, LAYOUT, COSTS) for views in (512_000, 512_000_000))
    assert large.requests_per_s == pytest.approx(2 * small.requests_per_s, rel=0.01)
    assert large.bytes_per_s > small.bytes_per_s


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> OpenSource:
    """512 views in 32 row groups of 16 shards."""
    folder: Path = tmp_path_factory.mktemp("scale")
    depth = content.made_depth(4)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(content, "SHARD_VIEWS", 32)
        patch.setattr(content, "ROW_GROUP_VIEWS", 16)
        _, frames = content.make_data_sets(Storage.from_uri(folder), depth, 512, Codec.lz4)
    return open_source(frames.storage.uri, StorageOptions())


@pytest.mark.slow
@pytest.mark.parametrize("ranks", [1, 2])
@pytest.mark.parametrize("kept", [2, 1024])
def test_requests_are_those_that_are_counted(source: OpenSource, ranks: int, kept: int) -> None:
    counted = count_epoch(source, ranks, kept)
    layout = replace(LAYOUT, shard_views=32, footers_kept=kept)
    ranges = counted.ranges / counted.row_groups
    expected = requests_of_epoch(counted.row_groups, 16, layout, ranges, ranks)
    assert counted.requests == pytest.approx(expected, rel=0.2)
    stored = sum(shard.size_bytes for shard in source.manifest.shards)
    assert 0.8 * stored < counted.bytes < 1.6 * stored
