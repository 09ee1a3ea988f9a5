"""What the pages of long runs and large sweeps cost: memory, points, and requests to the storage.

    python -m benchmarks.endurance.pages [--steps 200000] [--attempts 50] [--ranks 64] [--trials 200]

Nothing is trained: the folders are made as training leaves them. Each page is written twice by one process,
as that of a running run is: what is asked again the second time is what it costs every half minute.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from jobs.runs import page as run_page
from jobs.runs.curves import read_steps
from jobs.sweep import page as sweep_page
from jobs.sweep.state import Over, read_state
from plinth.observe.failures import VANISHED, Failure
from plinth.observe.ledger import FAILED, Mark, Record
from plinth.observe.once import Once
from plinth.observe.step_lines import PART_BYTES, PARTS_FOLDER
from plinth.storage import Storage
from plinth.units import MIB
from tests.helpers import run_folder, sweep_folder

SHORT = 70
"""Steps of a run beside which the long one is weighed."""
ASKING = ("read", "read_range", "list", "exists", "size")
"""Methods of the storage that are a request each, at least."""


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=200_000)
    parser.add_argument("--attempts", type=int, default=50)
    parser.add_argument("--ranks", type=int, default=64)
    parser.add_argument("--trials", type=int, default=200)
    parser.add_argument("--peak", type=Path, help="only write the page of this run; prints its peak in bytes")
    a = parser.parse_args()
    if a.peak is not None:
        print(peak_of(Storage.from_uri(a.peak)))
        return 0
    with tempfile.TemporaryDirectory(prefix="pages-") as temporary:
        folder = Path(temporary)
        short, long = run_folder.killed_run(folder / "short"), long_run(folder / "long", a.steps)
        peaks = [peak_in_a_process(Path(run.root)) / MIB for run in (short, long)]
        points = sum(found.shape[1] for found in read_steps(long.child("main")).points.values())
        print(
            f"page of {a.steps:,} steps: {peaks[1]:.0f} MiB at most, of {SHORT} steps {peaks[0]:.0f} MiB; "
            f"{points:,} points are held"
        )
        often = died_often(folder / "often", a.attempts, a.ranks)
        once, over = Once(), Over()
        first, second = (requests(lambda: run_page.write_page(often, once=once)) for _ in range(2))
        print(f"page of {a.attempts} attempts of {a.ranks} ranks: {first:,} requests, again {second}")
        sweep = sweep_folder.asha_sweep(folder / "sweep", a.trials)

        def write() -> Any:
            return sweep_page.write_page(sweep, state=read_state(sweep, over))

        first, second = (requests(write) for _ in range(2))
        print(f"page of {a.trials} trials: {first:,} requests, again {second}")
    return 0


def long_run(folder: Path, steps: int) -> Storage:
    """A run of so many steps, its metrics in parts."""
    storage = run_folder.killed_run(folder)
    main = storage.child("main")
    each = SHORT * PART_BYTES // len(storage.read("main/metrics.jsonl"))
    for number, first in enumerate(range(0, steps, each)):
        until = min(first + each, steps)
        run_folder.metrics(storage, "main", range(first, until))
        if until < steps:
            main.write(f"{PARTS_FOLDER}/{number:06}.jsonl", main.read("metrics.jsonl"))
    return storage


def died_often(folder: Path, attempts: int, ranks: int) -> Storage:
    """A run all of whose ranks died so often, half of them without a word."""
    storage = run_folder.killed_run(folder)
    for number in range(attempts):
        attempt, began = f"b{number:03}", run_folder.NOW - 1e6 + 100 * number
        marks = [Mark(number), Mark(number + 1, 90, 1, 1)]
        record = Record(attempt, "main", ranks, 0, began, began + 99, 10, None, FAILED, 1.0, marks=marks)
        run_folder.records(storage, [record])
        told = [Failure(attempt, rank, "host", 1, began, VANISHED, step=number) for rank in range(ranks // 2)]
        run_folder.failures(storage, told)
        last = json.dumps({"step": number, "stage": "main", "time": began}).encode()
        for rank in range(ranks // 2, ranks):
            storage.write(f"logs/{attempt}-rank{rank}.batches", last)
    return storage


def requests(act: Callable[[], Any]) -> int:
    """How many requests to the storage it takes, each list counted as one."""
    made: list[str] = []  # threads append to it
    own = {name: getattr(Storage, name) for name in ASKING}

    def counting(method: Callable[..., Any]) -> Callable[..., Any]:
        def asked(*arguments: Any, **named: Any) -> Any:
            made.append(method.__name__)
            return method(*arguments, **named)

        return asked

    for name, method in own.items():
        setattr(Storage, name, counting(method))
    try:
        act()
    finally:
        for name, method in own.items():
            setattr(Storage, name, method)
    return len(made)


def peak_in_a_process(run: Path) -> int:
    """Bytes that a process of its own held at most which wrote the page."""
    command = [sys.executable, "-m", "benchmarks.endurance.pages", "--peak", str(run)]
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=os.environ)
    return int(done.stdout)


def peak_of(storage: Storage) -> int:
    """Write the page; bytes that this process has held at most."""
    run_page.write_page(storage)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


if __name__ == "__main__":
    sys.exit(main())
