"""Ids and messages that hold line breaks or escape codes reach no terminal and no log as they are."""

from __future__ import annotations

import logging

import pytest

from plinth.escapes import printable, without_codes
from plinth.observe.failures import Failure, first_cause
from plinth.redaction import RedactionFilter

RED = "a\x1b[31m\rb\u2028c\x9bd\x00"


def test_one_line_without_codes() -> None:
    assert printable(f"{RED}\né字\ud800") == "a\\x1b[31m\\rb\\u2028c\\x9bd\\x00\\né字\\ud800"


def test_lines_stay_where_there_are_some() -> None:
    assert without_codes(f"x\n\t{RED}") == "x\n\ta\\x1b[31m\\rb\\u2028c\\x9bd\\x00"


def test_logs_have_no_codes() -> None:
    record = logging.LogRecord("plinth", logging.INFO, "", 0, "rank %s\nsecond line", (RED,), None)
    assert RedactionFilter().filter(record)
    assert record.getMessage() == "rank a\\x1b[31m\\rb\\u2028c\\x9bd\\x00\nsecond line"


@pytest.mark.parametrize("sample_id", ["room\n2026-01-01 ERROR", "room\x1b]0;title\x07"])
def test_ids_in_a_first_cause_stay_in_their_line(sample_id: str) -> None:
    failure = Failure("a1", 0, "node", 1, 0.0, "ValueError", "x\x1b[2Jy", "", 3, [sample_id])
    said = first_cause([failure])
    assert "\x1b" not in said
    assert said.count("\n") == 1
    assert printable(sample_id) in said
