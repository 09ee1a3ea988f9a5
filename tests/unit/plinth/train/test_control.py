"""What comes from outside, and that all ranks act on it at the same step."""

from __future__ import annotations

import os
import signal
import time

import pytest
import torch

from plinth.engine import global_batch, process
from plinth.train.control import (
    STOP_SIGNALS,
    Consensus,
    Control,
    PreemptionAction,
    StepDecision,
    on_stop_signals,
)
from tests.helpers.ranks import run_ranks

NONE = StepDecision()


class Told(Control):
    """Hears what the test says."""

    def __init__(self, stop: bool = False, resize: bool = False, deadline: float | None = None) -> None:
        super().__init__()
        self.stop, self.resize, self.ends = stop, resize, deadline

    def stop_wanted(self) -> bool:
        return self.stop

    def resize_wanted(self) -> bool:
        return self.resize

    def deadline(self) -> float | None:
        return self.ends


def hear(which: str) -> list[StepDecision]:
    """On all ranks: only the last rank is told; what all do after two steps."""
    proc = process.start(threads=1)
    last = proc.world.rank == proc.world.world_size - 1
    soon = time.time() + 5.0
    told = {
        "nothing": Told(),
        "stop": Told(stop=last),
        "resize": Told(resize=last),
        "deadline": Told(deadline=soon if last else None),
    }[which]
    consensus = Consensus(proc, told)
    return [after_step(consensus, proc, which == "stop" and last, 4.0) for _ in range(2)]


def after_step(
    consensus: Consensus, proc: process.Process, has_skipped: bool, save_s: float | None
) -> StepDecision:
    """What is told and decided, as the engine and the loop do it."""
    heard = torch.tensor(consensus.heard(has_skipped, save_s), dtype=torch.float64)
    assert len(heard) == Consensus.NUMBERS
    return consensus.decide(global_batch.host(global_batch.exchange(heard, proc.world)))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("which", "expected"),
    [
        ("nothing", [NONE, NONE]),
        ("stop", [StepDecision(stop=True, has_skipped=True)] * 2),
        ("resize", [StepDecision(resize=True)] * 2),
        ("deadline", [NONE, StepDecision(preemption=PreemptionAction.save)]),
    ],
)
def test_what_one_rank_hears_all_do(which: str, expected: list[StepDecision]) -> None:
    assert run_ranks(2, hear, which) == [expected, expected]


def rescue_at(left_s: float, save_s: float | None) -> list[PreemptionAction]:
    """Alone: what is done with so much time left, asked three times."""
    proc = process.start(threads=1)
    consensus = Consensus(proc, Told(deadline=time.time() + left_s))
    return [after_step(consensus, proc, False, save_s).preemption for _ in range(3)]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("left_s", "save_s", "expected"),
    [
        (60.0, 1.0, [PreemptionAction.none, PreemptionAction.none, PreemptionAction.none]),
        (60.0, 50.0, [PreemptionAction.none, PreemptionAction.save, PreemptionAction.none]),
        (5.0, 50.0, [PreemptionAction.none, PreemptionAction.save_locally, PreemptionAction.none]),
        (60.0, None, [PreemptionAction.none, PreemptionAction.save, PreemptionAction.none]),
    ],
)
def test_the_last_moments_are_used_as_late_as_is_safe(
    left_s: float, save_s: float | None, expected: list[PreemptionAction]
) -> None:
    assert run_ranks(1, rescue_at, left_s, save_s) == [expected]


@pytest.mark.parametrize("number", STOP_SIGNALS)
def test_a_signal_asks_once_and_then_ends_the_process(number: signal.Signals) -> None:
    control, fatal = Control(), []
    before = signal.signal(number, lambda *_: fatal.append(1))
    try:
        with on_stop_signals(control.request_stop, one_request_s=0.2):
            assert not control.stop_wanted()
            os.kill(os.getpid(), number)
            assert control.stop_wanted()
            os.kill(os.getpid(), number)
            assert fatal == [], "the same request, told twice"
            time.sleep(0.3)
            os.kill(os.getpid(), number)
            assert fatal == [1]
    finally:
        signal.signal(number, before)
