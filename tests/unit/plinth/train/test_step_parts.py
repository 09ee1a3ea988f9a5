"""The clocks of a step's parts: exclusive, of one thread."""

from __future__ import annotations

import threading
import time

import pytest

from plinth.train.parts import Parts

SHORT_S, LONG_S = 0.02, 0.06


def test_a_part_is_without_the_parts_inside_it() -> None:
    parts = Parts()
    with parts.part("outer"):
        time.sleep(SHORT_S)
        parts.wrap("inner", time.sleep)(LONG_S)
    found = parts.take(2)
    assert found["inner"] >= 1000 * LONG_S / 2
    assert 1000 * SHORT_S / 2 <= found["outer"] < 1000 * LONG_S / 2
    assert parts.take(1) == {}


def test_a_whole_part_counts_the_parts_inside_it() -> None:
    parts = Parts()
    with parts.part("outer"):
        with parts.part("checkpoint", whole=True):
            parts.wrap("inner", parts.wrap("innermost", time.sleep))(LONG_S)
        parts.wrap("inner", time.sleep)(SHORT_S)
    found = parts.take(1)
    assert found["checkpoint"] >= 1000 * LONG_S
    assert 1000 * SHORT_S <= found["inner"] < 1000 * LONG_S, "only the one after it"
    assert found.keys() == {"outer", "checkpoint", "inner"}


def test_other_threads_are_left_alone() -> None:
    parts = Parts()
    other = threading.Thread(target=parts.wrap("other", time.sleep), args=(SHORT_S,))
    with parts.part("own"):
        other.start()
        other.join()
    assert parts.take(1).keys() == {"own"}


def test_the_clock_is_read_after_the_device_is_waited_for() -> None:
    parts = Parts(wait=lambda: time.sleep(SHORT_S))
    with parts.part("asked of a device"):
        pass
    assert parts.take(1)["asked of a device"] >= 1000 * SHORT_S


def test_a_part_that_fails_ends() -> None:
    parts = Parts()
    with pytest.raises(ZeroDivisionError), parts.part("outer"), parts.part("inner"):
        raise ZeroDivisionError
    with parts.part("next"):
        pass
    assert set(parts.take(1)) == {"outer", "inner", "next"}
