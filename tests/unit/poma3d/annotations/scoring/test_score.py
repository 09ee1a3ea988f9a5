"""Scores by hand: what is missing is wrong, types are shares of their own rows, unknown answers by name."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from poma3d.annotations.question_types import TypeRule
from poma3d.annotations.rows import CameraText, Question
from poma3d.annotations.scoring.predictions import Answered, Located
from poma3d.annotations.scoring.score import FIGURES, Options, protocol_of, score_answers, score_locations
from poma3d.annotations.vocabulary import UnknownAnswers, Vocabulary


def asked(*rows: tuple[str, tuple[str, ...]], types: Sequence[str] = ()) -> list[Question]:
    kinds = [*types, *[""] * (len(rows) - len(types))]
    return [
        Question("s", str(number), question, answers, question_type=kind)
        for number, ((question, answers), kind) in enumerate(zip(rows, kinds, strict=True))
    ]


def single(*answers: str | None) -> dict[str, Answered]:
    pairs = enumerate(answers)
    return {
        str(n): Answered((answer,), False, f"p, line {n + 1}") for n, answer in pairs if answer is not None
    }


def lists(*answers: Sequence[str]) -> dict[str, Answered]:
    return {str(n): Answered(tuple(each), True, f"p, line {n + 1}") for n, each in enumerate(answers)}


def test_figures_and_types_by_hand() -> None:
    rows = asked(
        ("What is it?", ("desk",)),
        ("What is it?", ("2",)),
        ("Is it?", ("dark brown", "brown")),
        ("Is it?", ("yes",)),
        ("How so?", ("red",)),
    )
    found = score_answers("sqa3d", rows, single("desk", "two", "brown", "yes sir"), Options())
    assert (found.rows, found.missing) == (5, 1)
    assert found.figures == {"raw": 40.0, "strict": 60.0, "leo": 40.0, "refined": 80.0}
    assert {name: part.rows for name, part in found.by_type.items()} == {"how": 1, "is": 2, "what": 2}
    assert found.by_type["what"].figures == {"raw": 50.0, "strict": 100.0, "leo": 100.0, "refined": 100.0}
    assert found.by_type["how"].missing == 1
    assert found.by_type["how"].figures["refined"] == 0.0, "a missing answer is no empty answer"
    assert found.remarks == []


def test_figures_are_not_rounded() -> None:
    rows = asked(*[("Is it?", ("yes",))] * 3)
    assert score_answers("sqa3d", rows, single("yes", "no", "no"), Options()).figures["raw"] == 100 / 3


def test_rows_without_an_answer_are_left_out_and_said() -> None:
    found = score_answers("scanqa", asked(("What?", ("a",)), ("What?", ())), single("a", "a"), Options())
    assert found.rows == 1
    assert found.remarks == ["1 rows without an answer are left out"]
    with pytest.raises(ValueError, match="the annotations have no answers"):
        score_answers("scanqa", asked(("What?", ())), single("a"), Options())


def test_em_counts_the_first_k() -> None:
    rows = asked(("What?", ("c",)), ("What?", ("a",)))
    predictions = lists(["a", "b", "c"], ["a", "b", "c"])
    assert score_answers("scanqa", rows, predictions, Options(k=2)).figures["em2"] == 50.0
    found = score_answers("scanqa", rows, predictions, Options(k=10))
    assert found.figures["em10"] == 100.0
    assert found.remarks == ["em10: some lists are shorter, the shortest has 3 answers"]


def test_no_em_of_single_answers() -> None:
    rows = asked(("What?", ("a",)), ("What?", ("a",)))
    assert "em10" not in score_answers("scanqa", rows, single("a", "a"), Options()).figures
    mixed = {**single("a"), "1": Answered(("a", "b"), True, "p, line 2")}
    found = score_answers("scanqa", rows, mixed, Options())
    assert "em10" not in found.figures
    assert found.remarks == ["no em: 1 of 2 predictions are a single answer, no list"]


def test_k_above_the_classes_is_cut() -> None:
    rows = asked(("What?", ("a",)))
    options = Options(k=10, vocabulary=Vocabulary(("a", "b", "u")))
    found = score_answers("scanqa", rows, lists(["b", "a", "u"]), options)
    assert found.figures["em3"] == 100.0
    assert "the best 10 are cut to the 3 classes that there are" in found.remarks


@pytest.mark.parametrize(
    ("unknown", "raw"),
    [(UnknownAnswers.wrong, 50.0), (UnknownAnswers.class_u, 100.0), (UnknownAnswers.impossible, 50.0)],
)
def test_three_treatments_of_unknown_answers_have_three_scores(unknown: UnknownAnswers, raw: float) -> None:
    rows = asked(("What?", ("desk",)), ("What?", ("armoire",)))
    options = Options(vocabulary=Vocabulary(("desk", "u")), unknown=unknown)
    found = score_answers("sqa3d", rows, single("desk", "u"), options)
    assert found.figures["raw"] == raw
    assert found.figures["strict"] == 50.0, "the texts are compared as they are listed"
    assert "1 rows have no answer in the vocabulary" in found.remarks[0]
    assert ("at most 50.00 %" in found.remarks[0]) == (raw == 50.0)


def test_predictions_of_another_vocabulary_are_refused() -> None:
    options = Options(vocabulary=Vocabulary(("desk", "u")))
    with pytest.raises(
        ValueError, match=r"p, line 1 \(id 0\): the answer 'table' is not in the vocabulary of 2"
    ):
        score_answers("sqa3d", asked(("What?", ("desk",))), single("table"), options)
    with pytest.raises(ValueError, match="no answer 'u'"):
        score_answers(
            "sqa3d",
            asked(("What?", ("desk",))),
            single("desk"),
            Options(vocabulary=Vocabulary(("desk",)), unknown=UnknownAnswers.class_u),
        )


def test_the_rule_of_types_is_named() -> None:
    rows = asked(("What's it?", ("a",)))
    for rule, kind in ((TypeRule.prefix, "what"), (TypeRule.token, "what"), (TypeRule.word, "other")):
        assert list(score_answers("sqa3d", rows, single("a"), Options(rule=rule)).by_type) == [kind]


def test_hypo3d_rows_of_several_types_count_in_each() -> None:
    rows = asked(
        ("How many?", ("two chairs",)), ("Where?", ("front left",)), types=["Scale Direction", "Direction"]
    )
    found = score_answers("hypo3d", rows, single("2", "north and right"), Options())
    assert found.figures == {"raw": 0.0, "hypo3d_em": 50.0, "hypo3d_pm": 75.0}
    assert {name: part.rows for name, part in found.by_type.items()} == {"Direction": 2, "Scale": 1}
    assert found.by_type["Scale"].figures["hypo3d_em"] == 100.0


def direction(number: int, choice: int, answer: str) -> Question:
    return Question("s", str(number), "q", (answer,), question_type=answer, choice=choice)


def test_msnn_by_class_whatever_the_spelling() -> None:
    rows = [
        direction(0, 1, "turn to foward left"),
        direction(1, 4, "move backward"),
        direction(2, 0, "move forward"),
    ]
    found = score_answers("msnn", rows, single("turn to forward left", "left?"), Options(directions=8))
    assert found.figures == {"accuracy8": pytest.approx(100 / 3), "invalid": pytest.approx(200 / 3)}
    assert found.missing == 1


def test_msnn_top_ten_of_four_classes() -> None:
    found = score_answers(
        "msnn", [direction(0, 3, "turn right")], lists(["turn left", "turn right"]), Options()
    )
    assert found.figures == {"accuracy4": 0.0, "invalid": 0.0, "em4": 100.0}
    assert "the best 10 are cut to the 4 classes that there are" in found.remarks


def test_locations_by_hand() -> None:
    unit = (0.0, 0.0, 0.0, 1.0)
    rows = [
        CameraText("s", "t", (0.0, 0.0, 0.0), unit, "sqa3d", text_id=str(n), orientation=unit)
        for n in range(2)
    ]
    found = score_locations(rows, {"0": Located(((0.7, 0.0, 0.0),), (unit,))})
    assert (found.rows, found.missing) == (2, 1)
    assert found.figures == {
        "position_0.5m": 0.0, "position_1m": 50.0, "rotation_15deg": 50.0, "rotation_30deg": 50.0,
    }  # fmt: skip
    with pytest.raises(ValueError, match="no pose of SQA3D's localisation task"):
        score_locations([CameraText("s", "t", (0.0, 0.0, 0.0), unit, "scanrefer")], {})


def test_every_figure_has_its_protocol() -> None:
    names = {name for each in FIGURES.values() for name in each}
    for name in (*names, "em10", "em4", "accuracy8", "invalid", "position_0.5m", "rotation_15deg"):
        assert protocol_of(name)
    assert protocol_of("refined") != protocol_of("raw")
