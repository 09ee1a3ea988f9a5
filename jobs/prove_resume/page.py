"""What `poma prove-resume` shows: a table in the terminal, and a page with curves."""

from __future__ import annotations

import os
import platform
import socket
import time
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path

from jobs.display.figures import Curve, Mark, series_colours
from jobs.display.html import render
from jobs.display.text import aligned
from jobs.prove_resume.compare import LOSS_TOLERANCE, STATE_TOLERANCE, Comparison
from jobs.prove_resume.kinds import TrainingJob
from jobs.runs.started import code_version, command_line
from plinth import config
from plinth.observe.failures import utc

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
    same_losses = not any(c.loss for c in comparisons)
    straight = comparisons[0].straight
    marks = tuple(
        Mark(float(each.step), each.text, c.name) for c in comparisons for each in c.result.interruptions
    )
    steps = [float(i) for i in range(len(straight.losses))]
    losses = {"straight": (steps, straight.losses)}
    results = {"straight": straight} | {c.name: c.result for c in comparisons}
    colours = series_colours(list(results))
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
        header=_verdict_first(HEADER),
        rows=[_verdict_first(row) for row in rows(comparisons)],
        bounds=_bounds(),
        comparisons=comparisons,
        hashes=[[name, found.weights_hash] for name, found in results.items() if found.weights_hash],
        made_by=made_by(),
        same_losses=same_losses,
        marked=bool(marks),
        curves=[
            Curve("loss", "step", losses, marks, colours),
            *([] if same_losses else [Curve("difference of the loss, relative", "step", apart, (), colours)]),
            Curve("workers", "step", workers, marks, colours),
        ],
        job=config.to_yaml(job),
    )
    path = folder / "prove-resume.html"
    path.write_text(text, encoding="utf-8")
    return path


def _verdict_first(row: Sequence[str]) -> list[str]:
    """On a phone the last column is out of sight."""
    return [row[0], row[-1], *row[1:-1]]


def made_by() -> dict[str, str]:
    """What this was run with: command, code, machine."""
    import torch

    gpus = torch.cuda.device_count()
    device = f", {gpus} x {torch.cuda.get_device_name(0)}" if gpus else ", no GPU"
    return {
        "Command": command_line(),
        "Code": code_version(),
        "Machine": f"{socket.gethostname()}: {os.cpu_count()} CPUs ({platform.machine()}){device}",
        "Python, torch, Ray": f"{platform.python_version()}, {torch.__version__}, {version('ray')}",
        "Finished": utc(time.time()),
    }


def _difference(value: float) -> str:
    return "identical" if value == 0 else f"{value:.1e}"


def _bounds() -> str:
    return (
        "identical: bit by bit, required everywhere but where the number of workers changes without "
        f"zero.exact_sums or in bf16: there losses within {LOSS_TOLERANCE:g} and weights and optimizer state "
        f"within {STATE_TOLERANCE:g} of their norm."
    )
