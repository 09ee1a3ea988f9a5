"""`poma pretrain` on the demo's stages, for `benchmarks.step`: data once, then a run for each round."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import yaml

from benchmarks.step.cpu_clock import CpuClock
from jobs.demo.command import Timings, make_data
from jobs.demo.config import DemoJob
from jobs.jobfile import read

ROOT = Path(__file__).parents[2]
DEMO = ROOT / "jobs" / "configs" / "demo.yaml"
STAGES = ("warmup", "main")
ROOMS, HELD_OUT_ROOMS, TEACHER_STEPS = 512, 32, 3
LAYERS = 4
"""Of the encoder. The demo's had as many when the targets were set; it has two since, and all that are
compared keep the size that the figures were measured at."""
SAMPLE_S = 0.25


class Measured(NamedTuple):
    """A stage of a run."""

    samples_per_s: float
    cpu_ms: float
    """A step, of all processes of the run."""
    epochs: list[int]
    """Of the steps that were measured."""


def prepare(folder: Path) -> None:
    """The demo's data with fewer rooms and a teacher that was hardly trained, unless they are there."""
    overrides = [f"folder={folder}", f"teacher.steps={TEACHER_STEPS}", f"teacher.image_layers={LAYERS}"]
    for part, rooms in (("rooms", ROOMS), ("images", ROOMS), ("held_out", HELD_OUT_ROOMS)):
        overrides += [f"{part}.reader.rooms.rooms={rooms}", f"{part}.workers=0"]
    folder.mkdir(parents=True, exist_ok=True)
    job: DemoJob = read(DEMO).resolve(DemoJob, overrides)
    make_data(job, Timings(folder / "data.json"))


def pretrain(
    folder: Path,
    name: str,
    skipped: Mapping[str, int],
    steps: int,
    overrides: Sequence[str],
) -> dict[str, Measured]:
    """One run, by stage.

    Args:
        folder: of `prepare`.
        name: of the run, with the time added.
        skipped: stage -> steps before those that are measured: while Ray's processes still start, reading
            begins and the run's first page is written. A stage that is not named is left out.
        steps: that are measured, in each stage.
        overrides: of the demo's values, as `poma pretrain` takes them.
    """
    raw = yaml.safe_load(DEMO.read_text().replace("${folder}", str(folder.resolve())))["pretrain"]
    name = f"{name}-{int(time.time())}"
    raw |= {"kind": "pretrain", "name": name, "zero": {"stage": 2}}
    raw["fit"]["workers"] = 2
    for stage in set(STAGES) - set(skipped):
        raw[stage] = None
    for stage, before in skipped.items():
        raw[stage] |= {"steps": before + steps + 1, "warmup_steps": 2}
    job = folder / f"{name}.yaml"
    job.write_text(yaml.safe_dump(raw))
    log = folder / f"{name}.log"
    with log.open("w") as out:
        command = [sys.executable, "-m", "jobs.cli", "pretrain", str(job), *overrides]
        process = subprocess.Popen(command, cwd=ROOT, stdout=out, stderr=subprocess.STDOUT)
        clock = CpuClock(process.pid, SAMPLE_S)
        if process.wait():
            raise SystemExit(f"{job}: `poma pretrain` ended with {process.returncode}, see {log}")
    clock.stop()
    found = {}
    for stage in skipped:
        text = (folder / "runs" / name / stage / "metrics.jsonl").read_text()
        lines = [json.loads(line) for line in text.splitlines()]
        first, last = lines[skipped[stage]], lines[-1]
        done = last["step"] - first["step"]
        wall_s = last["time"] - first["time"]
        cpu_s = sum(clock.between(first["time"], last["time"]).values())
        epochs = [line["epoch"] for line in lines[skipped[stage] + 1 :]]
        found[stage] = Measured(done * raw[stage]["global_batch_size"] / wall_s, 1000 * cpu_s / done, epochs)
    return found
