"""Hypo3D's metric with its oddities."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from poma3d.annotations.scoring.hypo3d import REPLACED, exact, normalise, partial


@pytest.mark.parametrize(
    ("text", "normal"),
    [
        ("two chairs", "2"),
        ("chairs two", "chairs 2"),
        ("twenty one", "20 1"),
        ("twenty-one", "twentyone"),
        ("point", "0"),
        ("007", "7"),
        ("near the corner", ""),
        ("Next to the bed", "bed"),
        ("left/right", "leftright"),
        ("bottom", "back"),
        ("top", "front"),
        ("North", "front"),
        ("southwest", "back left"),
        ("behind and to the right", "back right"),
        ("on the left of the bed", "left bed"),
        ("in front of it", "front it"),
        ("backward", "back"),
        ("a table, an oven", "table oven"),
        ("topping", "topping"),
        ("9" * 5000, "9" * 5000),
    ],
)
def test_normalised(text: str, normal: str) -> None:
    assert normalise(text) == normal


def test_an_empty_prediction_matches_what_is_normalised_away() -> None:
    assert exact("", "near the corner") == 1.0
    assert partial("", "near the corner") == 0.0


@pytest.mark.parametrize(
    ("predicted", "answer", "score"),
    [
        ("2", "2 2", 0.5),
        ("table", "table table table", 1 / 3),
        ("front left", "front right", 0.5),
        ("right front", "front right", 1.0),
        ("anything", "", 0.0),
        ("", "desk", 0.0),
    ],
)
def test_partial_match(predicted: str, answer: str, score: float) -> None:
    assert partial(predicted, answer) == pytest.approx(score)


@given(st.lists(st.sampled_from([*REPLACED, "desk", "two", "the", "4"]), min_size=1, max_size=5))
def test_equal_texts_match_and_partial_is_a_share(words: list[str]) -> None:
    text = " ".join(words)
    assert exact(text, text) == 1.0
    assert 0.0 <= partial("desk", text) <= 1.0
    kept = normalise(text).split()
    assert partial(text, text) == pytest.approx(len(set(kept)) / len(kept) if kept else 0.0)
