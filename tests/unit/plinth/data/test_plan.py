"""The data order: once per epoch, the same at any world size, resumable anywhere."""

from __future__ import annotations

import hashlib
from collections import Counter
from itertools import islice

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from plinth.data.config import DataConfig, SourceConfig, validate
from plinth.data.plan import (
    Cursor,
    Plan,
    SourceRows,
    epoch_pieces,
    global_batch,
    make_plan,
    permutation,
    rank_windows,
    window_rows,
)
from plinth.errors import ConfigError, DataError
from plinth.world import World


@st.composite
def plans(draw: st.DrawFn, weights: bool = False) -> Plan:
    """Small plans of every shape: ragged row groups, fewer rows than lanes, batches larger than all rows."""
    weight = st.sampled_from([0.3, 0.5, 1.0, 1.5, 2.0]) if weights else st.just(1.0)
    groups = st.lists(st.integers(1, 9), min_size=1, max_size=12)
    sources = draw(st.lists(st.tuples(groups, weight), min_size=1, max_size=3))
    lanes = draw(st.sampled_from([1, 2, 4, 8]))
    return make_plan(
        [SourceRows(np.array(g), w, f"source-{i}") for i, (g, w) in enumerate(sources)],
        lanes=lanes,
        window_row_groups=draw(st.integers(1, 4)),
        global_batch_size=lanes * draw(st.integers(1, 5)),
        seed=draw(st.integers(0, 3)),
    )


def all_rows(plan: Plan) -> Counter[tuple[int, int, int]]:
    """Every row of every source, once."""
    return Counter(
        (s, g, row)
        for s, source in enumerate(plan.sources)
        for g, rows in enumerate(source.row_group_rows)
        for row in range(rows)
    )


def epoch_batches(plan: Plan, epoch: int) -> list[np.ndarray]:
    """All global batches of an epoch."""
    return [global_batch(plan, Cursor(epoch, step)) for step in range(plan.steps_per_epoch)]


def valid_rows(batches: list[np.ndarray]) -> Counter[tuple[int, int, int]]:
    """How often each row is valid in the batches."""
    rows = np.concatenate(batches)
    return Counter(tuple(int(x) for x in row[:3]) for row in rows if row[3])


def rank_batches(plan: Plan, world: World, start: Cursor, count: int) -> list[np.ndarray]:
    """The next `count` batches of a rank, taken from its stream of windows as a loader takes them."""
    windows = rank_windows(plan, world, start)
    queues: dict[int, list[np.ndarray]] = {lane: [] for lane in world.lanes(plan.lanes)}
    batches, cursor = [], start
    for _ in range(count):
        rows = []
        for lane, queue in queues.items():
            taken = np.empty((0, 4), np.int64)
            while len(taken) < plan.rows_per_lane:
                while not queue:
                    window = next(windows)
                    skip = start.step * plan.rows_per_lane if window.epoch == start.epoch else 0
                    assert window.epoch == cursor.epoch, "windows arrive in the epoch that needs them"
                    delivered = window_rows(window)[max(skip - window.first, 0) :]
                    if len(delivered):
                        queues[window.lane].append(delivered)
                need = plan.rows_per_lane - len(taken)
                taken = np.concatenate([taken, queue[0][:need]])
                queue[0] = queue[0][need:]
                if not len(queue[0]):
                    queue.pop(0)
            rows.append(taken)
            assert queues[lane] is queue
        batches.append(np.concatenate(rows))
        cursor = plan.after(cursor)
    return batches


@settings(max_examples=150, deadline=None)
@given(plans(), st.integers(0, 3))
def test_every_sample_is_valid_exactly_once_in_an_epoch(plan: Plan, epoch: int) -> None:
    batches = epoch_batches(plan, epoch)
    assert all(len(batch) == plan.global_batch_size for batch in batches)
    assert valid_rows(batches) == all_rows(plan)


@settings(max_examples=100, deadline=None)
@given(plans(weights=True))
def test_weighted_sources_take_successive_passes(plan: Plan) -> None:
    """Over E epochs each row of a source comes floor or ceil of E * rows_per_epoch / rows times."""
    epochs = 4
    seen: Counter[tuple[int, int, int]] = Counter()
    for epoch in range(epochs):
        valid = valid_rows(epoch_batches(plan, epoch))
        assert sum(valid.values()) == plan.samples_per_epoch
        seen += valid
    for row in all_rows(plan):
        source = plan.sources[row[0]]
        passes = epochs * source.rows_per_epoch / source.rows
        assert np.floor(passes) <= seen[row] <= np.ceil(passes)


@settings(max_examples=100, deadline=None)
@given(plans(weights=True), st.data())
def test_any_world_size_sees_the_same_global_batches(plan: Plan, data: st.DataObject) -> None:
    """From any cut on, over the end of the epoch, each rank makes the same number of steps."""
    start = Cursor(data.draw(st.integers(0, 2)), data.draw(st.integers(0, plan.steps_per_epoch - 1)))
    count = plan.steps_per_epoch + 2
    expected, cursor = [], start
    for _ in range(count):
        expected.append(global_batch(plan, cursor))
        cursor = plan.after(cursor)
    for world_size in (n for n in (1, 2, 4) if plan.lanes % n == 0):
        ranks = [rank_batches(plan, World(r, world_size), start, count) for r in range(world_size)]
        for step in range(count):
            got = np.concatenate([rank[step] for rank in ranks])
            np.testing.assert_array_equal(got, expected[step])


@settings(max_examples=60, deadline=None)
@given(plans())
def test_lanes_differ_by_at_most_one_sample(plan: Plan) -> None:
    rows = np.stack(epoch_batches(plan, 0)).reshape(plan.steps_per_epoch, plan.lanes, plan.rows_per_lane, 4)
    per_lane = rows[..., 3].sum(axis=(0, 2))
    assert per_lane.max() - per_lane.min() <= 1


def test_epochs_and_seeds_give_different_orders() -> None:
    source = SourceRows(np.full(20, 8))
    orders = [
        np.concatenate(epoch_batches(make_plan([source], 2, 2, 16, seed), epoch)).tobytes()
        for seed, epoch in ((0, 0), (0, 1), (1, 0))
    ]
    assert len(set(orders)) == 3


def test_the_order_does_not_change_between_versions() -> None:
    """Golden: a run that was saved by an older version must find the same order."""
    sources = [SourceRows(np.arange(1, 9), 1.0, "a", "hash-a"), SourceRows(np.full(5, 3), 1.5, "b", "hash-b")]
    plan = make_plan(sources, lanes=4, window_row_groups=2, global_batch_size=8, seed=7)
    order = np.concatenate([*epoch_batches(plan, 0), *epoch_batches(plan, 1)]).astype("<i8")
    assert permutation(8, "golden").tolist() == [5, 7, 3, 0, 6, 1, 2, 4]
    assert hashlib.sha256(order.tobytes()).hexdigest()[:16] == "2f56964b9b0afc45"
    assert plan.fingerprint[:16] == "a715487953d3d882"


def test_the_fingerprint_names_everything_the_order_depends_on() -> None:
    def plan(
        content: str = "a",
        rows: int = 4,
        weight: float = 1.0,
        lanes: int = 2,
        window: int = 2,
        g: int = 8,
        seed: int = 0,
    ) -> Plan:
        return make_plan([SourceRows(np.full(3, rows), weight, "", content)], lanes, window, g, seed)

    changed = [
        plan(content="b"),
        plan(rows=5),
        plan(weight=2.0),
        plan(lanes=4),
        plan(window=1),
        plan(g=4),
        plan(seed=1),
    ]
    assert plan().fingerprint == plan().fingerprint
    assert len({p.fingerprint for p in [plan(), *changed]}) == 1 + len(changed)


def test_cursor_walks_through_epochs() -> None:
    plan = make_plan([SourceRows(np.array([5, 5]))], 1, 1, 4, 0)
    assert plan.steps_per_epoch == 3
    assert plan.after(Cursor(0, 1)) == Cursor(0, 2)
    assert plan.after(Cursor(0, 2)) == Cursor(1, 0)
    assert Cursor(**Cursor(3, 4).to_dict()) == Cursor(3, 4)
    assert Cursor(1, 0) > Cursor(0, 9)


def test_a_million_row_groups_stay_arrays() -> None:
    """The plan keeps five integers per row group; a window is made only when it is asked for."""
    plan = make_plan([SourceRows(np.full(1_000_000, 64))], 64, 4, 4096, 0)
    pieces = epoch_pieces(plan, 0)
    arrays = (pieces.source, pieces.row_group, pieces.start, pieces.stop, pieces.end)
    assert sum(array.nbytes for array in arrays) <= 5 * 8 * 1_000_000
    first = list(islice(rank_windows(plan, World(3, 8), Cursor(0, 9_000)), 8))
    assert sorted(window.lane for window in first) == list(range(24, 32))


def test_refusals() -> None:
    with pytest.raises(DataError, match="no data source"):
        make_plan([], 1, 1, 1, 0)
    with pytest.raises(DataError, match="empty-set has no samples"):
        make_plan([SourceRows(np.array([], np.int64), 1.0, "empty-set")], 1, 1, 1, 0)
    with pytest.raises(DataError, match="weight 0"):
        make_plan([SourceRows(np.array([4]), 0.0, "unwanted")], 1, 1, 1, 0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sources": []}, "data.sources is empty"),
        ({"sources": [SourceConfig("a", -1.0)]}, r"data.sources\[0\].weight is -1.0"),
        ({"lanes": 0}, "data.lanes is 0"),
        ({"prefetch_batches": 0}, "data.prefetch_batches is 0"),
        ({"ray_task_cpus": -1.0}, "data.ray_task_cpus is -1.0"),
        ({"max_bad_row_groups": -1}, "data.max_bad_row_groups is -1"),
    ],
)
def test_config_is_checked(change: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        validate(DataConfig(**{"sources": [SourceConfig("a")], **change}))
