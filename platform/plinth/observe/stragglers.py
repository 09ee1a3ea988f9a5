"""Stragglers: times measured on each rank, and the rank that the others wait for.

Training is synchronous, so every rank's step takes as long as the slowest rank's. Ranks differ only in what
each does before it meets the others: waiting for its batch, and the forward passes. The rest of a step is
spent in collectives and does not show which rank is late. At ZeRO stage 3 the forward passes gather weights,
so one slow rank slows those of all, and only the wait for data tells ranks apart.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import torch
from torch import nn

DATA_WAIT, COMPUTE = "data_wait_s", "compute_s"
MEASURES = (DATA_WAIT, COMPUTE)
HOSTS = "hosts"
RECENT_LINES = 5
LEAST_SHARE = 0.1
"""Share of the step by which a straggler must exceed the other ranks."""
LEAST_RATIO = 1.25
DECIMALS = 4
_VERBS = {
    DATA_WAIT: "waits {0} per step for its data, the others {1}",
    COMPUTE: "takes {0} per step for its forward passes, the others {1}",
}

RankSeconds = dict[str, list[float]]
"""Measure -> one number per rank."""


class ForwardClock:
    """Time that this rank spends in the forward passes of a stage; on a GPU the GPU's time."""

    def __init__(self, stage: nn.Module, device: torch.device) -> None:
        self._on_gpu = device.type == "cuda"
        self._spans: list[tuple[Any, Any]] = []
        self._began: Any = None
        self._hooks = [
            stage.register_forward_pre_hook(lambda module, inputs: self._begin(), prepend=True),
            stage.register_forward_hook(lambda module, inputs, output: self._end()),
        ]

    def take_s(self) -> float:
        """Seconds since the last call. Call it after the step, when the GPU has finished."""
        spans, self._spans = self._spans, []
        if self._on_gpu:
            for _, end in spans:
                end.synchronize()
            return sum(float(begin.elapsed_time(end)) for begin, end in spans) / 1000  # from ms
        return sum(end - begin for begin, end in spans)

    def close(self) -> None:
        """Remove the hooks."""
        for hook in self._hooks:
            hook.remove()

    def _begin(self) -> None:
        self._began = self._now()

    def _end(self) -> None:
        self._spans.append((self._began, self._now()))

    def _now(self) -> Any:
        if not self._on_gpu:
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event


class RankTimes:
    """Means over the steps between two lines of metrics.jsonl that have them; on rank 0.

    Args:
        hosts: one per rank.
    """

    def __init__(self, hosts: Sequence[str]) -> None:
        self._hosts = [[host, len(list(ranks))] for host, ranks in groupby(hosts)]
        self._sums: dict[str, torch.Tensor] = {}
        self._steps = 0
        self._is_first = True

    def add(self, seconds: RankSeconds) -> None:
        """Add a step's times. The first step is skipped: it includes start-up."""
        if self._is_first or not seconds:
            self._is_first = False
            return
        for measure in MEASURES:
            own = torch.tensor(seconds[measure], dtype=torch.float64)
            self._sums[measure] = self._sums[measure] + own if measure in self._sums else own
        self._steps += 1

    def take(self) -> dict[str, Any]:
        """The means for the line, empty if there are none; starts new ones."""
        if not self._steps:
            return {}
        means = {m: [round(x, DECIMALS) for x in (s / self._steps).tolist()] for m, s in self._sums.items()}
        self._sums, self._steps = {}, 0
        return {**means, HOSTS: self._hosts}


@dataclass(frozen=True)
class Straggler:
    """A rank for which the others wait. Seconds are per step."""

    rank: int
    host: str
    measure: str
    own_s: float
    others_s: float
    step_s: float
    more: int
    """Ranks slow in the same way."""

    @property
    def sentence(self) -> str:
        """One sentence for the user."""
        what = _VERBS[self.measure].format(f"{self.own_s:.2f} s", f"{self.others_s:.2f} s")
        also = f"; {self.more} more are slow in the same way" if self.more else ""
        return f"rank {self.rank} on {self.host} is slow: it {what} (a step is {self.step_s:.2f} s){also}"


def find_straggler(lines: Sequence[Mapping[str, Any]]) -> Straggler | None:
    """The rank for which the others wait most in the last lines of a stage's metrics.jsonl, if any.

    Args:
        lines: in order; those without times of ranks are ignored.
    """
    measured = [line for line in lines if line.get("ranks")]
    if not measured:
        return None
    hosts = measured[-1]["ranks"][HOSTS]
    of_this_group = [line for line in measured if line["ranks"][HOSTS] == hosts][-RECENT_LINES:]
    host_of = [host for host, count in hosts for _ in range(count)]
    if len(host_of) < 2:
        return None
    step_s = statistics.median(line["step_s"] for line in of_this_group)
    found = [_worst(measure, of_this_group, host_of, step_s) for measure in MEASURES]
    return max((f for f in found if f is not None), key=lambda f: f.own_s - f.others_s, default=None)


def _worst(
    measure: str, lines: Sequence[Mapping[str, Any]], host_of: Sequence[str], step_s: float
) -> Straggler | None:
    columns = zip(*(line["ranks"][measure] for line in lines), strict=True)
    own = [statistics.median(column) for column in columns]
    rank = max(range(len(own)), key=own.__getitem__)
    others_s = statistics.median(own[:rank] + own[rank + 1 :])
    slow = [s for s in own if s - others_s >= LEAST_SHARE * step_s and s >= LEAST_RATIO * others_s]
    if not slow or step_s <= 0:
        return None
    return Straggler(rank, host_of[rank], measure, own[rank], others_s, step_s, len(slow) - 1)
