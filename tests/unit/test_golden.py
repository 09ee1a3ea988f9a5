"""Files that an earlier version has written are read as they were then: `tests/golden`."""

from __future__ import annotations

import json

import pytest

from tests.golden.make import EXPECTED, FOLDER, found


def test_files_of_an_earlier_version_are_read_as_they_were() -> None:
    """If this fails, a format has changed: old data sets, checkpoints and encoders need a way in."""
    now, then = found(FOLDER), json.loads(EXPECTED.read_text())
    assert now["dataset"] == then["dataset"]
    assert now["checkpoint"] == then["checkpoint"]
    for name in ("encoder", "handed_on"):
        for view, expected in zip(now[name], then[name], strict=True):
            assert view == pytest.approx(expected, abs=0.002), "the same to the digit that is kept"
