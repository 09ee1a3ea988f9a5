"""What `poma profile` shows: the costs of a step in the terminal and on a page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from jobs.display.figures import Curve
from jobs.display.html import render
from jobs.display.text import aligned
from jobs.prove_resume.kinds import TrainingJob
from plinth import config
from plinth.train.parts import REST
from plinth.train.profile import CHECKPOINTS, TRACE
from plinth.units import MIB

PAGE = "profile.html"
LARGEST = 3
HEADER = ("part", "ms a step", "share")
MEANINGS = {
    "forward": "the stage's forward passes; the first of two passes among them",
    "backward": "autograd through the micro-batches",
    "contrast": "losses over the gathered features, and their gradient",
    "gather": "putting features together over workers and micro-batches",
    "waiting in collectives": "sent and received between workers, with the wait for the slowest",
    "reduction and norm": "the gradient's sum over workers, and its norm",
    "adding up": "gradients of the micro-batches into one",
    "exact sums": "rounding gradients so that sums do not depend on the number of workers",
    "clip and step": "DeepSpeed around the optimizer",
    "optimizer": "AdamW",
    "EMA": "the target copy",
    "metrics": "numbers of the step: put together, read, written down",
    "draws": "masks and captions, drawn on the host",
    CHECKPOINTS: "time that training waits for one, over the steps between two of the job's",
    "waiting for data": "time until the next batch is there",
    REST: "what none of the others is",
}
"""Part -> what is in it."""


@dataclass(frozen=True)
class StageCosts:
    """A stage's step."""

    name: str
    numbers: Mapping[str, Any]
    """As `plinth.train.profile` wrote them."""
    parts_ms: dict[str, float]
    """By part, the largest first."""

    @property
    def step_ms(self) -> float:
        """The whole step."""
        return sum(self.parts_ms.values())

    @property
    def samples_per_s(self) -> float:
        """Of all workers together."""
        return 1000 * self.numbers["samples"] / self.step_ms

    @property
    def largest(self) -> str:
        """The largest costs, as text."""
        named = list(self.parts_ms.items())[:LARGEST]
        return ", ".join(f"{name} {ms / self.step_ms:.0%}" for name, ms in named)

    @property
    def headline(self) -> str:
        """They, after the stage's name."""
        return f"{self.name}: {self.largest}"


def costs(numbers: Mapping[str, Any], every_steps: int) -> StageCosts:
    """The parts of a step of the job.

    Args:
        every_steps: steps between two checkpoints of the job; 0 without. The measured steps had one.
    """
    parts = dict(numbers["parts_ms"])
    parts[CHECKPOINTS] = numbers["checkpoint_ms"] / every_steps if every_steps else 0.0
    by_size = sorted(parts.items(), key=lambda part: -part[1])
    return StageCosts(numbers["stage"], numbers, dict(by_size))


def rows(stage: StageCosts) -> list[list[str]]:
    """A line for each part."""
    return [[name, f"{ms:.2f}", f"{ms / stage.step_ms:.1%}"] for name, ms in stage.parts_ms.items()]


def text(stage: StageCosts) -> str:
    """For the terminal."""
    lines = aligned([HEADER, *rows(stage)], right=(1, 2))
    return "\n".join([f"{stage.name}: {stage.step_ms:.1f} ms a step; largest: {stage.largest}", *lines])


def page(job: TrainingJob, stages: Sequence[StageCosts]) -> str:
    """`profile.html`."""
    first = stages[0].numbers
    return render(
        "profile/page.html",
        title=f"Profile of {job.name}",
        name=job.name,
        facts={
            "workers": first["world_size"],
            "device": first["device"],
            "precision": job.zero.precision.value,
            "zero.stage": job.zero.stage,
            **{f"{s.name}: samples/s": f"{s.samples_per_s:.1f}" for s in stages},
        },
        stages=stages,
        largest=LARGEST,
        meanings=MEANINGS,
        memory={stage.name: _memory_curve(stage) for stage in stages},
        mib=MIB,
        trace=TRACE,
        job=config.to_yaml(job),
    )


def _memory_curve(stage: StageCosts) -> Curve:
    points = stage.numbers["memory"]
    series = ([ms for ms, _ in points], [size / MIB for _, size in points])
    return Curve("allocated, MiB", "milliseconds of the trace", {stage.name: series})
