"""What is done every few seconds: when it is called, when no more, and what happens when it fails."""

from __future__ import annotations

import logging
import threading
import time

import pytest

from plinth.every import Every

LONG_S = 3600.0


def test_act_is_called_until_it_is_closed() -> None:
    calls: list[float] = []
    called = threading.Semaphore(0)

    def act() -> None:
        calls.append(time.monotonic())
        called.release()

    with Every(0.01, act, "it fails"):
        for _ in range(3):
            assert called.acquire(timeout=10)
    count = len(calls)
    time.sleep(0.05)
    assert len(calls) == count


@pytest.mark.parametrize(
    ("at_start", "at_end", "expected"),
    [(False, False, 0), (True, False, 1), (False, True, 1), (True, True, 2)],
)
def test_act_is_called_at_the_start_and_the_end_if_asked(at_start: bool, at_end: bool, expected: int) -> None:
    calls: list[int] = []
    first = threading.Event()

    def act() -> None:
        calls.append(1)
        first.set()

    every = Every(LONG_S, act, "it fails", at_start=at_start, at_end=at_end)
    assert not at_start or first.wait(10)
    every.close()
    assert len(calls) == expected


def test_soon_does_not_wait() -> None:
    called = threading.Event()
    with Every(LONG_S, called.set, "it fails") as every:
        every.soon()
        assert called.wait(10)


def test_act_may_stop_itself() -> None:
    calls: list[int] = []
    stopped = threading.Event()

    def act() -> None:
        calls.append(1)
        every.stop()
        stopped.set()

    every = Every(0.01, act, "it fails")
    assert stopped.wait(10)
    time.sleep(0.05)
    assert calls == [1]
    every.close()


def test_an_error_is_logged_once_until_it_is_over(caplog: pytest.LogCaptureFixture) -> None:
    outcomes = [True, False, False, True, False, False]  # whether the call succeeds
    done = threading.Event()

    def act() -> None:
        is_good = outcomes.pop(0)
        if not outcomes:
            every.stop()
            done.set()
        if not is_good:
            raise OSError("away")

    with caplog.at_level(logging.WARNING, logger="plinth"):
        every = Every(0.005, act, "the ledger cannot be written")
        assert done.wait(10)
        every.close()
    assert caplog.messages == ["the ledger cannot be written, trying again every 0.005 s: away"] * 2
