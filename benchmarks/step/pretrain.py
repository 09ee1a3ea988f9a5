"""`poma pretrain` on the demo's stages, for `benchmarks.step` and its likes: data once, then runs."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import yaml

from benchmarks.step.cpu_clock import CpuClock
from jobs.demo.command import Timings, make_data
from jobs.demo.config import DemoJob
from jobs.jobfile import read
from plinth.observe.step_lines import Line, parsed

ROOT = Path(__file__).parents[2]
DEMO = ROOT / "jobs" / "configs" / "demo.yaml"
STAGES = ("warmup", "main")
ROOMS, HELD_OUT_ROOMS, TEACHER_STEPS = 512, 32, 3
LAYERS = 4
"""Of the encoder. The demo's had as many when the targets were set; it has two since, and all that are
compared keep the size that the figures were measured at."""
SAMPLE_S = 0.25


class Measured(NamedTuple):
    """Steps of a stage, one after the other."""

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


class Run:
    """A run of `poma pretrain` of some stages, started.

    Args:
        folder: of `prepare`.
        name: of the run, with the time added.
        steps: stage -> its steps. A stage that is not named is left out.
        overrides: of the demo's values, as `poma pretrain` takes them.
    """

    def __init__(self, folder: Path, name: str, steps: Mapping[str, int], overrides: Sequence[str]) -> None:
        raw = yaml.safe_load(DEMO.read_text().replace("${folder}", str(folder.resolve())))["pretrain"]
        name = f"{name}-{int(time.time())}"
        raw |= {"kind": "pretrain", "name": name, "zero": {"stage": 2}}
        raw["fit"]["workers"] = 2
        for stage in set(STAGES) - set(steps):
            raw[stage] = None
        for stage, count in steps.items():
            raw[stage] |= {"steps": count, "warmup_steps": 2}
        self.batch_sizes = {stage: raw[stage]["global_batch_size"] for stage in steps}
        self.folder = folder / "runs" / name
        self.scratch = folder.resolve() / "scratch" / name
        self.scratch.mkdir(parents=True)
        job, self._log = folder / f"{name}.yaml", folder / f"{name}.log"
        job.write_text(yaml.safe_dump(raw))
        # Where its stages write their lines first; Ray's sockets want a short folder.
        places = {"TMPDIR": str(self.scratch), "RAY_TMPDIR": tempfile.gettempdir()}
        with self._log.open("w") as out:
            command = [sys.executable, "-m", "jobs.cli", "pretrain", str(job), *overrides]
            self.process = subprocess.Popen(
                command, cwd=ROOT, stdout=out, stderr=subprocess.STDOUT, env=os.environ | places
            )
        self._clock = CpuClock(self.process.pid, SAMPLE_S)

    def end(self) -> None:
        """Wait for its end.

        Raises:
            SystemExit: it failed.
        """
        if self.process.wait():
            raise SystemExit(f"`poma pretrain` ended with {self.process.returncode}, see {self._log}")
        self._clock.stop()

    def lines(self, stage: str) -> list[Line]:
        """What an ended run wrote of a stage, a line for each step."""
        return parsed((self.folder / stage / "metrics.jsonl").read_text())

    def measured(self, stage: str, lines: Sequence[Line]) -> Measured:
        """From the end of the first of these steps in a row to the end of the last."""
        first, *rest = lines
        wall_s = rest[-1]["time"] - first["time"]
        cpu_s = sum(self._clock.between(first["time"], rest[-1]["time"]).values())
        epochs = [line["epoch"] for line in rest]
        return Measured(len(rest) * self.batch_sizes[stage] / wall_s, 1000 * cpu_s / len(rest), epochs)
