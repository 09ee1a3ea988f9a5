"""Pages and tables compared with a stored copy beside their test.

After a change that is meant, look at the page, then renew the copies and read their diff:

    RENEW_SNAPSHOTS=1 pytest tests/unit/jobs/runs
"""

from __future__ import annotations

import os
import re
from pathlib import Path

STAND_INS = (
    (re.compile(r"<style>.*?</style>", re.DOTALL), "<style>...</style>"),
    (re.compile(r"<svg.*?</svg>", re.DOTALL), "<svg>...</svg>"),
    (re.compile(r"<script>/\*! uPlot.*?</script>\n<script>.*?</script>", re.DOTALL), "<script>...</script>"),
    (re.compile(r'"tables": \[\[.*?\]\]\]'), '"tables": "..."'),
    (re.compile(r"data:image/png;base64,[\w+/=]+"), "data:image/png;base64,..."),
)
"""What a snapshot leaves out: styles and charts are judged by looking, pictures change with their library."""


def assert_snapshot(text: str, expected: Path) -> None:
    """Compare, or write `expected` if the environment has RENEW_SNAPSHOTS."""
    for found, stand_in in STAND_INS:
        text = found.sub(stand_in, text)
    text = "".join(f"{line.rstrip()}\n" for line in text.splitlines())
    if os.environ.get("RENEW_SNAPSHOTS"):
        expected.write_text(text)
    assert text == expected.read_text()
