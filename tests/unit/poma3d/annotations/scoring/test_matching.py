"""Four rules of a right answer, and what is odd about each."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from poma3d.annotations.scoring import matching
from poma3d.annotations.scoring.cleaning import clean


@pytest.mark.parametrize(
    ("predicted", "answers", "raw", "strict", "leo", "refined"),
    [
        ("brown", ["brown"], True, True, True, True),
        ("2", ["two"], False, True, True, True),
        ("tv", ["TV"], False, True, True, True),
        ("brown", ["dark brown", "brown"], True, True, False, True),
        ("brown", ["brown", "dark brown"], True, True, True, True),
        ("dark brown", ["brown", "dark brown"], True, True, False, True),
        ("", ["brown"], False, False, False, True),
        (".", ["brown"], False, False, False, True),
        ("i do not know", ["no"], False, False, False, True),
        ("seven", ["even"], False, False, False, True),
        ("one", ["phone"], False, False, False, True),
        ("in front", ["infront"], False, False, False, True),
        ("yes\n", ["yes"], False, False, False, True),
        ("red", ["blue", "green"], False, False, False, False),
    ],
)
def test_by_hand(
    predicted: str, answers: list[str], raw: bool, strict: bool, leo: bool, refined: bool
) -> None:
    rules = (matching.raw, matching.strict, matching.leo, matching.refined)
    assert [rule(predicted, answers) for rule in rules] == [raw, strict, leo, refined]


def leo_by_loops(predicted: str, answers: list[str]) -> tuple[int, int]:
    """EM and EM-R as LEO's evaluator finds them: it returns at the first answer that matches at all."""
    mine = "".join(predicted.split())
    for answer in answers:
        if predicted == answer:
            return 1, 1
        other = "".join(answer.split())
        if mine in other or other in mine:
            return 0, 1
    return 0, 0


texts = st.text("ab ", max_size=4)


@given(texts, st.lists(texts, min_size=1, max_size=4))
def test_parity_and_order_of_the_rules(predicted: str, answers: list[str]) -> None:
    cleaned = [clean(answer) for answer in answers]
    em, refined = leo_by_loops(clean(predicted), cleaned)
    found = [rule(predicted, answers) for rule in (matching.leo, matching.strict, matching.refined)]
    assert found == [bool(em), clean(predicted) in cleaned, bool(refined)]
    assert sorted(found) == found, "each rule takes what the rule before it takes"


def test_among_the_first() -> None:
    assert not matching.among(["a", "b", "c"], ["c"], 2)
    assert matching.among(["a", "b", "c"], ["c"], 3)
    assert matching.among(["a"], ["a", "a"], 10)
