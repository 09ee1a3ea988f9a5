"""The vocabulary and the three public treatments of answers outside it; question types by two rules."""

from __future__ import annotations

import pytest

from poma3d.heads.answers import Answers, listed, question_type
from poma3d.heads.config import CLASS_U, IMPOSSIBLE, WRONG

TEXTS = ("blue", "two", "u")


@pytest.mark.parametrize(
    ("unknown", "known", "mixed", "none"),
    [(WRONG, (1,), (0,), ()), (CLASS_U, (1,), (0, 2), (2,)), (IMPOSSIBLE, (1,), (0,), (3,))],
)
def test_targets_under_each_treatment(
    unknown: str, known: tuple[int, ...], mixed: tuple[int, ...], none: tuple[int, ...]
) -> None:
    answers = Answers(TEXTS, unknown)
    assert answers.targets(["two", "two"]) == known
    assert answers.targets(["blue", "teal"]) == mixed
    assert answers.targets(["teal"]) == none


def test_predicting_u_is_right_only_where_the_protocol_says_so() -> None:
    assert Answers(TEXTS, CLASS_U).right(["teal"]) == (2,)
    assert Answers(TEXTS, WRONG).right(["teal"]) == ()
    assert Answers(TEXTS, IMPOSSIBLE).right(["teal"]) == ()


def test_the_impossible_class_is_one_more() -> None:
    assert [Answers(TEXTS, each).classes for each in (WRONG, CLASS_U, IMPOSSIBLE)] == [3, 3, 4]
    assert Answers(TEXTS, IMPOSSIBLE).digest != Answers(TEXTS, WRONG).digest
    assert (
        Answers(("two", "blue", "u"), WRONG).digest != Answers(TEXTS, WRONG).digest
    )  # the order is the class


@pytest.mark.parametrize(
    ("texts", "unknown", "says"),
    [
        (("a", "b"), CLASS_U, "no class 'u'"),
        (("a", "a"), WRONG, "twice"),
        (("a",), WRONG, "at least 2"),
    ],
)
def test_lists_that_cannot_be_classes_are_refused(texts: tuple[str, ...], unknown: str, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        Answers(texts, unknown)


def test_the_vocabulary_is_sorted_and_counts_repeats() -> None:
    assert listed([("b", "b"), ("a",), ("TV",)]) == ["TV", "a", "b"]
    assert listed([("b", "b"), ("a",)], min_frequency=2) == ["b"]


@pytest.mark.parametrize(
    ("question", "prefix", "token"),
    [
        ("What is on the desk?", "what", "what"),
        ("  what's left of me?", "what", "what"),
        ("Isn't it round?", "is", "other"),
        ("Island or not?", "is", "other"),
        ("However did it get here?", "how", "other"),
        ("Which, if any?", "which", "which"),
        ("Am I facing it?", "other", "other"),
    ],
)
def test_question_types_by_prefix_and_by_token(question: str, prefix: str, token: str) -> None:
    assert question_type(question, "prefix") == prefix
    assert question_type(question, "token") == token
    assert question_type(question, "given", "Scale Direction") == "Scale Direction"
