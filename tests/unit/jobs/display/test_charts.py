"""What charts of curves are made of: their data as JSON, the library in the page, a colour per loss term."""

from __future__ import annotations

import json
import re

import pytest

from jobs.display.charts import chart_data, chart_library
from jobs.display.figures import SERIES_COLOURS, TERM_COLOURS, Curve, Mark, series_colours
from jobs.display.html import ENVIRONMENT
from poma3d.network.config import LossConfig
from poma3d.stages import STAGES

NASTY = "</script><script>alert(1)</script>"


def test_series_of_one_x_share_a_table_and_gaps_are_null() -> None:
    series = {
        "view": ([0.0, 1.0], [2.0, float("nan")]),
        "rare": ([0.0], [0.123456789]),
        "scene": ([0.0, 1.0], [3.0, 1e9]),
    }
    data = chart_data(Curve("loss", "step", series, (Mark(1.0, "kill", "rare"), Mark(2.0, "restart"))))
    assert data["tables"] == [[[0, 1], [2, None], [3, 1e9]], [[0], [0.123457]]]
    assert [each["name"] for each in data["series"]] == ["view", "scene", "rare"], "in the tables' order"
    assert data["order"] == list(series)
    colours = {each["name"]: each["colour"] for each in data["series"]}
    assert data["marks"] == [
        {"x": 1.0, "text": "kill", "colour": colours["rare"]},
        {"x": 2.0, "text": "restart", "colour": None},
    ]
    json.dumps(data, allow_nan=False)


def test_names_cannot_leave_the_data() -> None:
    template = ENVIRONMENT.from_string(
        '{% import "display/parts.html" as parts %}{{ parts.curves([curve]) }}{{ chart_library() }}'
    )
    text = template.render(curve=Curve(NASTY, NASTY, {NASTY: ([0, 1], [0, 1])}, (Mark(0, NASTY, NASTY),)))
    assert "alert(1)" in text
    assert "<script>alert" not in text
    scripts = re.findall(r"<script[^>]*>(.*?)</script>", text, re.DOTALL)
    assert [json.loads(scripts[0])["title"], len(scripts)] == [NASTY, 3]


def test_the_library_comes_with_its_licence_and_asks_for_nothing() -> None:
    text = chart_library()
    assert "The MIT License (MIT)" in text
    assert "uPlot (v1.6.32)" in text
    assert not re.findall(r"<link|@import|url\(|fetch\(|XMLHttpRequest|src=", text)


@pytest.mark.parametrize("stage", STAGES)
def test_every_loss_term_has_a_colour_of_its_own(stage: str) -> None:
    weights = LossConfig(jepa=1.0, dense=1.0)
    terms = ["total", *sorted(STAGES[stage].reported(weights))]
    assert series_colours(terms) == {name: TERM_COLOURS[name] for name in terms}
    assert series_colours(terms[:2]) == {name: TERM_COLOURS[name] for name in terms[:2]}, "whatever is beside"
    assert len(set(TERM_COLOURS.values())) == len(TERM_COLOURS) == len(SERIES_COLOURS)
