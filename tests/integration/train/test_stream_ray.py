"""Ray Data hands over the same rows in the same order as threads do, whatever the size of the world."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
import ray
import torch
from ray._private import internal_api
from ray.data._internal.stats import STATS_ACTOR_NAME, STATS_ACTOR_NAMESPACE
from ray.util.placement_group import placement_group, remove_placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from plinth.data.assemble import LocalBatch
from plinth.data.bad_rows import Skips
from plinth.data.batches import open_batches
from plinth.data.config import DataConfig, DecodePlace, OnBadShard, ReaderKind
from plinth.data.plan import Cursor
from plinth.data.sources import OpenSource, mix
from plinth.errors import DataError
from plinth.world import World
from tests.helpers.datasets import (
    COLUMNS,
    GLOBAL_BATCH,
    SEED,
    SHAPES,
    damage,
    decode,
    make_data_set,
    take,
    take_portable,
    with_bad_frame,
)

pytestmark = pytest.mark.slow

STEPS = 14  # three epochs
# Segments of six windows: several executions, each over the end of an epoch.
SMALL = DataConfig(
    lanes=4, window_row_groups=2, reader=ReaderKind.ray, ray_windows_per_task=2, ray_tasks_per_segment=3
)
THREADS = replace(SMALL, reader=ReaderKind.threads)


@pytest.fixture(scope="module", autouse=True)
def local_ray() -> Iterator[None]:
    """A Ray of two CPUs for this module alone."""
    ray.init(
        address="local",
        num_cpus=2,
        object_store_memory=256 << 20,
        log_to_driver=False,
        include_dashboard=False,
    )
    yield
    ray.shutdown()


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> list[OpenSource]:
    folder = tmp_path_factory.mktemp("data")
    return [
        make_data_set(folder / "a"),
        make_data_set(folder / "b", (7, 8), row_group_rows=5, name="other", weight=0.5),
    ]


def assert_equal(ranks: list[list[LocalBatch]], expected: list[LocalBatch]) -> None:
    """The ranks' parts, side by side, are the batches of one process."""
    for step, whole in enumerate(expected):
        parts = [rank[step] for rank in ranks]
        assert [i for part in parts for i in part.sample_ids] == whole.sample_ids
        assert {part.cursor for part in parts} == {whole.cursor}
        for name in (*COLUMNS, "sample_valid", "sample_key", "epoch"):
            got = torch.cat([part.tensors[name] for part in parts])
            assert torch.equal(got, whole.tensors[name].view(got.dtype)), name


def test_order_is_the_same_for_one_and_four_consumers_and_after_a_resume(sources: list[OpenSource]) -> None:
    expected = take(sources, THREADS, World(0, 1), Cursor(), STEPS)
    assert {batch.cursor.epoch for batch in expected} >= {0, 1, 2}
    assert_equal([take(sources, SMALL, World(0, 1), Cursor(), STEPS)], expected)
    cut = 5
    start = expected[cut].next_cursor
    ranks = [take(sources, SMALL, World(r, 4), start, 4) for r in range(4)]
    assert_equal(ranks, expected[cut + 1 : cut + 5])


@pytest.mark.parametrize(("workers", "kind"), [(1, "ray"), (2, "threads")])
def test_auto_leaves_the_cpus_to_the_workers(
    sources: list[OpenSource], workers: int, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "plinth.data.batches")
    auto, world = replace(SMALL, reader=ReaderKind.auto), World(0, workers)
    assert_equal([take(sources, auto, world, Cursor(), 2)], take(sources, THREADS, world, Cursor(), 2))
    assert f"reading by {kind}: 2 CPUs for " in caplog.text


def test_reading_starts_no_actor_for_a_dashboard_that_is_not_there(sources: list[OpenSource]) -> None:
    take(sources, SMALL, World(0, 1), Cursor(), 1)
    with pytest.raises(ValueError, match="datasets_stats_actor"):
        ray.get_actor(STATS_ACTOR_NAME, STATS_ACTOR_NAMESPACE)


def test_ray_data_reads_while_workers_hold_every_cpu(sources: list[OpenSource]) -> None:
    """As under Ray Train: a placement group holds all CPUs, and both ranks read at once beside it."""
    group = placement_group([{"CPU": 1}] * 2)
    strategy = PlacementGroupSchedulingStrategy(group, placement_group_capture_child_tasks=True)
    worker = ray.remote(num_cpus=1, scheduling_strategy=strategy)(take_portable)
    consumers = [worker.remote(sources, SMALL, World(rank, 2), Cursor(), STEPS) for rank in range(2)]
    ranks = ray.get(consumers, timeout=180)
    assert_equal(ranks, take(sources, THREADS, World(0, 1), Cursor(), STEPS))
    remove_placement_group(group)


def test_killed_readers_do_not_change_the_order(sources: list[OpenSource]) -> None:
    expected = take(sources, THREADS, World(0, 1), Cursor(), STEPS)
    got, killed = [], 0
    mixture = mix(SMALL, sources, SEED, GLOBAL_BATCH)
    with open_batches(mixture, World(0, 1), Cursor(), COLUMNS, decode) as batches:
        for step in range(STEPS):
            got.append(next(batches))
            if step % 5 == 0:
                readers = [p for p in psutil.Process().children(recursive=True) if is_reader(p)]
                for process in readers:
                    process.kill()
                killed += len(readers)
    assert killed
    assert_equal([got], expected)


def is_reader(process: psutil.Process) -> bool:
    """Whether this is a worker of our Ray that runs read tasks, or waits for one."""
    with contextlib.suppress(psutil.Error):
        return process.name().startswith(("ray::ReadWindows", "ray::IDLE"))
    return False


def test_damaged_row_groups_are_skipped_as_by_threads(tmp_path: Path) -> None:
    """Two of a shard and all of another, beside a skip list; whatever Ray does to blocks on the way."""
    source = make_data_set(tmp_path / "broken")
    damage(source, 0, 3)
    damage(source, 1, 1)
    source.storage.delete(source.manifest.shards[2].name)
    skip = Skips(frozenset({"toy-1", "toy-30"}))
    limits = {"on_bad_shard": OnBadShard.skip, "max_bad_row_groups": 5}
    by_threads = replace(THREADS, **limits)
    expected = take([source], by_threads, World(0, 1), Cursor(), 8, skip)
    in_epochs = [text for batch in expected for text in batch.skipped]
    assert len(in_epochs) == 2 * (2 + 4 + 4 + 9)
    by_ray = replace(SMALL, **limits)
    for world_size, start in ((1, 0), (4, 3)):
        cursor, count = expected[start].cursor, 8 - start
        ranks = [take([source], by_ray, World(r, world_size), cursor, count, skip) for r in range(world_size)]
        for step, whole in enumerate(expected[start:]):
            parts = [rank[step] for rank in ranks]
            assert [i for part in parts for i in part.sample_ids] == whole.sample_ids
            assert [text for part in parts for text in part.skipped] == whole.skipped
            valid = torch.cat([part.tensors["sample_valid"] for part in parts])
            assert torch.equal(valid, whole.tensors["sample_valid"])
            for name in COLUMNS:
                got = torch.cat([part.tensors[name] for part in parts])
                assert torch.equal(got[valid], whole.tensors[name][valid]), name
    with pytest.raises(DataError, match="More than 2 row groups cannot be read"):
        take([source], replace(by_ray, max_bad_row_groups=2), World(0, 1), Cursor(), 8)


def test_decoding_in_tasks_gives_the_same_batches(sources: list[OpenSource], tmp_path: Path) -> None:
    in_tasks = replace(SMALL, decode=DecodePlace.task)
    expected = take(sources, THREADS, World(0, 1), Cursor(), STEPS)
    assert_equal([take(sources, in_tasks, World(0, 1), Cursor(), STEPS)], expected)
    broken = with_bad_frame(tmp_path / "broken", sample=25, view=1)
    skip = {"on_bad_shard": OnBadShard.skip}
    by_threads = take([broken], replace(THREADS, **skip), World(0, 1), Cursor(), 8)
    by_tasks = take([broken], replace(in_tasks, **skip), World(0, 1), Cursor(), 8)
    assert [b.sample_ids for b in by_tasks] == [b.sample_ids for b in by_threads]
    assert [b.skipped for b in by_tasks] == [b.skipped for b in by_threads]
    assert sum(len(b.skipped) for b in by_tasks) == 2, "once in each of two epochs"
    with pytest.raises(DataError, match="row group 1, row 1, view 1: depth cannot be decoded"):
        take([broken], in_tasks, World(0, 1), Cursor(), 8)


def test_a_truncated_shard_is_named_in_one_line(sources: list[OpenSource], tmp_path: Path) -> None:
    source = make_data_set(tmp_path / "broken")
    shard = source.manifest.shards[1]
    whole = source.storage.read(shard.name)
    source.storage.write(shard.name, whole[: len(whole) // 2])
    with pytest.raises(DataError, match=f"{shard.name}, footer: truncated") as caught:
        take([source], SMALL, World(0, 1), Cursor(), STEPS)
    assert "\n" not in str(caught.value)


def test_memory_stays_the_same_over_twenty_epochs(tmp_path: Path) -> None:
    """Twenty epochs are many times what the object store holds."""
    shapes = {**SHAPES, "image_embedding": ("float16", (8192,))}
    source = make_data_set(tmp_path / "big", (512,) * 3, row_group_rows=16, shapes=shapes)
    epoch_bytes = sum(shard.size_bytes for shard in source.manifest.shards)
    config = replace(
        SMALL, window_row_groups=4, ray_windows_per_task=4, ray_tasks_per_segment=16, ray_ahead_bytes=8 << 20
    )
    block_bytes = epoch_bytes * config.window_row_groups * config.ray_windows_per_task // (1536 // 16)
    # Of each execution (two where one ends): what is ahead, a block of each task under way, one in the queue
    # and one being cut. Then the blocks that the windows of each lane and of two batches are in.
    of_execution = config.ray_ahead_bytes + block_bytes * (config.ray_concurrency + 2)
    bound = 2 * of_execution + block_bytes * (config.lanes + 2)
    assert bound < epoch_bytes * 20 / 4, "a leak would be seen"
    mixture = mix(config, [source], SEED, 64)
    used, resident = [], []
    with open_batches(mixture, World(0, 1), Cursor(), COLUMNS, decode) as batches:
        for _ in range(20):
            for _ in range(batches.plan.steps_per_epoch):
                next(batches)
            used.append(settled(object_store_bytes, bound))
            memory = psutil.Process().memory_info()
            resident.append(memory.rss - memory.shared)
    assert max(used) < bound
    assert max(resident[10:]) < max(resident[:10]) + (32 << 20)


def settled(measured: Callable[[], int], bound: int, seconds: float = 10.0) -> int:
    """What is measured, once it is below the bound or the time is over: Ray frees blocks a moment later."""
    end = time.monotonic() + seconds
    while (value := measured()) >= bound and time.monotonic() < end:
        time.sleep(0.1)
    return value


def object_store_bytes() -> int:
    """What lies in the object store of our Ray."""
    state = internal_api.get_state_from_address(ray.get_runtime_context().gcs_address)
    return int(internal_api.get_memory_info_reply(state).store_stats.object_store_bytes_used)
