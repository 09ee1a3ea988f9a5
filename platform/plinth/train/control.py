"""What comes from outside while a stage trains: stop, make room for another size, this node goes away.

Ranks may hear of different things first, so they exchange what they heard with the numbers of each step, and
all act at the same step. `Control` is a run without Ray; the one that asks Ray Train is in
`plinth.launch.ray_worker`.
"""

from __future__ import annotations

import contextlib
import enum
import logging
import math
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import FrameType
from typing import Any

import numpy as np

from plinth.engine.process import Process

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)
ONE_REQUEST_S = 1.0
"""`timeout` signals its child and then the child's group, so the child hears one request twice."""
MARGIN = 1.5
"""Start saving when the time left is below MARGIN x the time that the last save took."""

log = logging.getLogger(__name__)


class Control:
    """What this process hears of and whom it tells; without Ray, one event.

    Args:
        stop: set to ask the run to save and exit.
    """

    def __init__(self, stop: threading.Event | None = None) -> None:
        self._stop = stop or threading.Event()
        self._launched = time.time()

    def launched(self) -> float:
        """When this attempt began (`time.time()`)."""
        return self._launched

    def is_first(self) -> bool:
        """Whether a driver began with this attempt; later ones replace workers that it lost."""
        return True

    def stop_wanted(self) -> bool:
        """Whether the run was asked to save and exit."""
        return self._stop.is_set()

    def resize_wanted(self) -> bool:
        """Whether the run was asked to restart at another size after its next checkpoint."""
        return False

    def deadline(self) -> float | None:
        """When this node, or that of another rank, will be taken away (`time.time()`); None: not known
        to be."""
        return None

    def enters(self, doing: str, step: int | None = None, limit_s: float | None = None) -> None:
        """What this rank does from now on, and how long it may: told to whoever looks for ranks that hang.

        Args:
            doing: as in "rank 3 takes step", if there is a step.
            limit_s: None: as long as it likes.
        """

    def report(self, summary: dict[str, Any]) -> None:
        """Called on all ranks after each checkpoint has begun, with a `checkpoint_report`."""

    def wait_for_shutdown(self, limit_s: float) -> None:
        """Everything is saved: block until this process is killed, at most `limit_s`."""

    def request_stop(self) -> None:
        """Ask the run to save and exit."""
        self._stop.set()


@contextlib.contextmanager
def on_stop_signals(act: Callable[[], None], one_request_s: float = ONE_REQUEST_S) -> Iterator[None]:
    """The first SIGTERM or Ctrl-C calls `act`, the next one does what it did before. Outside the main thread
    nothing is handled.

    Args:
        one_request_s: signals that come within this time of the first one belong to it.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in STOP_SIGNALS}

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    asked_at: list[float] = []

    def handle(number: int, frame: FrameType | None) -> None:
        if asked_at:
            if time.monotonic() - asked_at[0] > one_request_s:
                restore()
                signal.raise_signal(number)
            return
        asked_at.append(time.monotonic())
        # In a thread: this one may be in the middle of a line.
        message = "asked to stop: saving; a second signal ends the run at once"
        threading.Thread(target=log.info, args=(message,)).start()
        act()

    for number in STOP_SIGNALS:
        signal.signal(number, handle)
    try:
        yield
    finally:
        restore()


def checkpoint_report(
    stage: str, steps: Sequence[Mapping[str, float]], global_batch_size: int
) -> dict[str, Any]:
    """What is told to the outside at a checkpoint: means over the steps since the one before.

    Args:
        steps: their summaries, the last one that of the checkpoint.
    """
    done = int(steps[-1]["step"]) + 1
    names = [name for name in steps[-1] if name not in ("step", "lr")]
    means = {name: sum(step[name] for step in steps) / len(steps) for name in names}
    return {"stage": stage, "step": done, "samples": done * global_batch_size, "lr": steps[-1]["lr"], **means}


class PreemptionAction(enum.IntEnum):
    """What the last moments before a preemption are used for."""

    none = 0
    save = 1
    """Save and wait until storage has it."""
    save_locally = 2
    """The time does not suffice for the upload: save to the disk of each machine."""


@dataclass(frozen=True)
class StepDecision:
    """What all ranks do after this step; the same on each."""

    stop: bool = False
    resize: bool = False
    preemption: PreemptionAction = PreemptionAction.none
    has_skipped: bool = False
    """Some rank had invalid samples in its batch."""

    @property
    def is_urgent(self) -> bool:
        """Whether a checkpoint is due now, whatever the step."""
        return self.stop or self.preemption is not PreemptionAction.none


class Consensus:
    """The ranks' agreement after each step. One per stage and rank."""

    NUMBERS = 5

    def __init__(self, process: Process, control: Control) -> None:
        self._process, self._control = process, control
        self._deadline: float | None = None
        self._saved_for: float | None = None
        self._asked_at = time.time()

    def heard(self, has_skipped: bool, save_s: float | None) -> list[float]:
        """What this rank tells the others with a step, `NUMBERS` of them; `decide` takes those of all.

        Args:
            has_skipped: whether this rank's batch had invalid samples.
            save_s: what a checkpoint takes until it counts, as measured; None if there was none yet.
        """
        deadline = self._control.deadline()
        return [
            float(self._control.stop_wanted()),
            float(self._control.resize_wanted()),
            float(has_skipped),
            float(self._preemption(save_s)) if self._process.world.rank == 0 else 0.0,
            -deadline if deadline is not None else -math.inf,
        ]

    def decide(self, of_ranks: np.ndarray) -> StepDecision:
        """What all ranks do after the step.

        Args:
            of_ranks: fp64 [ranks, NUMBERS], what they told.
        """
        stop, resize, skipped, preemption, earliest = of_ranks.max(axis=0).tolist()
        self._deadline = None if earliest == -math.inf else -earliest
        if preemption:
            self._saved_for = self._deadline
        return StepDecision(bool(stop), bool(resize), PreemptionAction(int(preemption)), bool(skipped))

    def time_left_s(self) -> float:
        """Until the deadline; 0 without one."""
        return 0.0 if self._deadline is None else max(0.0, self._deadline - time.time())

    def _preemption(self, save_s: float | None) -> PreemptionAction:
        """Rank 0 decides, as late as is safe, once per notice."""
        pause = self._longest_wait_s()
        if self._deadline is None or self._deadline == self._saved_for:
            return PreemptionAction.none
        left = self._deadline - time.time()
        if save_s is None:
            return PreemptionAction.save
        if left < save_s:
            return PreemptionAction.save_locally
        return PreemptionAction.save if left < MARGIN * save_s + pause else PreemptionAction.none

    def _longest_wait_s(self) -> float:
        """How long until rank 0 can decide again: twice the time since it did last."""
        now = time.time()
        since, self._asked_at = now - self._asked_at, now
        return 2 * since
