"""Who holds up a group, from the pulses of its ranks."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from plinth.launch.pulse import Pulse
from plinth.launch.watch import LATE_S, LOOK_EVERY_S, Watch

SILENT_S = 20.0
AT_WORK = Pulse(0, "vm", "node", 7, 1, "takes step", 3, 0.5, 60.0, "loop.py:9 in step", False)


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


class Group:
    """Two ranks, looked at as time goes on."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.watch = Watch(SILENT_S, self.clock)

    def after(self, seconds: float, *pulses: Pulse) -> dict[int, str] | None:
        """Why ranks hang, at the first look within `seconds` in which some do; pulses come all the time."""
        until = self.clock.now + seconds
        while self.clock.now < until:
            self.clock.now += LOOK_EVERY_S
            for pulse in pulses:
                self.watch.heard(pulse)
            if hang := self.watch.look():
                assert {pulse.rank for pulse in hang.pulses} == set(hang.why)
                return hang.why
        return None


def of(rank: int, **changes: Any) -> Pulse:
    return replace(AT_WORK, rank=rank, **changes)


def test_a_silent_rank_is_named_with_what_it_did_last() -> None:
    group = Group()
    assert group.after(5, of(0), of(1, step=4)) is None
    assert group.after(SILENT_S, of(0)) is None, "not before its time"
    why = group.after(3, of(0))
    assert why is not None
    assert list(why) == [1]
    assert why[1].startswith("gave no sign of life for 21 s, so it was ended (process 7: stopped, or ")
    assert why[1].endswith("before, takes step 4 (loop.py:9 in step)")


def test_of_ranks_that_are_late_the_one_outside_the_collective_is_named() -> None:
    waiting, stuck = of(0, for_s=70.0, is_in_collective=True), of(1, for_s=65.0)
    why = Group().after(5, waiting, stuck)
    assert why == {1: "was ended: for 65 s takes step 3 (loop.py:9 in step), the others wait for it"}


def test_all_are_named_where_none_is_outside() -> None:
    why = Group().after(5, *(of(rank, for_s=70.0, is_in_collective=True) for rank in (0, 1)))
    assert why is not None
    assert sorted(why) == [0, 1]
    assert "the others" not in why[0]


def test_nobody_hangs_while_the_one_that_is_waited_for_may_take_its_time() -> None:
    waiting = of(0, for_s=70.0, is_in_collective=True)
    assert Group().after(5, waiting, of(1, doing="is done with step", for_s=300.0, limit_s=None)) is None
    assert Group().after(5, waiting, of(1, for_s=2.0)) is None


def test_who_may_end_is_not_missed() -> None:
    group = Group()
    group.after(2, of(0), of(1))
    group.watch.forget(1)
    assert group.after(2 * SILENT_S, of(0)) is None
    group.watch.clear()
    assert group.after(2 * SILENT_S) is None


def test_a_machine_that_slept_has_missed_nothing() -> None:
    """What watches was stopped with it."""
    group = Group()
    group.after(2, of(0), of(1))
    group.clock.now += 10 * SILENT_S + LATE_S
    assert group.watch.look() is None
    assert group.after(SILENT_S - 2, of(0)) is None
    assert group.after(5, of(0)) is not None, "then it counts again"
