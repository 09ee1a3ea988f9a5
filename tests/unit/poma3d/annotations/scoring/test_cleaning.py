"""The cleaning of answers: every oddity of the public code, and parity with it step by step."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from poma3d.annotations.scoring.cleaning import REPAIRS, UNITS, clean
from poma3d.annotations.vocabulary import read_vocabulary
from tests.helpers.annotations.layouts import SQA3D_ROWS


@pytest.mark.parametrize(
    ("answer", "cleaned"),
    [
        ("none", "zero"),
        ("let", "left"),
        ("tv", "TV"),
        ("3.5 m", "35 m"),
        ("brown/black", "brownblack"),
        ("façade", "faade"),
        ("it’s", "its"),
        ("yes\n", "yes\n"),
        ("yes \n", "yes\n"),
        ("20", "twenty"),
        ("21", "21"),
        ("23", "twenty-three"),
        ("24", "24"),
        ("mat2", "mat"),
        ("mat12", "mat12"),
        ("The  chair. ", "chair"),
        ("a an the chair", "chair"),
        ("a a chair", "a chair"),
        ("backwards", "backward"),
        ("7 oclock", "seven o'clock"),
        ("7 o'  clock", "seven o'clock"),
        (".", ""),
    ],
)
def test_as_the_public_code_has_it(answer: str, cleaned: str) -> None:
    assert clean(answer) == cleaned


def step_by_step(text: str) -> str:
    """One substitution after the other, none of them shared with the code."""
    text = text.lower()
    while re.search(r"[ ]+$", text):
        text = re.sub(r"[ ]+$", "", text)
    while text.startswith(" "):
        text = text[1:]
    while "  " in text:
        text = text.replace("  ", " ")
    allowed = set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789,'-:")
    text = "".join(c for c in text if c in allowed or re.match(r"\s", c))
    for wrong, right in REPAIRS.items():
        if wrong in ("none", "23") or wrong.isdigit():
            continue
        text = re.sub(rf"\b{wrong}\b", right, text)
    text = re.sub(r"\bo'[ ]+clock\b", "o'clock", text)
    for number, word in enumerate(UNITS):
        text = re.sub(rf"\b{number}\b", word, text)
        text = re.sub(r"\bnone\b", "zero", text) if number == 0 else text
    text = re.sub(r"\b23\b", "twenty-three", text)
    text = re.sub(r"\b([a-zA-Z]+)([0-9])\b", r"\g<1>", text)
    for article in ("a", "an", "the"):
        text = re.sub(rf"\b{article}\b ([a-zA-Z]+)", r"\g<1>", text)
    return re.sub(r"\bbackwards\b", "backward", text)


words = st.sampled_from(
    [*REPAIRS, "a", "an", "the", "chair", "backwards", "o'", "clock", "mat2", "21", "é", ".", "-"]
)
gaps = st.sampled_from([" ", "  ", "", "\n", "\t", ",", "/", "\u00a0", "'"])


@given(st.lists(st.tuples(words, gaps), max_size=8))
def test_parity_with_one_step_after_the_other(pieces: list[tuple[str, str]]) -> None:
    text = "".join(word + gap for word, gap in pieces)
    assert clean(text) == step_by_step(text)


@given(st.text(max_size=20))
def test_parity_on_any_text(text: str) -> None:
    assert clean(text) == step_by_step(text)


@pytest.mark.skipif(not SQA3D_ROWS.is_dir(), reason="the real dictionary is not beside the tree")
def test_all_answers_of_sqa3d_are_fixed_points() -> None:
    answers = read_vocabulary(SQA3D_ROWS / "answer_dict.json").answers
    assert [answer for answer in answers if clean(answer) != answer] == []
