"""A run of `poma pretrain` and bare torch on the same machine in turns of seconds.

While one has its turn the other's processes are stopped or wait, so what else the machine does, which changes
from minute to minute by more than what is measured, meets both.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import psutil

from benchmarks.step.pretrain import Measured, Run
from plinth.observe.step_lines import PARTS_FOLDER, Line, parsed

POLL_S = 0.1
SLACK_STEPS = 4
"""Of a turn: the one in which it was stopped, and those until that is noticed."""

Other = TypeVar("Other")


def steps_needed(skipped: int, turns: int, steps: int) -> int:
    """Length of a stage in which so many turns of so many steps follow those skipped."""
    return skipped + turns * (steps + SLACK_STEPS)


def take_turns(
    run: Run,
    skipped: Mapping[str, int],
    turns: int,
    steps: int,
    other: Callable[[str, Sequence[int]], Other],
) -> dict[str, list[tuple[Measured, Other]]]:
    """Follow a run to its end.

    Args:
        run: just started; its stages have `steps_needed`.
        skipped: stage, in their order -> steps before the first turn.
        turns: of a stage.
        steps: of a turn of the run, at least.
        other: called while the run is stopped, with the stage and the epochs of the run's last turn.

    Returns:
        Stage -> its turns, with what `other` returned.

    Raises:
        SystemExit: the run failed, or a stage ended before its first turn did.
    """
    files = StageFiles(run)
    seen: dict[str, list[tuple[list[Line], Other]]] = {stage: [] for stage in skipped}
    for number, (stage, before) in enumerate(skipped.items()):
        begin = before
        while len(seen[stage]) < turns and files.wait_for(number, begin + steps + 1):
            with stopped(run.process.pid):
                turn = files.lines(number)[begin:]
                answer = other(stage, [line["epoch"] for line in turn[1:]])
            seen[stage].append((turn, answer))
            begin += len(turn) + 1  # the step that was stopped takes no part
    run.end()
    if without := [stage for stage, found in seen.items() if not found]:
        raise SystemExit(f"{run.folder}: no turn of {' or '.join(without)} was seen. Give more --steps.")
    return {
        stage: [(run.measured(stage, lines), answer) for lines, answer in found]
        for stage, found in seen.items()
    }


class StageFiles:
    """What the stages of a run, one after the other, write of their steps while they train."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._files: list[Path] = []

    def lines(self, number: int) -> list[Line]:
        """Of a stage that has begun."""
        return parsed(self._files[number].read_text())

    def wait_for(self, number: int, count: int) -> bool:
        """Until a stage has so many lines; False if it ends before."""
        while self._count(number) < count:
            if self._run.process.poll() is not None or len(self._files) > number + 1:
                return False
            time.sleep(POLL_S)
        return True

    def _count(self, number: int) -> int:
        """Lines of a stage; without parsing them, for the run has a use for the time."""
        new = set(self._run.scratch.rglob(f"{PARTS_FOLDER}/*.jsonl")) - set(self._files)
        self._files += sorted(new, key=lambda file: file.stat().st_mtime)
        try:
            return self._files[number].read_bytes().count(b"\n")
        except (IndexError, FileNotFoundError):  # not begun, or ended
            return 0


@contextmanager
def stopped(pid: int) -> Iterator[None]:
    """A process and all below it, for a while."""
    held: list[psutil.Process] = []
    try:
        while new := set(_tree(pid)) - set(held):  # until none is left that could start others
            for one in new:
                _signal(one, signal.SIGSTOP)
            held += new
        yield
    finally:
        for one in held:
            _signal(one, signal.SIGCONT)


def _tree(pid: int) -> list[psutil.Process]:
    try:
        root = psutil.Process(pid)
        return [root, *root.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def _signal(process: psutil.Process, number: int) -> None:
    try:
        os.kill(process.pid, number)
    except ProcessLookupError:
        return
