"""Which rank holds up a run: one that gives no sign of life, or one that the others wait for.

A stopped process or a machine that hangs sends no more pulses. A rank that is stuck sends them, and says what
it does: whoever is not in a collective is the one that the others wait for there.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from plinth.launch.pulse import Pulse

LOOK_EVERY_S = 1.0
LATE_S = 10.0
"""A look that comes so late was held up itself, as by a machine that slept: what it missed is no silence."""


@dataclass(frozen=True)
class Hang:
    """Ranks that hold up the others."""

    pulses: tuple[Pulse, ...]
    """Their last ones."""
    why: dict[int, str]
    """Of each of these ranks, in a sentence."""


class Watch:
    """The last pulse of each rank of a group.

    Args:
        silent_after_s: so long without a pulse is a silence.
        clock: seconds that only grow.
    """

    def __init__(self, silent_after_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._silent_after_s, self._clock = silent_after_s, clock
        self._heard: dict[int, tuple[float, Pulse]] = {}
        self._looked_at = clock()

    def heard(self, pulse: Pulse) -> None:
        """A rank lives."""
        self._heard[pulse.rank] = (self._clock(), pulse)

    def forget(self, rank: int) -> None:
        """A rank may end from now on."""
        self._heard.pop(rank, None)

    def clear(self) -> None:
        """The group is gone."""
        self._heard.clear()

    def look(self) -> Hang | None:
        """Who holds up the run, if anyone does; call it every `LOOK_EVERY_S`."""
        now = self._clock()
        missed, self._looked_at = now - self._looked_at - LOOK_EVERY_S, now
        if missed > LATE_S:
            self._heard = {rank: (at + missed, pulse) for rank, (at, pulse) in self._heard.items()}
        silent = {rank: now - at for rank, (at, _) in self._heard.items() if now - at > self._silent_after_s}
        if silent:
            return self._hang({rank: _of_silence(self._heard[rank][1], s) for rank, s in silent.items()})
        pulses = [pulse for _, pulse in self._heard.values()]
        late = [p for p in pulses if p.limit_s is not None and p.for_s > p.limit_s]
        if not late:
            return None
        outside = [p for p in pulses if not p.is_in_collective]
        if any(p.limit_s is None or p.for_s <= p.limit_s for p in outside):
            return None  # somebody else is at work, and may be for now
        return self._hang({p.rank: _of_delay(p) for p in outside or late})

    def _hang(self, why: dict[int, str]) -> Hang:
        return Hang(tuple(self._heard[rank][1] for rank in why), why)


def _of_silence(pulse: Pulse, seconds: float) -> str:
    return (
        f"gave no sign of life for {seconds:.0f} s, so it was ended (process {pulse.pid}: stopped, or its "
        f"machine hangs); before, {_said(pulse)}"
    )


def _of_delay(pulse: Pulse) -> str:
    others = "" if pulse.is_in_collective else ", the others wait for it"
    return f"was ended: for {pulse.for_s:.0f} s {_said(pulse)}{others}"


def _said(pulse: Pulse) -> str:
    step = "" if pulse.step is None else f" {pulse.step}"
    where = f" ({pulse.where})" if pulse.where else ""
    return f"{pulse.doing}{step}{where}"
