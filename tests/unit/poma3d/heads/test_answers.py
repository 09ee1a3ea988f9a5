"""The vocabulary and the three public treatments of answers outside it; question types by two rules."""

from __future__ import annotations

import pytest

from poma3d.annotations.vocabulary import UnknownAnswers, Vocabulary
from poma3d.heads.answers import Answers, question_type

WRONG, CLASS_U, IMPOSSIBLE = UnknownAnswers.wrong, UnknownAnswers.class_u, UnknownAnswers.impossible
TEXTS = ("blue", "two", "u")


def answers_of(unknown: UnknownAnswers, texts: tuple[str, ...] = TEXTS) -> Answers:
    return Answers(Vocabulary(texts), unknown)


@pytest.mark.parametrize(
    ("unknown", "known", "mixed", "none"),
    [(WRONG, (1,), (0,), ()), (CLASS_U, (1,), (0, 2), (2,)), (IMPOSSIBLE, (1,), (0, 3), (3,))],
)
def test_targets_under_each_treatment(
    unknown: UnknownAnswers, known: tuple[int, ...], mixed: tuple[int, ...], none: tuple[int, ...]
) -> None:
    answers = answers_of(unknown)
    assert answers.targets(["two", "two"]) == known
    assert answers.targets(["blue", "teal"]) == mixed
    assert answers.targets(["teal"]) == none


def test_predicting_u_is_right_only_where_the_protocol_says_so() -> None:
    assert answers_of(CLASS_U).right(["teal"]) == (2,)
    assert answers_of(WRONG).right(["teal"]) == ()
    assert answers_of(IMPOSSIBLE).right(["teal"]) == ()


def test_the_impossible_class_is_one_more() -> None:
    assert [answers_of(each).classes for each in (WRONG, CLASS_U, IMPOSSIBLE)] == [3, 3, 4]
    assert answers_of(IMPOSSIBLE).digest != answers_of(WRONG).digest
    assert (
        answers_of(WRONG, ("two", "blue", "u")).digest != answers_of(WRONG).digest
    )  # the order is the class


@pytest.mark.parametrize(
    ("texts", "unknown", "says"),
    [
        (("a", "b"), CLASS_U, "no answer 'u'"),
        (("a",), WRONG, "at least 2"),
    ],
)
def test_lists_that_cannot_be_classes_are_refused(
    texts: tuple[str, ...], unknown: UnknownAnswers, says: str
) -> None:
    with pytest.raises(ValueError, match=says):
        answers_of(unknown, texts)


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
    assert question_type(question, "scanqa") in ("object", "other")
    assert question_type(question, "given", "Scale Direction") == "Scale Direction"
