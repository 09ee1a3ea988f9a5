"""Batches: what is in them, in which order, at which world size, after which cut."""

from __future__ import annotations

import sys
import threading
from collections import Counter
from itertools import islice
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from plinth.data.assemble import LocalBatch, sample_key
from plinth.data.batches import Batches, choose_reader, open_batches
from plinth.data.config import DataConfig, DecodePlace, ReaderKind
from plinth.data.plan import Cursor, global_batch
from plinth.data.sources import OpenSource, mix
from plinth.errors import ConfigError, DataError
from plinth.world import World
from tests.helpers.datasets import COLUMNS, GLOBAL_BATCH, SEED, SHAPES, decode, make_data_set, toy_array

ALONE = World(0, 1)
START = Cursor()


def open_toy(
    sources: list[OpenSource],
    world: World = ALONE,
    start: Cursor = START,
    **config: Any,
) -> Batches:
    """Batches of `sources` with the threads reader."""
    data = DataConfig(lanes=4, window_row_groups=2, reader=ReaderKind.threads, **config)
    return open_batches(mix(data, sources, SEED, GLOBAL_BATCH), world, start, COLUMNS, decode)


def take(batches: Batches, count: int) -> list[LocalBatch]:
    """The next `count` batches; then everything is closed."""
    with batches:
        return list(islice(batches, count))


@pytest.fixture
def source(tmp_path: Path) -> OpenSource:
    return make_data_set(tmp_path / "toy")


def test_a_batch_holds_what_was_written(source: OpenSource) -> None:
    batches = open_toy([source])
    expected = {"depth": torch.uint16, "pose": torch.float32, "image_embedding": torch.float16}
    expected |= {"sample_valid": torch.bool, "sample_key": torch.int64, "epoch": torch.int64}
    for batch in take(batches, 2 * batches.plan.steps_per_epoch):
        tensors = batch.tensors
        assert {name: t.dtype for name, t in tensors.items() if name != "sample_id"} == expected
        assert tensors["sample_id"] == batch.sample_ids
        assert set(tensors["epoch"].tolist()) == {batch.cursor.epoch}
        assert tensors["sample_key"].tolist() == [sample_key(i) for i in batch.sample_ids]
        for name, (dtype, shape) in SHAPES.items():
            assert tensors[name].shape == (GLOBAL_BATCH, *shape)
            for value, sample_id in zip(tensors[name].numpy(), batch.sample_ids, strict=True):
                np.testing.assert_array_equal(value, toy_array(int(sample_id.split("-")[1]), dtype, shape))
        assert batch.wait_s >= 0


def test_each_sample_is_valid_once_in_an_epoch(source: OpenSource) -> None:
    batches = open_toy([source])
    seen: Counter[str] = Counter()
    for batch in take(batches, batches.plan.steps_per_epoch):
        valid = batch.tensors["sample_valid"].tolist()
        seen.update(i for i, v in zip(batch.sample_ids, valid, strict=True) if v)
    assert seen == Counter(f"toy-{i}" for i in range(source.manifest.rows))


def test_the_order_is_the_plan_at_any_world_size(source: OpenSource, tmp_path: Path) -> None:
    other = make_data_set(tmp_path / "other", (7, 8), 5, name="other", weight=1.5)
    sources = [source, other]
    groups = [[(s, n) for s in d.manifest.shards for n in range(len(s.row_group_rows))] for d in sources]
    assert len(groups[0]) == 13
    for world_size in (1, 2, 4):
        ranks = [open_toy(sources, World(r, world_size)) for r in range(world_size)]
        plan = ranks[0].plan
        steps = 2 * plan.steps_per_epoch
        taken = [take(batches, steps) for batches in ranks]
        cursor = Cursor()
        for step in range(steps):
            local = [rank[step] for rank in taken]
            assert {batch.cursor for batch in local} == {cursor}
            ids = [i for batch in local for i in batch.sample_ids]
            valid = torch.cat([batch.tensors["sample_valid"] for batch in local])
            rows = global_batch(plan, cursor)
            assert ids == [expected_id(sources, row) for row in rows]
            assert valid.tolist() == rows[:, 3].astype(bool).tolist()
            cursor = plan.after(cursor)


def expected_id(sources: list[OpenSource], row: np.ndarray) -> str:
    """The id of the row (source, row group, row), counted by hand."""
    source, group, inside, _ = (int(x) for x in row)
    rows = [n for shard in sources[source].manifest.shards for n in shard.row_group_rows]
    return f"{'toy' if source == 0 else 'other'}-{sum(rows[:group]) + inside}"


def test_a_cut_anywhere_resumes_exactly_at_another_world_size(source: OpenSource) -> None:
    whole = take(open_toy([source]), 10)
    for cut in range(9):
        start = whole[cut].next_cursor
        assert start == whole[cut + 1].cursor
        ranks = [take(open_toy([source], World(r, 2), start), 9 - cut) for r in range(2)]
        for k, batch in enumerate(whole[cut + 1 :]):
            assert batch.sample_ids == ranks[0][k].sample_ids + ranks[1][k].sample_ids
            for name in (*COLUMNS, "sample_valid", "sample_key", "epoch"):
                got = torch.cat([rank[k].tensors[name] for rank in ranks])
                assert torch.equal(got, batch.tensors[name]), name


def test_fewer_samples_than_lanes_and_than_the_batch(tmp_path: Path) -> None:
    batches = open_toy([make_data_set(tmp_path, (3,))])
    assert batches.plan.steps_per_epoch == 1
    for batch in take(batches, 3):
        assert batch.tensors["sample_valid"].sum() == 3
        assert set(batch.sample_ids) == {"toy-0", "toy-1", "toy-2"}


def test_closing_ends_the_threads(source: OpenSource) -> None:
    before = set(threading.enumerate())
    batches = open_toy([source])
    next(batches)
    batches.close()
    batches.close()
    assert set(threading.enumerate()) <= before
    with pytest.raises(StopIteration):
        next(batches)


def test_a_missing_shard_is_named_to_the_consumer(source: OpenSource) -> None:
    shard = source.manifest.shards[1].name
    source.storage.delete(shard)
    with pytest.raises(DataError, match=f"{shard}.*the shard is missing"):
        take(open_toy([source]), 20)


def test_sources_that_do_not_match(source: OpenSource, tmp_path: Path) -> None:
    narrow = {**SHAPES, "pose": ("float32", (3, 3))}
    cases = [
        (make_data_set(tmp_path / "a", attributes={"schema_version": 1, "teacher": "huge"}),
         "have different teacher: tiny and huge"),
        (make_data_set(tmp_path / "b", attributes={"schema_version": 2, "teacher": "tiny"}),
         "have different schema_version: 1 and 2"),
        (make_data_set(tmp_path / "c", shapes=narrow), r"differ in pose .*\[3, 4\] .*against.*\[3, 3\]"),
        (make_data_set(tmp_path / "d", shapes={"pose": SHAPES["pose"]}), "no column depth, image_embedding"),
        (make_data_set(tmp_path / "e", shard_rows=()), "e has no samples"),
    ]  # fmt: skip
    for other, message in cases:
        with pytest.raises(DataError, match=message):
            open_toy([source, other])
    with pytest.raises(DataError, match="no data source"):
        open_toy([])


def test_without_ray_the_reader_is_threads_or_an_error(source: OpenSource) -> None:
    def opened(reader: ReaderKind) -> Batches:
        mixture = mix(DataConfig(lanes=4, reader=reader), [source], SEED, GLOBAL_BATCH)
        return open_batches(mixture, ALONE, START, COLUMNS, decode)

    with opened(ReaderKind.auto) as batches:
        assert next(batches).cursor == START
    with pytest.raises(ConfigError, match=r"data.reader is ray, but .* set data.reader=threads"):
        opened(ReaderKind.ray)


@pytest.mark.parametrize(
    ("cpus", "workers", "given", "expected"),
    [
        (2, 2, {}, (ReaderKind.threads, "2 CPUs for 2 workers")),
        (3, 2, {}, (ReaderKind.ray, "3 CPUs for 2 workers")),
        (None, 1, {}, (ReaderKind.threads, "0 CPUs for 1 worker")),
        (2, 2, {"ray_label": "poma-role=data"}, (ReaderKind.ray, "data.ray_label asks for its tasks")),
        (2, 2, {"ray_task_cpus": 0.5}, (ReaderKind.ray, "data.ray_task_cpus asks for its tasks")),
        (2, 2, {"decode": DecodePlace.task}, (ReaderKind.ray, "data.decode asks for its tasks")),
        (2, 2, {"reader": ReaderKind.ray}, (ReaderKind.ray, "")),
        (9, 2, {"reader": ReaderKind.threads}, (ReaderKind.threads, "")),
    ],
)
def test_ray_reads_where_it_has_a_cpu_or_is_asked_for(
    cpus: float | None,
    workers: int,
    given: dict[str, Any],
    expected: tuple[ReaderKind, str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    resources = {} if cpus is None else {"CPU": float(cpus)}
    ray = SimpleNamespace(is_initialized=lambda: True, cluster_resources=lambda: resources)
    monkeypatch.setitem(sys.modules, "ray", ray)
    assert choose_reader(DataConfig(**given), workers) == expected


def test_sample_key_is_stable() -> None:
    """Golden: masks and caption draws of a resumed run hang on it."""
    assert sample_key("toy-0") == -2386046681065987050
