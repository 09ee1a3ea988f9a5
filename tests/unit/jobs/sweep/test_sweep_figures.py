"""Where trials are on the axes, and that the pictures follow the page and name their lines."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from jobs.sweep.figures import (
    ABSENT_AT,
    in_lines,
    is_wide,
    metric_axis,
    metric_svg,
    parallel_svg,
    parameter_axis,
)
from jobs.sweep.state import SweepState, Varied, read_state
from plinth.sweep.records import Report, Status, TrialRecord
from tests.helpers.sweep_folder import asha_sweep, sweep, trial


def state_of(folder: Path, values: list[Any], metrics: list[float], mode: str = "min") -> SweepState:
    """Trials that vary `key` and have those metrics; a value of ... leaves it out."""
    storage = sweep(folder, len(values), mode=mode)
    for i, (value, metric) in enumerate(zip(values, metrics, strict=True)):
        varied = {} if value is ... else {"key": value}
        reports = [Report("main", 1, 32, 1.0, {"view": metric})]
        trial(storage, TrialRecord(i, varied, Status.finished), reports)
    return read_state(storage)


def test_a_logarithmic_axis(tmp_path: Path) -> None:
    state = state_of(tmp_path, [1e-4, 1e-2, 1e-3], [1.0, 2.0, 3.0])
    axis = parameter_axis(Varied("key", "key", is_log=True), state.ranked)
    assert axis.at == pytest.approx({0: 0, 1: 1, 2: 0.5})
    texts = [text for _, text in axis.ticks]
    assert texts == ["0.0001", "0.0003", "0.001", "0.003", "0.01"]
    assert {text: height for height, text in axis.ticks}["0.001"] == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("low", "high", "least"), [(1e-9, 1e-1, 3), (1.0, 2.1, 2), (3.1e-4, 3.3e-4, 2), (0.9, 11, 2)]
)
def test_a_logarithmic_axis_of_any_width_has_ticks(
    tmp_path: Path, low: float, high: float, least: int
) -> None:
    axis = parameter_axis(Varied("key", "key", is_log=True), state_of(tmp_path, [low, high], [1, 2]).ranked)
    assert least <= len(axis.ticks) <= 10
    assert all(0 <= height <= 1 for height, _ in axis.ticks)


def test_whole_numbers_have_whole_ticks(tmp_path: Path) -> None:
    axis = parameter_axis(Varied("key", "key"), state_of(tmp_path, [2, 4, 3], [1.0, 2.0, 3.0]).ranked)
    assert axis.at == {0: 0, 1: 1, 2: 0.5}
    assert [text for _, text in axis.ticks] == ["2", "3", "4"]


def test_ticks_close_together_are_told_apart(tmp_path: Path) -> None:
    axis = parameter_axis(Varied("key", "key"), state_of(tmp_path, [1.39, 1.41], [1.0, 2.0]).ranked)
    assert [text for _, text in axis.ticks] == ["1.39", "1.395", "1.4", "1.405", "1.41"]


def test_one_value_is_in_the_middle(tmp_path: Path) -> None:
    axis = parameter_axis(Varied("key", "key"), state_of(tmp_path, [0.25, 0.25], [1.0, 2.0]).ranked)
    assert axis.ticks == [(0.5, "0.25")]
    assert axis.at == {0: 0.5, 1: 0.5}


def test_categories_fan_out_the_best_highest(tmp_path: Path) -> None:
    state = state_of(tmp_path, ["b", "a", "b", ...], [3.0, 2.0, 1.0, 0.5])
    axis = parameter_axis(Varied("key", "key", is_list=True), state.ranked)
    assert axis.ticks == [(0.25, "b"), (0.75, "a")], "as they come, the best first"
    assert axis.at[2] > 0.25 > axis.at[0]
    assert axis.at[1] == 0.75
    assert 3 not in axis.at


def test_listed_numbers_go_by_size_and_anything_has_a_place(tmp_path: Path) -> None:
    numbers = state_of(tmp_path, [128, 32, 64], [1.0, 2.0, 3.0])
    axis = parameter_axis(Varied("key", "key", is_list=True), numbers.ranked)
    assert [text for _, text in axis.ticks] == ["32", "64", "128"]
    mixed = state_of(tmp_path / "mixed", [None, True, [1, 2]], [1.0, 2.0, 3.0])
    axis = parameter_axis(Varied("key", "key", is_list=True), mixed.ranked)
    assert [text for _, text in axis.ticks] == ["null", "true", "[1, 2]"]


@pytest.mark.parametrize(("mode", "top"), [("min", 0), ("max", 1)])
def test_the_best_metric_is_on_top(tmp_path: Path, mode: str, top: int) -> None:
    axis = metric_axis(state_of(tmp_path, [1, 2], [0.5, 0.75], mode))
    assert axis.at == {top: 1.0, 1 - top: 0.0}
    assert {text: height for height, text in axis.ticks}["0.6"] == pytest.approx(
        0.6 if mode == "min" else 0.4
    )


def test_long_names_are_broken() -> None:
    assert in_lines("lr", 8) == ["lr"]
    assert in_lines("global_batch_size", 12) == ["global_", "batch_size"]
    assert in_lines("main.lr", 4) == ["main.", "lr"]
    assert in_lines("scene R@1-5", 8) == ["scene", "R@1-5"]
    assert in_lines("unbreakable", 4) == ["unbreakable"]
    assert in_lines("a__b.", 80) == ["a__b."]


def test_metrics_of_wide_range() -> None:
    assert is_wide([1.0, 31.0])
    assert not is_wide([1.0, 29.0])
    assert not is_wide([0.0, 31.0])
    assert not is_wide([])


def test_pictures_follow_the_page_and_name_their_lines(tmp_path: Path) -> None:
    state = read_state(asha_sweep(tmp_path))
    for name, svg in (
        ("parallel", parallel_svg(state)),
        ("samples", metric_svg(state)),
        ("time", metric_svg(state, over_time=True)),
    ):
        assert svg.startswith("<svg")
        assert "currentColor" in svg
        assert "#12ab34" not in svg
        titles = re.findall(rf'<g id="{name}-trial-(\d+)"><title>([^<]+)</title>', svg)
        assert len(titles) == 12
        assert dict(titles)["004"].startswith("trial 004 (failed): view 4.1352; lr 0.000355, ")
    assert "not varied" in parallel_svg(state)
    assert "stopped early" in metric_svg(state)
    assert "seconds of training" in metric_svg(state, over_time=True)


def test_one_trial_and_one_report_make_pictures(tmp_path: Path) -> None:
    state = state_of(tmp_path, [...], [1.0])
    assert parallel_svg(state).count("<title>") == 1
    assert metric_svg(state).count("<title>") == 1


def test_lines_of_trials_without_a_value_pass_below(tmp_path: Path) -> None:
    assert ABSENT_AT < 0
    text = parallel_svg(state_of(tmp_path, [1, 2], [1.0, 2.0]))
    assert "not varied" in text, "four keys of the space, and none of them in these trials"
