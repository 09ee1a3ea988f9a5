"""Spaces: what they hold, what is drawn from them, what is refused."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plinth.errors import ConfigError
from plinth.sweep.space import Dimension, Space, draw, grid, size, validate

MIXED: Space = {
    "lr": Dimension(log_uniform=[1e-5, 1e-2]),
    "jepa": Dimension(choice=[0.0, 0.1, 1.0]),
    "layers": Dimension(integer=[1, 4], when={"jepa": [0.1, 1.0]}),
    "decay": Dimension(uniform=[0.0, 0.1]),
}


@given(seed=st.integers(0, 2**31), trials=st.integers(1, 30), more=st.integers(0, 30))
def test_draws_are_distinct_in_the_space_and_independent_of_their_number(
    seed: int, trials: int, more: int
) -> None:
    points = draw(MIXED, trials, seed)
    assert len(points) == trials
    assert draw(MIXED, trials + more, seed)[:trials] == points
    assert len({str(p) for p in points}) == trials
    for point in points:
        assert 1e-5 <= point["lr"] <= 1e-2
        assert 0 <= point["decay"] <= 0.1
        assert point["jepa"] in (0.0, 0.1, 1.0)
        assert ("layers" in point) == (point["jepa"] != 0)
        assert point.get("layers", 1) in (1, 2, 3, 4)


def test_log_uniform_is_uniform_in_its_logarithm() -> None:
    points = [math.log10(p["lr"]) for p in draw({"lr": Dimension(log_uniform=[1e-4, 1e0])}, 400, 0)]
    counts = [sum(low <= p < low + 1 for p in points) for low in (-4, -3, -2, -1)]
    assert min(counts) > 70


def test_grid_has_each_combination_once() -> None:
    space: Space = {
        "a": Dimension(grid=[1, 2]),
        "b": Dimension(integer=[1, 2], when={"a": 2}),
        "c": Dimension(choice=["x", "y"]),
    }
    assert size(space) == 6
    points = grid(space)
    assert len(points) == 6 == len({str(p) for p in points})
    assert {"a": 1, "c": "x"} in points
    assert {"a": 2, "b": 2, "c": "y"} in points


def test_random_draws_go_through_all_combinations_of_grids() -> None:
    space: Space = {"a": Dimension(grid=[1, 2]), "b": Dimension(grid=[3, 4]), "lr": Dimension(uniform=[0, 1])}
    points = draw(space, 4, 0)
    assert sorted((p["a"], p["b"]) for p in points) == [(1, 3), (1, 4), (2, 3), (2, 4)]


def test_small_space_has_fewer_points_than_trials() -> None:
    assert len(draw({"a": Dimension(choice=[1, 2, 3])}, 10, 0)) == 3


@pytest.mark.parametrize(
    ("space", "said"),
    [
        ({}, "sweep.space is empty"),
        ({"a": Dimension()}, "sweep.space.a has no values"),
        ({"a": Dimension(choice=[1], grid=[2])}, "sweep.space.a has choice and grid"),
        ({"a": Dimension(choice=[])}, "sweep.space.a.choice is empty"),
        ({"a": Dimension(uniform=[1.0])}, r"sweep.space.a.uniform is \[1.0\]"),
        ({"a": Dimension(uniform=[2.0, 1.0])}, "expected .low, high. with low < high"),
        ({"a": Dimension(log_uniform=[0.0, 1.0])}, "begins at 0.0, expected more than 0"),
        ({"a": Dimension(choice=[5])}, "sweep.space has one point"),
        ({"a": Dimension(choice=[1, 2], when={"b": 1})}, "names b, which does not come before it"),
    ],
)
def test_invalid_space_is_refused(space: Space, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        validate(space)


def test_grid_searcher_refuses_a_range() -> None:
    with pytest.raises(ConfigError, match=r"sweep.space.lr is log_uniform, which a grid cannot have"):
        grid(MIXED)


def test_clip_keeps_values_in_the_space() -> None:
    assert Dimension(integer=[1, 4]).clip(4.8) == 4
    assert Dimension(uniform=[0.0, 1.0]).clip(-0.5) == 0.0
    assert Dimension(choice=["a", "b"]).clip("b") == "b"
