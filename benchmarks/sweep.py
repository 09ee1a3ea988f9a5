"""A sweep with successive halving beside the same trials in full; what an interruption costs.

    make demo && python -m benchmarks.sweep --folder bench-sweep [key=value ...]

Both sweeps have the same trials from the same warm-up. The one with ASHA runs in this process, so that the
cluster can be counted when it is over; the one in full is killed once (SIGKILL to its driver, and with it
its Ray) when its first trial has finished, and started again.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import ray

from jobs.common.cluster import ray_cluster
from jobs.jobfile import load
from jobs.sweep import command as sweep
from jobs.sweep.config import SweepJob
from plinth.observe.ledger import summarise
from plinth.storage import Storage
from plinth.sweep.records import SHARED, Status, Trial, best_first, read_trials

POLL_S = 0.2
SETTLE_S = 60.0


def main() -> None:
    """Run both and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--job", type=Path, default=Path("jobs/configs/sweep.yaml"))
    parser.add_argument("--folder", type=Path, default=Path("bench-sweep"))
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="of the job")
    a = parser.parse_args()
    asha_s, left = halving(a.job, a.overrides, a.folder)
    shutil.copytree(a.folder / "asha" / SHARED, a.folder / "full" / SHARED, dirs_exist_ok=True)
    full_s, lost_s = in_full(a.job, a.overrides, a.folder)
    warmup_s = summarise(Storage.from_uri(a.folder / "asha" / SHARED)).wall_s
    job = load(SweepJob, a.job, a.overrides)
    metric, mode = job.sweep.metric, job.sweep.mode.value
    print(f"\nshared warm-up {warmup_s:.0f} s, in the first sweep's time below")
    for name, seconds in (("asha", asha_s), ("full", full_s)):
        trials = read_trials(Storage.from_uri(a.folder / name))
        finished = sum(trial.record.status is Status.finished for trial in trials)
        best = best_first(trials, metric, mode)[0]
        steps = sum(trial.history.steps for trial in trials)
        print(f"{name}: {seconds:.0f} s, {steps} steps, {finished} of {len(trials)} trials to their end")
        print(f"  best, {best.record.name} {best.history.values}: {described(best, metric, mode)}")
        print(f"  the job as it stands: {described(trials[0], metric, mode)}")
    print(f"resources and placement groups left after the sweep: {left}")
    print(f"driver killed: {lost_s:.0f} s until the trials had reported more than before")


def described(trial: Trial, metric: str, mode: str) -> str:
    """Its metric, best and last."""
    return f"{metric} best {trial.best(metric, mode):.3f}, last {trial.last(metric):.3f}"


def halving(path: Path, overrides: list[str], folder: Path) -> tuple[float, str]:
    """Seconds of the sweep, and what it left behind."""
    job = load(SweepJob, path, [*overrides, "name=asha", f"output={folder}"])
    with ray_cluster(job.ray, job.sweep.workers):
        start = time.monotonic()
        assert sweep.run_job(job) == 0
        seconds = time.monotonic() - start
        until = time.monotonic() + SETTLE_S
        while (left := left_over()) and time.monotonic() < until:
            time.sleep(POLL_S)
    return seconds, left or "none"


def left_over() -> str:
    """Resources in use and placement groups alive."""
    free, all_of_it = ray.available_resources(), ray.cluster_resources()
    groups = [g for g in ray.util.placement_group_table().values() if g["state"] != "REMOVED"]
    used = [f"{all_of_it[kind] - free.get(kind, 0):g} {kind}" for kind in ("CPU", "GPU") if kind in all_of_it]
    return (
        "" if not groups and all(text.startswith("0 ") for text in used) else f"{used}, {len(groups)} groups"
    )


def in_full(path: Path, overrides: list[str], folder: Path) -> tuple[float, float]:
    """Seconds of the sweep without a scheduler, and of those what its interruption cost."""
    command = [
        sys.executable, "-m", "jobs.cli", "sweep", str(path), *overrides, "name=full", f"output={folder}",
        "sweep.scheduler.kind=none",
    ]  # fmt: skip
    storage = Storage.from_uri(folder / "full")
    start = time.monotonic()
    process = subprocess.Popen(command)
    while not any(trial.history.is_finished for trial in known(storage)):
        assert process.poll() is None, "the sweep ended before it could be killed"
        time.sleep(POLL_S)
    before = sum(trial.history.steps for trial in known(storage))
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    killed = time.monotonic()
    process = subprocess.Popen(command)
    while sum(trial.history.steps for trial in known(storage)) <= before:
        assert process.poll() is None, "the sweep ended without going on"
        time.sleep(POLL_S)
    lost_s = time.monotonic() - killed
    assert process.wait() == 0
    return time.monotonic() - start, lost_s


def known(storage: Storage) -> list[Trial]:
    """Trials so far."""
    return read_trials(storage) if storage.exists("sweep.json") else []


if __name__ == "__main__":
    main()
