"""What grows in a long run: memory, open files, threads, logs, files in storage, time of lists and pages.

    python -m benchmarks.endurance [--steps 20000] [--workers 1] [--runs 300] [--trials 200] [--folder FOLDER]

A tiny model trains through `poma pretrain` on Ray, with a checkpoint every hundredth of its steps. While it
lasts, its processes (driver, training workers, Ray's services) are looked at every few seconds. What counts
is growth after the first third, when every cache is warm: the slope of a line through the rest, per 1,000
steps. Then come the bytes of what the run has left in storage and in Ray's logs; and a folder of many runs
(cut down copies of this one) and a sweep of many trials, and how long the commands take that show them.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from jobs.runs import page as run_page
from jobs.sweep.page import write_page
from plinth.observe.ledger import read_records
from plinth.observe.step_lines import LINES_KEY
from plinth.storage import Storage
from plinth.units import MIB, counted
from tests.helpers import sweep_folder
from tests.helpers.tiny_jobs import make_data, pretrain_job, write

STAGE = "main"
LOOK_EVERY_S = 2.0
CHECKPOINTS = 100
WARM = 1 / 3
"""Share of the steps after which growth counts."""
KEPT_BYTES = 1 << 18
"""Of the metrics of each copied run."""
PER = 1000
LOGS = "logs"


@dataclass(frozen=True)
class Look:
    """One look at the processes."""

    step: int
    """Of the last line in the run's ledger: the last checkpoint."""
    of: dict[str, tuple[int, int, int, int]]
    """Kind of process -> processes, resident bytes, open files, threads, summed over them."""


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=20_000)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--runs", type=int, default=300, help="in the folder that is listed")
    parser.add_argument("--trials", type=int, default=200, help="of the sweep whose page is written")
    parser.add_argument("--folder", type=Path, help="kept; a temporary one otherwise")
    a = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="endurance-") as temporary:
        folder = (a.folder or Path(temporary)).absolute()
        folder.mkdir(parents=True, exist_ok=True)
        ray_folder = Path(tempfile.mkdtemp(prefix="e", dir="/tmp"))  # paths of sockets are short
        try:
            run, looks, took_s = trained(folder, a.steps, a.workers, ray_folder)
            workers = counted(a.workers, "worker")
            print(f"{a.steps} steps on {workers} in {took_s:.0f} s, load {os.getloadavg()[1]:.1f}")
            print("\n".join(growth(looks, a.steps)))
            print("\n".join(left_behind(run, ray_folder, a.steps)))
        finally:
            shutil.rmtree(ray_folder, ignore_errors=True)
        print("\n".join(lists(folder, run, a.runs)))
        print(sweep_page(folder, a.trials))
    return 0


def trained(folder: Path, steps: int, workers: int, ray_folder: Path) -> tuple[Path, list[Look], float]:
    """The run's folder, what its processes were like, and how long it took."""
    if not (folder / "images").exists():
        make_data(folder)
    job = pretrain_job(folder, fit={"workers": workers, "cpus_per_worker": 0.5}, warmup=None, name="long")
    job[STAGE]["steps"] = steps
    job["checkpoint"] = {"every_steps": max(1, steps // CHECKPOINTS), "keep_last": 2}
    command = [sys.executable, "-m", "jobs.cli", "pretrain", write(folder / "job.yaml", job)]
    run = folder / "runs" / "long"
    shutil.rmtree(run, ignore_errors=True)
    began, looks = time.monotonic(), list[Look]()
    with (folder / "long.log").open("w") as log:
        driver = subprocess.Popen(
            command, stdout=log, stderr=log, env={**os.environ, "RAY_TMPDIR": str(ray_folder)}
        )
        while driver.poll() is None:
            time.sleep(LOOK_EVERY_S)
            looks.append(Look(steps_done(run), look_at(driver.pid)))
    if driver.returncode:
        sys.exit(f"the run failed: {folder / 'long.log'}\n{(folder / 'long.log').read_text()[-2000:]}")
    return run, [one for one in looks if one.of], time.monotonic() - began


def steps_done(run: Path) -> int:
    """As far as the ledger knows."""
    records = read_records(Storage.from_uri(run)) if run.is_dir() else []
    return max((record.marks[-1].step for record in records if record.marks), default=0)


def look_at(pid: int) -> dict[str, tuple[int, int, int, int]]:
    """The process and all below it, by kind; nothing once it has ended."""
    found: dict[str, tuple[int, int, int, int]] = defaultdict(lambda: (0, 0, 0, 0))
    try:
        driver = psutil.Process(pid)
        processes = [driver, *driver.children(recursive=True)]
    except psutil.NoSuchProcess:
        return {}
    for process in processes:
        try:
            with process.oneshot():
                numbers = (1, process.memory_info().rss, process.num_fds(), process.num_threads())
                kind = kind_of(process.cmdline(), process.pid == pid)
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
        found[kind] = tuple(a + b for a, b in zip(found[kind], numbers, strict=True))  # type: ignore[assignment]
    return dict(found)


def kind_of(command: Sequence[str], is_driver: bool) -> str:
    """Driver, training worker, another actor of the run, or a service of Ray."""
    title = command[0] if command else ""
    if is_driver:
        return "driver"
    if "TrainWorker" in title:
        return "training workers"
    return "controller and coordinator" if title.startswith("ray::") and "IDLE" not in title else "Ray"


def growth(looks: Sequence[Look], steps: int) -> list[str]:
    """Last values, and slopes per 1,000 steps after the warm-up, of each kind of process."""
    warm = [one for one in looks if WARM * steps <= one.step < steps]  # then it is taken down
    if len(warm) < 3:
        return ["too few looks after the warm-up: take more steps"]
    lines = []
    for kind in sorted({kind for one in warm for kind in one.of}):
        of = [(one.step, one.of[kind]) for one in warm if kind in one.of]
        x = np.array([step for step, _ in of], float)
        count, rss, files, threads = np.array([numbers for _, numbers in of], float).T
        lines.append(
            f"{kind} ({count[-1]:.0f}): {rss[-1] / MIB:.0f} MiB ({slope(x, rss / MIB):+.2f} MiB per 1,000 "
            f"steps), {files[-1]:.0f} open files ({slope(x, files):+.2f}), {threads[-1]:.0f} threads "
            f"({slope(x, threads):+.2f})"
        )
    return lines


def slope(x: np.ndarray, y: np.ndarray) -> float:
    """Of a straight line through the points, per 1,000 of x."""
    return 0.0 if np.ptp(x) == 0 else float(np.polyfit(x, y, 1)[0]) * PER


def left_behind(run: Path, ray_folder: Path, steps: int) -> list[str]:
    """What is in the run's folder and in Ray's, by part."""
    files = [path for path in run.rglob("*") if path.is_file()]
    parts: dict[str, list[int]] = defaultdict(list)
    for path in files:
        parts["/".join(path.relative_to(run).parts[:2])].append(path.stat().st_size)
    lines = [f"{len(files)} files, {sum(map(sum, parts.values())) / MIB:.1f} MiB in storage; the largest:"]
    for name, sizes in sorted(parts.items(), key=lambda item: -sum(item[1]))[:6]:
        each = sum(sizes) / steps * PER / 1024
        lines.append(
            f"  {name}: {counted(len(sizes), 'file')}, {sum(sizes) / MIB:.2f} MiB, "
            f"{each:.1f} KiB per 1,000 steps"
        )
    logs = sum(path.stat().st_size for path in ray_folder.rglob(f"{LOGS}/*") if path.is_file())
    return [*lines, f"Ray's logs: {logs / MIB:.2f} MiB, {logs / steps * PER / 1024:.1f} KiB per 1,000 steps"]


def lists(folder: Path, run: Path, count: int) -> list[str]:
    """How long the commands take that read a folder of `count` runs, and one long run."""
    many = folder / "many"
    shutil.rmtree(many, ignore_errors=True)
    for number in range(count):
        copied(run, many / f"run-{number:03}")
    commands = {
        f"poma runs list, {count} runs": ["runs", "list", str(many)],
        "poma runs show, the long run": ["runs", "show", str(run)],
    }
    found = {name: seconds(partial(poma, words)) for name, words in commands.items()}
    found["page of the long run"] = seconds(partial(run_page.write_page, Storage.from_uri(run)))
    return [f"{name}: {took:.1f} s" for name, took in found.items()]


def copied(run: Path, to: Path) -> None:
    """A run with the end of its metrics alone, and without Ray's part: what counts is the number of files."""
    shutil.copytree(run, to, ignore=shutil.ignore_patterns("ray", "tensorboard", "index.html"))
    lines = to / STAGE / LINES_KEY
    lines.write_bytes(lines.read_bytes()[-KEPT_BYTES:])


def sweep_page(folder: Path, trials: int) -> str:
    """How long the page of a sweep takes to write, whose trials have ended."""
    shutil.rmtree(folder / "sweep", ignore_errors=True)
    storage = sweep_folder.asha_sweep(folder / "sweep", trials)
    return f"page of a sweep of {trials} trials: {seconds(partial(write_page, storage)):.1f} s"


def poma(words: Sequence[str]) -> None:
    """A command in a process of its own, as a user gives it."""
    subprocess.run([sys.executable, "-m", "jobs.cli", *words], check=True, stdout=subprocess.DEVNULL)


def seconds(act: Callable[[], Any]) -> float:
    """How long it takes."""
    began = time.perf_counter()
    act()
    return time.perf_counter() - began


if __name__ == "__main__":
    sys.exit(main())
