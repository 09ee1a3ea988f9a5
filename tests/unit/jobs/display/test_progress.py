"""Progress: plain lines in a log, a bar on a terminal."""

from __future__ import annotations

import io
import sys

import pytest

from jobs.display.progress import Progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_log_gets_a_line_when_it_is_time_and_at_the_end(capsys: pytest.CaptureFixture[str]) -> None:
    progress = Progress("embed rooms", "shards", 3, every_s=1e9)
    progress.advance()
    assert capsys.readouterr().out == ""
    progress.every_s = 0.0
    progress.advance(note="loss 2.00")
    assert capsys.readouterr().out == "embed rooms: 2/3 shards, loss 2.00, 0 s left\n"
    progress.every_s = 1e9
    progress.advance()
    assert capsys.readouterr().out == "embed rooms: 3/3 shards, done in 0 s\n"


def test_lines_of_a_long_loop_become_rare(monkeypatch: pytest.MonkeyPatch) -> None:
    times = iter(range(1000))
    monkeypatch.setattr("time.monotonic", lambda: float(next(times)))
    lines = io.StringIO()
    monkeypatch.setattr(sys, "stdout", lines)
    progress = Progress("teacher", "steps", 10_000)
    for _ in range(300):
        progress.advance()
    assert len(lines.getvalue().splitlines()) == 6, "after 20, 60, 120, 180, 240, 300 seconds"


def test_terminal_gets_a_bar_with_rate_and_time_left(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stdout", terminal)
    progress = Progress("embed rooms", "shards", 2)
    for _ in range(2):
        progress.advance(note="loss 2.00")
    last = terminal.getvalue().rsplit("\r", 1)[-1]
    assert last.startswith("embed rooms: 100%|")
    assert "2/2 [" in last
    assert "shards/s, loss 2.00" in last
    assert terminal.getvalue().endswith("\n")
