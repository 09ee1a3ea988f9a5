"""Rank arithmetic: ranks partition lanes and rows, and impossible sizes are refused with numbers."""

from __future__ import annotations

import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plinth.errors import ConfigError
from plinth.world import World, check_divisibility, possible_world_sizes


@given(st.integers(1, 16), st.integers(1, 6), st.integers(1, 8))
def test_ranks_partition_lanes_and_rows_in_order(lanes: int, per_lane: int, micro: int) -> None:
    global_batch_size = lanes * per_lane * micro
    sizes = possible_world_sizes(lanes, global_batch_size, micro)
    assert 1 in sizes
    for size in sizes:
        check_divisibility(size, lanes, global_batch_size, micro)
        worlds = [World(rank, size) for rank in range(size)]
        assert [lane for w in worlds for lane in w.lanes(lanes)] == list(range(lanes))
        assert [row for w in worlds for row in w.rows(global_batch_size)] == list(range(global_batch_size))
        steps = {w.gradient_accumulation_steps(global_batch_size, micro) for w in worlds}
        assert steps == {global_batch_size // size // micro}


@pytest.mark.parametrize(
    ("world_size", "lanes", "batch", "micro", "says"),
    [
        (2, 16, 40, 8, "global_batch_size 40 is not a multiple of lanes 16"),
        (2, 16, 48, 9, "global_batch_size 48 is not a multiple of micro_batch_size 9"),
        (32, 16, 48, 3, "32 workers are more than the 16 lanes"),
        (3, 16, 48, 3, "3 workers do not divide lanes 16"),
        (16, 16, 48, 6, r"16 workers do not divide .* 8 micro-batches of 6.*Use one of \[1, 2, 4, 8\]"),
    ],
)
def test_impossible_sizes_name_both_numbers(
    world_size: int, lanes: int, batch: int, micro: int, says: str
) -> None:
    with pytest.raises(ConfigError, match=says):
        check_divisibility(world_size, lanes, batch, micro)


def test_a_rank_outside_its_world_is_a_bug() -> None:
    with pytest.raises(ValueError, match="rank 2 is not in a world of 2"):
        World(2, 2)


def test_errors_cross_process_borders_whole() -> None:
    error = pickle.loads(pickle.dumps(ConfigError("what is wrong.", "What to do.")))
    assert isinstance(error, ConfigError)
    assert (error.problem, error.fix) == ("what is wrong.", "What to do.")
    assert str(error) == "what is wrong. What to do."
