"""A sweep for TensorBoard's HParams tab (table, parallel coordinates): an event file per trial.

    <sweep>/tensorboard/003/events.out.tfevents.sweep

Each has the trial's values, its metrics by samples, and the best one as `best/METRIC`. Writing the files
again replaces them. To see them: `tensorboard --logdir SWEEP/tensorboard`.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jobs.sweep.state import SweepState, Varied, is_number, read_state, value_text
from plinth.storage import Storage
from plinth.sweep.records import Trial

FOLDER = "tensorboard"
EVENTS = "events.out.tfevents.sweep"
BEST = "best"

HParams = dict[str, float | str]


def write_hparams(storage: Storage) -> None:
    """Write the event files of all trials of the sweep in `storage`.

    Raises:
        StorageError: it holds no sweep, or cannot be written.
    """
    state = read_state(storage)
    values = _values(state)
    with tempfile.TemporaryDirectory(prefix="plinth-hparams-") as scratch:
        for trial in state.trials:
            local = _write(Path(scratch) / trial.record.name, state, trial, values)
            storage.upload(local, f"{FOLDER}/{trial.record.name}/{EVENTS}")


def _write(folder: Path, state: SweepState, trial: Trial, values: dict[int, HParams]) -> Path:
    """One trial's file on this machine."""
    from torch.utils.tensorboard.summary import hparams  # here, because importing torch takes seconds
    from torch.utils.tensorboard.writer import SummaryWriter

    metric = state.record.metric
    best = {f"{BEST}/{metric}": state.best(trial), metric: trial.last(metric)}
    known = {tag: value for tag, value in best.items() if value is not None and math.isfinite(value)}
    # All keys of the sweep, also those that this trial lacks: TensorBoard asks any one trial for its columns.
    columns, _, _ = hparams({k: v for of_trial in values.values() for k, v in of_trial.items()}, best)
    _, began, ended = hparams(values[trial.record.index], known)
    with SummaryWriter(str(folder)) as writer:
        for report in trial.history.reports:
            for tag, value in report.metrics.items():
                if math.isfinite(value):
                    writer.add_scalar(tag, value, report.samples)
        if f"{BEST}/{metric}" in known:
            writer.add_scalar(f"{BEST}/{metric}", known[f"{BEST}/{metric}"], state.record.samples)
        for summary in (columns, began, ended):
            writer.file_writer.add_summary(summary)
    (local,) = folder.iterdir()
    return local


def _values(state: SweepState) -> dict[int, HParams]:
    """Trial -> its values. HParams wants one type per column, a number or a text."""
    found: dict[int, HParams] = {trial.record.index: {} for trial in state.trials}
    for varied in state.varied:
        is_text = not all(is_number(value) for value in _of(varied, state.trials))
        for trial in state.trials:
            if varied.key in trial.history.values:
                value = trial.history.values[varied.key]
                found[trial.record.index][varied.key] = value_text(value) if is_text else value
    return found


def _of(varied: Varied, trials: Sequence[Trial]) -> list[Any]:
    return [trial.history.values[varied.key] for trial in trials if varied.key in trial.history.values]
