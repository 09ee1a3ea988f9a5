"""What `poma prove-resume` shows: a table in the terminal, and a page with curves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from jobs.display.figures import Curve
from jobs.display.html import render
from jobs.display.text import aligned
from jobs.prove_resume.compare import LOSS_TOLERANCE, STATE_TOLERANCE, Comparison
from jobs.prove_resume.kinds import TrainingJob
from plinth import config

HEADER = ("run", "batches", "losses", "weights", "optimizer state", "restarts", "steps redone", "verdict")


def rows(comparisons: Sequence[Comparison]) -> list[list[str]]:
    """A line for each run beside the straight one."""
    return [
        [
            c.name,
            "the same" if not c.different_batches else f"{c.different_batches} differ",
            _difference(c.loss),
            _difference(c.weights),
            _difference(c.moments),
            str(c.result.restarts),
            str(c.result.steps_redone),
            "SAME RESULT" if c.holds else "DIFFERS",
        ]
        for c in comparisons
    ]


def table(comparisons: Sequence[Comparison]) -> str:
    """For the terminal."""
    return "\n".join([*aligned([HEADER, *rows(comparisons)]), _bounds()])


def write_page(
    folder: Path, job: TrainingJob, comparisons: Sequence[Comparison], seconds: Mapping[str, float]
) -> Path:
    """`folder`/prove-resume.html."""
    good = all(c.holds for c in comparisons)
    straight = comparisons[0].straight
    steps = [float(i) for i in range(len(straight.losses))]
    losses = {"straight": (steps, straight.losses)}
    apart, workers = {}, {}
    for c in comparisons:
        x = [float(i) for i in range(len(c.result.losses))]
        losses[c.name] = (x, c.result.losses)
        pairs = zip(straight.losses, c.result.losses, strict=False)
        apart[c.name] = (x, [abs(a - b) / max(abs(a), 1e-12) for a, b in pairs])
        workers[c.name] = (x, [float(n) for n in c.result.world_sizes])
    text = render(
        "prove_resume/page.html",
        title="prove-resume",
        good=good,
        steps=len(straight.losses),
        facts={name: f"{value:.0f} s" for name, value in seconds.items()},
        header=HEADER,
        rows=rows(comparisons),
        bounds=_bounds(),
        comparisons=comparisons,
        curves=[
            Curve("loss", "step", losses),
            Curve("difference of the loss, relative", "step", apart),
            Curve("workers", "step", workers),
        ],
        job=config.to_yaml(job),
    )
    path = folder / "prove-resume.html"
    path.write_text(text, encoding="utf-8")
    return path


def _difference(value: float) -> str:
    return "identical" if value == 0 else f"{value:.1e}"


def _bounds() -> str:
    return (
        "identical: bit by bit, required everywhere but where the number of workers changes without "
        f"zero.exact_sums or in bf16: there losses within {LOSS_TOLERANCE:g} and weights and optimizer state "
        f"within {STATE_TOLERANCE:g} of their norm."
    )
