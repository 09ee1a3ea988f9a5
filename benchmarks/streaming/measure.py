"""Paths in turns: views per second, CPU seconds of all processes, first batch."""

from __future__ import annotations

import contextlib
import os
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from benchmarks.streaming.actors import Actors
from benchmarks.streaming.workers import Group

RAYLET = "raylet"


@dataclass(frozen=True)
class ReadPath:
    """Something that reads the views: how its consumers are started, and how it is made cold."""

    start: Callable[[int], Group | Actors]
    """Consumers of it, as many as are asked for."""
    bytes_per_view: float
    """As stored."""
    caches: Callable[[], list[Path]]
    """Files that its library has made of what it has read."""
    drop: Callable[[], None]
    """Throw away what its library keeps, and what the operating system does of its files."""


@dataclass
class Row:
    """What was measured of one path, once per round."""

    views: int
    seconds: list[float] = field(default_factory=list)
    cpu_s: list[float] = field(default_factory=list)
    first_s: list[float] = field(default_factory=list)

    @property
    def views_per_s(self) -> float:
        """Of the median round."""
        return self.views / statistics.median(self.seconds)

    @property
    def spread(self) -> tuple[float, float]:
        """Views per second of the slowest and of the fastest round."""
        return self.views / max(self.seconds), self.views / min(self.seconds)


class CpuClock:
    """CPU seconds of this process and of all below it, those that have ended included.

    The kernel adds those of a process that has ended to its parent's, if that waits for it. Ray's raylet
    does not, and ends workers when they idle: of its children the last reading is kept.
    """

    def __init__(self) -> None:
        self._of_raylet: dict[tuple[int, float], float] = {}

    def read(self) -> float:
        """Seconds so far; only differences mean something."""
        total = 0.0
        for process in (me := psutil.Process(), *me.children(recursive=True)):
            with contextlib.suppress(psutil.Error):
                if any("swift" in word for word in process.cmdline()):  # the S3 server would be elsewhere
                    continue
                times = process.cpu_times()
                seconds = times.user + times.system
                if process.name() != RAYLET:
                    seconds += times.children_user + times.children_system
                parent = process.parent()
                if parent is not None and parent.name() == RAYLET:
                    self._of_raylet[process.pid, process.create_time()] = seconds
                else:
                    total += seconds
        return total + sum(self._of_raylet.values())


CPU = CpuClock()


def warm(paths: Mapping[str, ReadPath], views: int, consumers: int, rounds: int) -> dict[str, Row]:
    """Epochs that follow on another, which does not count, without a break: what is read ahead when the clock
    starts is about what is read ahead when it stops. The epoch before begins with nothing read ahead; the
    first of all fills every cache."""
    rows = {name: Row(views) for name in paths}
    with contextlib.ExitStack() as stack:
        groups: dict[str, Group | Actors] = {}
        for name, path in paths.items():
            groups[name] = path.start(consumers)
            stack.callback(groups[name].close)
        for group in groups.values():
            group.wait_until_ready()
        for number in range(rounds + 1):
            for name, group in groups.items():
                _epoch(group, rows[name], counts=False)
                if number > 0:
                    _epoch(group, rows[name], counts=True)
                group.ask(do="rest")
    return rows


def cold(paths: Mapping[str, ReadPath], views: int, consumers: int, rounds: int) -> dict[str, Row]:
    """The first epoch of new processes, with nothing in any cache; imports do not count."""
    rows = {name: Row(views) for name in paths}
    for _ in range(rounds):
        for name, path in paths.items():
            path.drop()
            with path.start(consumers) as group:
                group.wait_until_ready()
                _epoch(group, rows[name], counts=True)
    return rows


def _epoch(group: Group | Actors, row: Row, counts: bool) -> None:
    cpu_before, started = CPU.read(), time.perf_counter()
    answers = group.ask(do="epoch")
    seconds, cpu = time.perf_counter() - started, CPU.read() - cpu_before
    if counts:
        row.seconds.append(seconds)
        row.cpu_s.append(cpu)
        row.first_s.append(max(answer["first_s"] for answer in answers))


def drop_pages(folder: Path) -> None:
    """Make the operating system forget the files below `folder`."""
    for path in folder.rglob("*"):
        if path.is_file():
            with _opened(path) as descriptor:
                os.fsync(descriptor)
                os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[int]:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        yield descriptor
    finally:
        os.close(descriptor)
