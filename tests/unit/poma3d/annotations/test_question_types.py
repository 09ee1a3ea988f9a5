"""Question types: a prefix is no word, and ScanQA's classes are tried in their order."""

from __future__ import annotations

import pytest

from poma3d.annotations.names import TYPE_RULES
from poma3d.annotations.question_types import TypeRule, scanqa_type, sqa3d_type


@pytest.mark.parametrize(
    ("question", "prefix", "token", "word"),
    [
        ("What is it?", "what", "what", "what"),
        ("  what is it?", "what", "what", "what"),
        ("What's behind me?", "what", "what", "other"),
        ("What, then?", "what", "what", "other"),
        ("Isn't it brown?", "is", "other", "other"),
        ("Island or table?", "is", "other", "other"),
        ("However many chairs?", "how", "other", "other"),
        ("Can I sit?", "can", "can", "can"),
        ("Which?", "which", "which", "other"),
        ("In front, which is it?", "other", "other", "other"),
    ],
)
def test_sqa3d(question: str, prefix: str, token: str, word: str) -> None:
    assert [sqa3d_type(question, rule) for rule in TypeRule] == [prefix, token, word]


@pytest.mark.parametrize(
    ("question", "kind"),
    [
        ("Where is the bed?", "place"),
        ("How many chairs are there?", "number"),
        ("What color is it?", "color"),
        ("What is the color of it?", "color"),
        ("What type of table is it?", "object nature"),
        ("What is on the desk?", "object"),
        ("what is on the desk?", "other"),
        ("WHat is on the desk?", "other"),
        ("Say Where, How many", "place"),
        ("What shape is it? What is it?", "object nature"),
    ],
)
def test_scanqa(question: str, kind: str) -> None:
    assert scanqa_type(question) == kind


def test_the_command_line_offers_all_rules() -> None:
    assert tuple(rule.value for rule in TypeRule) == TYPE_RULES
