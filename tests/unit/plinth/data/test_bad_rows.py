"""Rows that cannot be trained on keep their places: nothing else moves, at any world size, after any cut."""

from __future__ import annotations

import pickle
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from plinth.data.assemble import LocalBatch
from plinth.data.bad_rows import NO_SKIPS, Skips, place_id
from plinth.data.config import DataConfig, OnBadShard, ReaderKind
from plinth.data.plan import Cursor
from plinth.data.sources import OpenSource
from plinth.errors import DataError
from plinth.world import World
from tests.helpers.datasets import COLUMNS, damage, make_data_set, take, with_bad_frame

STOP = DataConfig(lanes=4, window_row_groups=2, reader=ReaderKind.threads)
CONFIG = replace(STOP, on_bad_shard=OnBadShard.skip, max_bad_row_groups=2)
ALONE, START = World(0, 1), Cursor()
STEPS = 9  # two epochs of 46 rows, the end of each filled with repeats
BAD_GROUP = 1
"""Row group of the second shard that the tests damage."""


def batches(
    source: OpenSource,
    skip: Skips = NO_SKIPS,
    world: World = ALONE,
    start: Cursor = START,
    steps: int = STEPS,
    config: DataConfig = CONFIG,
) -> list[LocalBatch]:
    return take([source], config, world, start, steps, skip)


def assert_left_out(local: list[LocalBatch], whole: LocalBatch, bad: dict[str, str]) -> None:
    """The ranks' parts of a step are the batch `whole`, but for the rows whose id is in `bad`.

    Args:
        bad: id of a row -> the id that it has where it cannot be trained on.
    """
    ids = [i for part in local for i in part.sample_ids]
    assert ids == [bad.get(i, i) for i in whole.sample_ids]
    valid = torch.cat([part.tensors["sample_valid"] for part in local])
    is_good = torch.tensor([i not in bad for i in whole.sample_ids])
    assert torch.equal(valid, whole.tensors["sample_valid"] & is_good)
    for name in (*COLUMNS, "sample_key", "epoch"):
        got = torch.cat([part.tensors[name] for part in local])
        assert torch.equal(got[is_good], whole.tensors[name][is_good]), name
    said = [text.split(": ")[0] for part in local for text in part.skipped]
    was_valid = whole.tensors["sample_valid"].tolist()
    assert said == [bad[i] for i, v in zip(whole.sample_ids, was_valid, strict=True) if i in bad and v]


def assert_replaced(part: LocalBatch, bad: set[str], whole: list[LocalBatch]) -> None:
    """Bad rows hold the tensors of one good sample: of this batch, if it has one."""
    good = [row for row, i in enumerate(part.sample_ids) if i not in bad]
    for row in set(range(len(part.sample_ids))) - set(good):
        candidates = [(part, g) for g in good] or [
            (batch, g) for batch in whole for g, i in enumerate(batch.sample_ids) if i not in bad
        ]
        assert any(
            all(torch.equal(part.tensors[n][row], batch.tensors[n][g]) for n in COLUMNS)
            for batch, g in candidates
        )


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> OpenSource:
    return make_data_set(tmp_path_factory.mktemp("toy"))


@pytest.fixture(scope="module")
def expected(source: OpenSource) -> list[LocalBatch]:
    return batches(source)


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    skipped=st.sets(st.integers(0, 45), max_size=30),
    world_size=st.sampled_from([1, 2, 4]),
    cut=st.integers(0, STEPS - 2),
)
@example(skipped=set(range(30)), world_size=4, cut=0)
def test_any_skip_list_moves_nothing_else(
    source: OpenSource, expected: list[LocalBatch], skipped: set[int], world_size: int, cut: int
) -> None:
    bad = {f"toy-{row}" for row in skipped}
    start = expected[cut].cursor
    ranks = [
        batches(source, Skips(frozenset(bad)), World(r, world_size), start, STEPS - cut)
        for r in range(world_size)
    ]
    for step, whole in enumerate(expected[cut:]):
        local = [rank[step] for rank in ranks]
        assert_left_out(local, whole, {i: i for i in bad})
        for part in local:
            assert_replaced(part, bad, expected)


def test_skips_travel() -> None:
    skips = Skips(frozenset({"b", "a"}))
    assert pickle.loads(pickle.dumps(skips)) == skips
    assert not NO_SKIPS.sample_ids


def places(source: OpenSource, group: int = BAD_GROUP) -> dict[str, str]:
    """Id -> place of the rows of that row group."""
    shard = source.manifest.shards[1]
    first = source.manifest.shards[0].rows + sum(shard.row_group_rows[:group])
    count = shard.row_group_rows[group]
    return {f"toy-{first + n}": place_id(source.storage.uri, shard.name, group, n) for n in range(count)}


@pytest.mark.parametrize("world_size", [1, 2, 4])
def test_a_damaged_row_group_is_skipped(
    tmp_path: Path,
    expected: list[LocalBatch],
    world_size: int,
    caplog: pytest.LogCaptureFixture,
) -> None:
    source = make_data_set(tmp_path)
    damage(source, 1, BAD_GROUP)
    shard = source.manifest.shards[1].name
    bad = places(source)
    skip = Skips(frozenset({"toy-3", next(iter(bad.values()))}))  # one of them in the skip list as well
    ranks = [batches(source, skip, World(r, world_size)) for r in range(world_size)]
    for step, whole in enumerate(expected):
        local = [rank[step] for rank in ranks]
        assert_left_out(local, whole, bad | {"toy-3": "toy-3"})
        for part in local:
            assert_replaced(part, {*bad.values(), "toy-3"}, expected)
    said = {text for rank in ranks for batch in rank for text in batch.skipped}
    where = f"{source.storage.uri}/{shard}, row group {BAD_GROUP}: cannot be decoded"
    assert all(where in text for text in said if "toy-3" not in text)
    assert "toy-3: left out by the run" in said
    assert f"skipped (1 of at most 2): {where}" in caplog.text


def test_a_missing_shard_is_more_than_the_budget(tmp_path: Path, expected: list[LocalBatch]) -> None:
    """Five row groups are gone; what they hold is named, and the rows before come as they would."""
    source = make_data_set(tmp_path)
    shard = source.manifest.shards[1].name
    source.storage.delete(shard)
    with pytest.raises(
        DataError, match=rf"More than 2 row groups cannot be read.*{shard}, footer: .*missing"
    ):
        batches(source)
    bad = {key: place for group in range(5) for key, place in places(source, group).items()}
    config = replace(CONFIG, max_bad_row_groups=5)
    for part, whole in zip(batches(source, config=config), expected, strict=True):
        assert_left_out([part], whole, bad)


def test_unless_told_to_skip_the_run_stops(tmp_path: Path) -> None:
    source = make_data_set(tmp_path)
    damage(source, 1, BAD_GROUP)
    shard = source.manifest.shards[1].name
    with pytest.raises(DataError, match=f"{shard}, row group {BAD_GROUP}: cannot be decoded"):
        batches(source, config=STOP)


def test_a_data_set_without_a_readable_shard_is_no_matter_of_rows(tmp_path: Path) -> None:
    source = make_data_set(tmp_path, (4,))
    source.storage.delete(source.manifest.shards[0].name)
    with pytest.raises(DataError, match="the shard is missing"):
        batches(source)


def test_nothing_left_to_train_on(source: OpenSource) -> None:
    with pytest.raises(DataError, match="No sample of 8 epochs can be trained on"):
        batches(source, Skips(frozenset(f"toy-{row}" for row in range(46))))


@pytest.mark.parametrize("world_size", [1, 2, 4])
def test_a_frame_that_cannot_be_decoded_costs_its_row(
    tmp_path: Path, expected: list[LocalBatch], world_size: int, caplog: pytest.LogCaptureFixture
) -> None:
    source = with_bad_frame(tmp_path, sample=25, view=1)
    ranks = [batches(source, world=World(r, world_size)) for r in range(world_size)]
    for step, whole in enumerate(expected):
        local = [rank[step] for rank in ranks]
        assert_left_out(local, whole, {"toy-25": "toy-25"})
        for part in local:
            assert_replaced(part, {"toy-25"}, expected)
    shard = source.manifest.shards[1].name
    where = f"{source.storage.uri}/{shard}, row group 1, row 1, view 1: depth cannot be decoded"
    said = {text for rank in ranks for batch in rank for text in batch.skipped}
    assert len(said) == 1
    assert said.pop().startswith(f"toy-25: {where}")
    assert f"skipped (1 of at most 2): {where}" in caplog.text


def test_a_frame_that_cannot_be_decoded_stops_the_run(tmp_path: Path) -> None:
    source = with_bad_frame(tmp_path, sample=25, view=1)
    with pytest.raises(DataError, match=r"row 1, view 1: depth cannot be decoded .*on_bad_shard"):
        batches(source, config=STOP)


def test_bad_frames_have_a_budget(tmp_path: Path) -> None:
    source = with_bad_frame(tmp_path, sample=25, view=0)
    with pytest.raises(DataError, match="More than 0 row groups cannot be read"):
        batches(source, config=replace(CONFIG, max_bad_row_groups=0))
