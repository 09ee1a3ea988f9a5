"""Arms measured in turn, and the ratio of one to another.

The ratio is the median of the rounds' ratios; that by CPU time is of the process, which other work on the
machine does not change.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch


@dataclass
class Times:
    """Seconds of an arm, one of each round."""

    clock: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)
    """Of this process."""

    @property
    def median_s(self) -> float:
        """By the clock."""
        return statistics.median(self.clock)


def alternated(arms: Mapping[str, Callable[[], Any]], rounds: int, on_gpu: bool = False) -> dict[str, Times]:
    """Each arm once to warm up, then in every round, forwards and backwards in turn."""
    for run in arms.values():
        run()
    found = {name: Times() for name in arms}
    for number in range(rounds):
        for name in list(arms) if number % 2 == 0 else reversed(list(arms)):
            began, of_process = time.perf_counter(), time.process_time()
            arms[name]()
            if on_gpu:
                torch.cuda.synchronize()
            found[name].clock.append(time.perf_counter() - began)
            found[name].cpu.append(time.process_time() - of_process)
    return found


def ratio_cells(ours: Times, theirs: Times) -> str:
    """Two cells of a table: how many times as fast ours is by the clock, with the rounds' range, and by CPU
    time."""
    ratios = [b / a for a, b in zip(ours.clock, theirs.clock, strict=True)]
    of_cpu = statistics.median(b / a for a, b in zip(ours.cpu, theirs.cpu, strict=True))
    return f"{statistics.median(ratios):.3f} ({min(ratios):.3f} to {max(ratios):.3f}) | {of_cpu:.3f}"
