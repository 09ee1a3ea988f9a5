"""Vocabularies as the public code builds them, and what becomes of answers outside them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from poma3d.annotations.directions import EIGHT, FOUR
from poma3d.annotations.names import UNKNOWN_ANSWERS
from poma3d.annotations.rows import Question
from poma3d.annotations.vocabulary import (
    ClassOrder,
    UnknownAnswers,
    Vocabulary,
    of_directions,
    of_training,
    read_vocabulary,
)
from tests.helpers.annotations.layouts import SQA3D_ROWS, scanqa_row, write_json

PAIR = [{"u": 0, "desk": 1, "TV": 2}, {"0": "u", "1": "desk", "2": "TV"}]


def test_scanqa_is_every_distinct_answer_of_training_sorted(tmp_path: Path) -> None:
    rows = [
        Question("s", str(n), "q", answers) for n, answers in enumerate([("b", "a", "a"), ("c",), ("a",)])
    ]
    assert of_training(rows).answers == ("a", "b", "c")
    path = write_json(
        tmp_path / "ScanQA_v1.0_train.json", [scanqa_row(0, "2", "2"), scanqa_row(1, "10", "tv")]
    )
    assert read_vocabulary(path).answers == ("10", "2", "tv")


def test_the_numbers_of_a_dictionary_are_ignored_or_not(tmp_path: Path) -> None:
    path = write_json(tmp_path / "answer_dict.json", PAIR)
    assert read_vocabulary(path).answers == ("TV", "desk", "u")
    assert read_vocabulary(path, ClassOrder.file).answers == ("u", "desk", "TV")


def test_a_list_is_in_the_order_of_its_classes(tmp_path: Path) -> None:
    path = write_json(tmp_path / "classes.json", ["u", "desk", "TV"])
    assert read_vocabulary(path).answers == ("u", "desk", "TV")


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (
            [{"u": 0, "desk": 2}, {"0": "u", "1": "desk"}],
            "number 1 is 'desk' in one part, whose number is 2 in the other",
        ),
        ([{"u": 0, "desk": 2}, {"0": "u", "2": "desk"}], "number 1 is None"),
        ([{"u": 0}, {"0": "u", "1": "desk"}], "1 answers in one part, 2 in the other"),
        (["u", "desk", "u"], "'u' stands there twice"),
        ([{"scene_id": "a", "question_id": "b", "question": "c"}], "a ScanQA file without answers"),
        ({"scene0000_00": {"captions": ["a"]}}, "a vocabulary is an answer dictionary"),
        ({"desk": 0}, "an object with desk"),
    ],
)
def test_broken_vocabularies(tmp_path: Path, content: Any, says: str) -> None:
    with pytest.raises(ValueError, match=r"a\.json") as caught:
        read_vocabulary(write_json(tmp_path / "a.json", content))
    assert says in str(caught.value)


def test_three_treatments_of_unknown_answers() -> None:
    vocabulary = Vocabulary(("desk", "u"))
    for unknown, mixed, none in (
        (UnknownAnswers.wrong, (0,), ()),
        (UnknownAnswers.class_u, (0, 1), (1,)),
        (UnknownAnswers.impossible, (0, 2), (2,)),
    ):
        assert vocabulary.targets(["desk", "armoire", "desk"], unknown) == mixed
        assert vocabulary.targets(["armoire"], unknown) == none
    with pytest.raises(ValueError, match="no answer 'u'"):
        Vocabulary(("desk",)).targets(["armoire"], UnknownAnswers.class_u)


def test_k_is_cut_to_the_classes() -> None:
    assert of_directions(4).best(10) == 4
    assert Vocabulary(tuple(map(str, range(706)))).best(10) == 10


def test_directions_and_names() -> None:
    assert of_directions(4).answers == FOUR
    assert of_directions(8).answers == EIGHT
    assert tuple(each.value for each in UnknownAnswers) == UNKNOWN_ANSWERS


@pytest.mark.skipif(not SQA3D_ROWS.is_dir(), reason="the real dictionary is not beside the tree")
def test_the_real_dictionary() -> None:
    by_file = read_vocabulary(SQA3D_ROWS / "answer_dict.json", ClassOrder.file)
    assert len(by_file) == 706
    assert by_file.classes["u"] == 704
    assert list(by_file.answers) != sorted(by_file.answers)
    assert "unknown" not in by_file
    assert {"TV", "TV stand", "trash can", "trashcan"} <= set(by_file.answers)


def test_a_training_file_with_bad_rows_makes_no_vocabulary(tmp_path: Path) -> None:
    path = write_json(tmp_path / "train.json", [scanqa_row(0), scanqa_row(1, answers=[3])])
    with pytest.raises(ValueError, match=r"1 bad rows; the first is .*row 2"):
        read_vocabulary(path)
