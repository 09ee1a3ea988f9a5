"""Tables of measured values, and how a terminal shows them."""

from __future__ import annotations

import numpy as np
import pytest

from jobs.evaluate.measure import MODEL, NO_PROBE, PROBE, SCENE_QUERY, TEACHER, UNTRAINED, Results
from jobs.evaluate.tables import Row, Table, plain_table, summary_table, table_of, tables_of
from poma3d.evaluate.bootstrap import Estimate


def estimate(value: float) -> Estimate:
    return Estimate(value, value / 2, value * 2, np.zeros(1))


@pytest.fixture
def results() -> Results:
    columns = ["R@1-1", "R@1-5", f"{SCENE_QUERY}-1"]
    return Results(
        16,
        {name: {c: estimate(0.25) for c in (*columns, PROBE)} for name in (MODEL, TEACHER, UNTRAINED)},
        dict.fromkeys((*columns, PROBE), 0.0625),
        (7, 9),
    )


def test_a_table_for_each_query_and_the_probe(results: Results) -> None:
    found = tables_of(results)
    assert [table.columns for table in found] == [
        ["R@1-1", "R@1-5"],
        [f"{SCENE_QUERY}-1"],
        ["average precision"],
    ]
    assert [row.name for row in found[0].rows] == ["chance", UNTRAINED, MODEL, TEACHER]
    assert [row.name for row in found[0].rows if row.strong] == [MODEL]
    assert found[0].rows[2].cells == [estimate(0.25), estimate(0.25)]
    assert "one view's caption" in found[0].title
    assert "the scene's caption" in found[1].title
    assert "7 of the held-out scenes and scored on the other 9" in found[2].note


def test_one_table_of_chosen_columns_leaves_out_what_was_not_measured(results: Results) -> None:
    table = table_of(results, ("R@1-5", "R@3-5", PROBE))
    assert table.columns == ["R@1-5", PROBE]
    assert [len(row.cells) for row in table.rows] == [2, 2, 2, 2]
    assert len(plain_table(table).splitlines()) < 12, "the demo's terminal shows no more"


def test_one_table_of_all_queries(results: Results) -> None:
    table = summary_table(results, best=1)
    assert table.columns == ["R@1-1 (one view's caption)", f"{SCENE_QUERY}-1 (the scene's caption)"]
    assert [row.name for row in table.rows] == ["chance", UNTRAINED, MODEL, TEACHER]
    assert table.rows[0].cells == [0.0625, 0.0625]
    assert table.rows[2].cells == [estimate(0.25), estimate(0.25)]
    assert summary_table(results, best=5).columns == ["R@1-5 (one view's caption)"], "what was not measured"


def test_probe_table_says_why_it_is_empty(results: Results) -> None:
    results.probe_scenes = None
    assert plain_table(tables_of(results)[-1]).splitlines()[-1] == NO_PROBE


def test_terminal_table_lines_up() -> None:
    rows = [Row("chance", "by lot", [0.008, 0.039]), Row("model", "geometry", [estimate(0.0625), None])]
    lines = plain_table(Table("Retrieval", ["R@1", "R@5"], rows, "over rooms")).splitlines()
    assert lines[0] == "Retrieval"
    assert lines[2].index("R@5") == lines[4].index("0.039")
    assert "0.062 [0.031 – 0.125]" in lines[5]
    assert lines[5].endswith("–")
    assert lines[-1] == "over rooms"
