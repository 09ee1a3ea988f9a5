"""CPU seconds of a command and of all processes below it, over time."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping

import psutil

Kind = Callable[[int, str, str], str]
"""(process, its command line, its kind so far or "") -> its kind."""
Look = Mapping[int, tuple[str, float]]
"""Process -> its kind and CPU seconds; of one that has ended what it had before."""


class CpuClock:
    """Looks at a process and all below it from a thread; `stop` it when the process has ended.

    Args:
        kind: sorts the processes; called at each look, for a process of Ray changes its name.
    """

    def __init__(self, pid: int, every_s: float, kind: Kind = lambda *_: "") -> None:
        self._pid, self._every_s, self._kind = pid, every_s, kind
        self._looks: list[tuple[float, Look]] = []
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Look no more."""
        self._stopped.set()
        self._thread.join()

    def between(self, since: float, until: float) -> dict[str, float]:
        """CPU seconds between two moments (`time.time()`), by kind of process at the second one."""
        before, after = self._at(since), self._at(until)
        found: dict[str, float] = {}
        for pid, (kind, cpu_s) in after.items():
            found[kind] = found.get(kind, 0.0) + cpu_s - before.get(pid, (kind, 0.0))[1]
        return found

    def _at(self, moment: float) -> Look:
        """Between the two looks around a moment."""
        earlier: tuple[float, Look] = (0.0, {})
        for seen, look in self._looks:
            if seen >= moment:
                share = (moment - earlier[0]) / (seen - earlier[0]) if earlier[0] else 0.0
                first = {pid: earlier[1].get(pid, ("", 0.0))[1] for pid in look}
                return {pid: (kind, first[pid] + share * (s - first[pid])) for pid, (kind, s) in look.items()}
            earlier = (seen, look)
        return earlier[1]

    def _run(self) -> None:
        look: dict[int, tuple[str, float]] = {}
        while not self._stopped.wait(self._every_s):
            try:
                root = psutil.Process(self._pid)
                processes = [root, *root.children(recursive=True)]
            except psutil.Error:
                continue  # it has ended
            look = dict(look)
            for one in processes:
                try:
                    used, words = one.cpu_times(), " ".join(one.cmdline())
                except psutil.Error:
                    continue
                kind = self._kind(one.pid, words, look.get(one.pid, ("", 0.0))[0])
                look[one.pid] = (kind, used.user + used.system)
            self._looks.append((time.time(), look))
