"""What a stage tells TensorBoard of itself beside its numbers: its settings, a text and hyperparameters."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

from plinth.observe.sinks import flat, redacted
from plinth.storage import Storage

LOSS_TAG = "loss/total"
TEXT_TAG = "job"
EVALUATIONS_KEY = "tensorboard/evaluation/events.out.tfevents.0.evaluation"
"""In a folder of its own: of several files in one TensorBoard reads the newest only."""

HParams = dict[str, bool | float | str]


def write_settings(board: Any, settings: Mapping[str, Any], deciding: Mapping[str, Any], step: int) -> None:
    """Write both; each start of a stage repeats them, so that no event file has to be kept.

    Args:
        board: a `SummaryWriter`.
        settings: all of the stage; the Text tab shows them.
        deciding: those that decide the result, the columns of the HParams tab.
        step: where the stage begins or goes on.
    """
    from torch.utils.tensorboard.summary import hparams

    board.add_text(TEXT_TAG, as_text(settings), step)
    columns, row, _ = hparams(hyperparameters(deciding), {LOSS_TAG: None})
    for summary in (columns, row):
        board.file_writer.add_summary(summary)


def write_evaluations(
    stage: Storage, local: Path, points: Iterable[tuple[int, float, Mapping[str, float]]]
) -> None:
    """Write the scalars of checkpoints as a run of its own beside the stage's, in place of the file before.

    Args:
        stage: folder of the stage in the run.
        local: an empty folder on this machine.
        points: step, `time.time()` and numbers of each.
    """
    from torch.utils.tensorboard.writer import SummaryWriter

    with SummaryWriter(str(local)) as board:
        for step, time, numbers in points:
            for name, value in numbers.items():
                board.add_scalar(f"evaluation/{name}", value, step, time)
    for path in local.glob("events*"):
        stage.upload(path, EVALUATIONS_KEY)


def as_text(settings: Mapping[str, Any]) -> str:
    """YAML without secrets, as a block of code in Markdown that no value can end."""
    lines = yaml.safe_dump(redacted(settings), sort_keys=False, allow_unicode=True).splitlines()
    return "\n".join(f"    {line}" for line in lines)


def hyperparameters(settings: Mapping[str, Any]) -> HParams:
    """Leaves by dotted keys, as HParams takes them: truth, numbers, texts."""
    found: HParams = {}
    for key, value in flat(redacted(settings)).items():
        is_plain = isinstance(value, bool | str) or (isinstance(value, int | float) and math.isfinite(value))
        found[key] = value if is_plain else "null" if value is None else str(value)
    return found
