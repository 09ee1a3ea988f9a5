"""What a start costs: from `poma pretrain` to the first step of two workers, by process.

    python -m benchmarks.step.start [--trial] [--rounds 3] [--folder FOLDER] [--beside TREE] [--imports]
        [KEY=VALUE ...]

The demo's warm-up on a Ray that the command starts itself. Each row is a kind of process with the CPU seconds
that all of its kind have taken when the first step ends; medians over rounds. `--trial` looks at two trials
of a sweep that follow on another, on the demo's main stage: from the record of the first one's end to the
second one's first step. `--beside` starts another checkout in turns with this one, each with its own demo's
job on the same data, as `git worktree add TREE COMMIT` makes it; compile it first (`python -m compileall -q
TREE`), as this one is. `--imports` adds the packages that the driver and a training worker of this one
import, with the CPU milliseconds of each.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

import yaml

from benchmarks.step.cpu_clock import CpuClock
from benchmarks.step.pretrain import DEMO, ROOT, prepare
from plinth.sweep.records import TRIAL_KEY

SAMPLE_S = 0.05
SHOWN_PACKAGES = 12
MODULES = {"driver": "jobs.pretrain.command", "training worker": "plinth.launch.worker"}
"""What each of these processes imports first."""
WAITING = "worker that waits"
KINDS = (
    (WAITING, r"ray::IDLE|default_worker\.py|setup_worker\.py"),
    ("raylet", r"raylet/raylet"),  # its command line holds those of the agents
    ("agents", r"ray::\w+Agent|agent\.py|agent/main\.py|runtime_env/agent"),
    ("training worker", r"ray::.*TrainWorker|ray::.*Worker\b"),
    ("trial", r"ray::(Resource|Trial)Trainable"),
    ("train controller", r"ray::Controller|ray::.*TrainController"),
    ("reading", r"ray::(Read|Map|Split|_?StreamingSplit|fetch|.*Task)"),
    ("other actor of Ray", r"ray::"),
    ("GCS", r"gcs_server"),
    ("dashboard and its modules", r"dashboard/dashboard\.py|dashboard\.subprocesses|multiprocessing"),
    ("log monitor, autoscaler's monitor", r"monitor\.py"),
)
"""Kinds of processes by their command line, the first that fits."""
DRIVER, OTHER = "driver", "other"


def main() -> None:
    """Measure and print both tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--folder", type=Path, help="keeps the data; a temporary one without it")
    parser.add_argument(
        "--beside", type=Path, metavar="TREE", help="another checkout, in turns with this one"
    )
    parser.add_argument("--trial", action="store_true", help="of a sweep, in place of `poma pretrain`")
    parser.add_argument("--imports", action="store_true")
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="of the job, as ray.dashboard=true")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as made:
        folder = (arguments.folder or Path(made)).resolve()
        prepare(folder)
        trees = [arguments.beside.resolve(), ROOT] if arguments.beside else [ROOT]
        rounds = []
        for number in range(arguments.rounds):
            turns = trees if number % 2 else trees[::-1]  # the first of a round finds colder files
            look = trial_start if arguments.trial else start
            found = {tree: look(tree, folder, number, arguments.overrides) for tree in turns}
            rounds.append([found[tree] for tree in trees])
    columns = list(zip(*rounds, strict=True))
    kinds = {kind for column in columns for _, seconds in column for kind in seconds}
    rows = {
        kind: [median(seconds.get(kind, 0.0) for _, seconds in column) for column in columns]
        for kind in kinds
    }
    rows = dict(sorted(rows.items(), key=lambda row: -row[1][-1]))
    rows["all"] = [median(sum(seconds.values()) for _, seconds in column) for column in columns]
    rows["wall time, s"] = [median(wall for wall, _ in column) for column in columns]
    what = "from trial to trial" if arguments.trial else "to the first step"
    print(f"| CPU-s {what} | {' | '.join(map(str, trees))} |\n|---|{'---|' * len(trees)}")
    for kind, of_trees in rows.items():
        print(f"| {kind} | {' | '.join(f'{seconds:.1f}' for seconds in of_trees)} |")
    if arguments.beside:
        shares = [sum(new.values()) / sum(old.values()) for (_, old), (_, new) in rounds]
        print(f"\nthis tree's share of the other's CPU-s, median over rounds: {median(shares):.2f}")
    if arguments.imports:
        for process, module in MODULES.items():
            print(f"\n{process} ({module}): " + ", ".join(f"{n} {ms:.0f} ms" for n, ms in packages(module)))


def start(tree: Path, folder: Path, number: int, overrides: Sequence[str]) -> tuple[float, dict[str, float]]:
    """Wall seconds to the first step of a checkout, and the CPU seconds until then by kind of process."""
    raw = pretrain_job(tree, folder)
    name = f"start-{number}-{int(time.time())}"
    raw |= {"kind": "pretrain", "name": name, "main": None}
    raw["fit"]["workers"] = 2
    raw["warmup"] |= {"steps": 2, "warmup_steps": 1}
    began, clock = watch(tree, folder, raw, overrides)
    first = step_ends(folder / "runs" / name / "warmup")[0]
    return first - began, clock.between(began, first)


def trial_start(
    tree: Path, folder: Path, number: int, overrides: Sequence[str]
) -> tuple[float, dict[str, float]]:
    """Wall seconds from a trial's end to the next one's first step, and the CPU seconds between the two."""
    raw = pretrain_job(tree, folder)
    name = f"trial-{number}-{int(time.time())}"
    raw |= {"kind": "sweep", "name": name, "output": str(folder / "sweeps"), "warmup": None}
    raw["fit"] |= {"workers": 1, "cpus_per_worker": 0.5}
    raw["main"] |= {"steps": 2, "warmup_steps": 1}
    raw["checkpoint"] = {"every_steps": 2, "keep_last": 1}
    raw["sweep"] = {
        "space": {"main.lr": {"choice": [1.0e-3, 2.0e-3]}},
        "metric": "scene_text",
        "mode": "min",
        "trials": 2,
        "max_concurrent": 1,
        "scheduler": {"kind": "none"},
    }
    _, clock = watch(tree, folder, raw, overrides)
    trials = folder / "sweeps" / name / "trials"
    ended, first = (trials / "000" / TRIAL_KEY).stat().st_mtime, step_ends(trials / "001" / "main")[0]
    return first - ended, clock.between(ended, first)


def pretrain_job(tree: Path, folder: Path) -> dict[str, Any]:
    """The pretraining of a checkout's demo."""
    text = (tree / DEMO.relative_to(ROOT)).read_text()
    found: dict[str, Any] = yaml.safe_load(text.replace("${folder}", str(folder)))["pretrain"]
    return found


def step_ends(stage: Path) -> list[float]:
    """When (`time.time()`) each step of a stage ended; its file is written with checkpoints, later."""
    return [float(json.loads(line)["time"]) for line in (stage / "metrics.jsonl").read_text().splitlines()]


def watch(tree: Path, folder: Path, raw: dict[str, Any], overrides: Sequence[str]) -> tuple[float, CpuClock]:
    """Run a job of a checkout to its end: when it began (`time.time()`), and what its processes did when."""
    job = folder / f"{raw['name']}.yaml"
    job.write_text(yaml.safe_dump(raw))
    log = job.with_suffix(".log")
    environment = dict(os.environ)
    if tree != ROOT:
        environment["PYTHONPATH"] = f"{tree}{os.pathsep}{tree / 'platform'}"
    began = time.time()
    with log.open("w") as out:
        command = [sys.executable, "-m", "jobs.cli", raw["kind"], str(job), *overrides]
        process = subprocess.Popen(command, cwd=tree, env=environment, stdout=out, stderr=subprocess.STDOUT)

    def kind(pid: int, words: str, before: str) -> str:
        if pid == process.pid:
            return DRIVER
        found = kind_of(words)
        return before if found == WAITING and before else found  # what it has done before it waits

    clock = CpuClock(process.pid, SAMPLE_S, kind)
    if process.wait():
        raise SystemExit(f"The command ended with {process.returncode}, see {log}")
    clock.stop()
    return began, clock


def kind_of(command_line: str) -> str:
    """Which kind of process a command line is of."""
    return next((kind for kind, pattern in KINDS if re.search(pattern, command_line)), OTHER)


def packages(module: str) -> list[tuple[str, float]]:
    """Top-level packages that an import brings, with the milliseconds of their own modules, longest first."""
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-c", f"import {module}"],
        cwd=ROOT, stderr=subprocess.PIPE, text=True, check=True,
    )  # fmt: skip
    found: Counter[str] = Counter()
    for line in done.stderr.splitlines():
        if match := re.match(r"import time:\s+(\d+) \|\s+\d+ \|\s+(\S+)", line):
            found[match[2].partition(".")[0]] += int(match[1]) / 1000
    return found.most_common(SHOWN_PACKAGES)


if __name__ == "__main__":
    main()
