"""`poma sweep promote`: a trial as a job of full length."""

from __future__ import annotations

import shlex
from pathlib import Path

from jobs.common.run_layout import STAGES
from jobs.finetune.config import FinetuneJob
from jobs.pretrain.config import PretrainJob
from jobs.sweep.heads import HeadTrials
from jobs.sweep.kinds import AnyTrials, read_trials_of
from jobs.sweep.show import best_text, samples_text
from jobs.sweep.state import SweepState, metric_text, read_state
from plinth import config
from plinth.checkpoint.store import latest
from plinth.errors import CheckpointError, ConfigError, PlinthError
from plinth.redaction import redact
from plinth.storage import Storage, StorageOptions
from plinth.storage.local_files import create
from plinth.sweep.records import SHARED, TRIALS, Trial

BEST = "best"
"""Used in place of a trial's number: the best trial."""


def promote(
    sweep_uri: str,
    trial: str,
    options: StorageOptions,
    out: Path,
    with_checkpoint: bool,
    output: str | None = None,
) -> int:
    """Write the job file of a trial and say what to run; returns the exit code.

    Args:
        trial: its number, as 3 or 003, or "best".
        out: the file, which must not exist.
        with_checkpoint: start from the trial's last weights rather than new ones.
        output: folder or URI that gets the run; the one that holds the sweep when None.

    Raises:
        StorageError: `sweep_uri` holds no sweep.
        ConfigError: no such trial, or the file exists.
        CheckpointError: the trial has no checkpoint to start from.
    """
    storage = Storage.from_uri(sweep_uri, options)
    storage.check()
    state = read_state(storage)
    found = _find(state, trial)
    if out.exists():
        raise ConfigError(f"{out} is there already.", "Give another file with --out, or remove it.")
    trials = read_trials_of(storage)
    if with_checkpoint and isinstance(trials, HeadTrials):
        raise ConfigError(
            f"{state.uri} is a sweep of `poma finetune`, whose heads start from new weights.",
            "Leave --with-checkpoint out.",
        )
    start = _last_checkpoint(storage, state, found) if with_checkpoint else None
    job = promoted(trials, state, found, start, output)
    _write(out, _header(state, found, start) + config.to_yaml(job))
    try:
        config.load(type(job), out)
    except PlinthError:
        out.unlink()
        raise
    print(f"{out}: trial {found.record.name} of {state.uri} as a job of full length, named {job.name}")
    for key, value in found.history.values.items():
        print(f"  {key} = {value}")
    print(f"  start = {start.uri}" if start else "  start: new weights")
    file = shlex.quote(str(out))
    if isinstance(job, PretrainJob):
        print(f"poma plan {file}       what it will take")
    print(f"poma {job.kind} {file}   runs it")
    return 0


def promoted(
    trials: AnyTrials, state: SweepState, trial: Trial, start: Storage | None, output: str | None
) -> PretrainJob | FinetuneJob:
    """The sweep's job at its full length, with the trial's present values.

    Args:
        start: the stage whose weights it starts from. A warm-up before it would only undo them.
    """
    job = trials.full_job(trial.history.values)
    job.name = f"{state.record.name}-{trial.record.name}"
    if output is not None:
        job.output = output
    if start is not None and isinstance(job, PretrainJob):
        job.start = start.uri
        if job.main is not None:
            job.warmup = None
    return job


def _find(state: SweepState, name: str) -> Trial:
    if name == BEST and state.ranked:
        return state.ranked[0]
    for trial in state.trials:
        if name.isdecimal() and trial.record.index == int(name):
            return trial
    there = ", ".join(trial.record.name for trial in state.trials) or "none"
    best = f" The best is {state.ranked[0].record.name}." if state.ranked else ""
    raise ConfigError(f"{state.uri} has no trial {name}.", f"There are: {there}.{best}")


def _last_checkpoint(storage: Storage, state: SweepState, trial: Trial) -> Storage:
    """The last stage of the trial that has a checkpoint; before its first one, the warm-up that all share."""
    folder = storage.child(TRIALS).child(trial.record.name)
    stages = [folder.child(name) for name in reversed(STAGES)]
    if state.record.shares_warmup:
        stages.append(storage.child(SHARED).child(STAGES[0]))
    for stage in stages:
        if latest(stage.child("checkpoints")) is not None:
            return stage
    raise CheckpointError(
        f"Trial {trial.record.name} of {state.uri} has no committed checkpoint.",
        "Promote it without its checkpoint, or another one.",
    )


def _header(state: SweepState, trial: Trial, start: Storage | None) -> str:
    """Comments about where the values come from."""
    metric = f"{state.record.metric} {metric_text(state.best(trial))} at best"
    lines = [
        f"Trial {trial.record.name} of {state.uri} ({trial.record.status.value}): {metric}, "
        f"{samples_text(state, trial)} samples.",
        f"Best of the sweep: {best_text(state)}.",
        *(f"Varied: {key} = {value}" for key, value in trial.history.values.items()),
        f"It starts from the weights in {start.uri}." if start else "It starts from new weights.",
    ]
    return "".join(f"# {' '.join(redact(line).split())}\n" for line in lines)


def _write(out: Path, text: str) -> None:
    out.parent.mkdir(parents=True, exist_ok=True)
    try:
        create(str(out), text.encode())
    except FileExistsError:
        raise ConfigError(f"{out} is there already.", "Give another file with --out.") from None
