"""A sweep's folder as a sweep leaves it, made without training."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from jobs.sweep.config import SweepJob
from plinth import config
from plinth.checkpoint.store import commit
from plinth.observe.ledger import FINISHED, Mark, Record
from plinth.storage import Storage
from plinth.sweep.records import (
    JOB_KEY,
    TRIALS,
    Report,
    Status,
    SweepRecord,
    TrialHistory,
    TrialRecord,
    trial_name,
    write_history,
    write_sweep,
    write_trial,
)
from tests.helpers.run_folder import NOW, records
from tests.helpers.tiny_jobs import pretrain_job

LR, JEPA, MODE, RANK = "main.lr", "main.loss.jepa", "model.encoder.tuning.mode", "model.encoder.tuning.rank"
SPACE: dict[str, dict[str, Any]] = {
    LR: {"log_uniform": [1e-5, 1e-2]},
    JEPA: {"uniform": [0.0, 2.0]},
    MODE: {"choice": ["full", "lora"]},
    RANK: {"integer": [2, 32], "when": {MODE: "lora"}},
}
ANYWHERE = "/anywhere"
SAMPLES, EVERY, BATCH = 6400, 800, 32
RUNGS = (1600, 3200)


def job(folder: Path) -> str:
    """sweep.yaml: the tiny job and what is varied, resolved."""
    return _job().replace(ANYWHERE, str(folder))


@functools.cache
def _job() -> str:
    """The same for a folder `ANYWHERE`; resolving it takes most of a second."""
    asked = {"space": SPACE, "metric": "view", "budget": {"hours": 2.0}}
    plain = {**pretrain_job(Path(ANYWHERE), name="tiny"), "kind": "sweep", "sweep": asked}
    return config.to_yaml(config.build(SweepJob, [("test", plain)]))


def sweep(folder: Path, trials: int, **changes: Any) -> Storage:
    """A sweep without trials."""
    storage = Storage.from_uri(folder / "runs" / "tiny")
    sweep_record(storage, job(folder), trials, **changes)
    return storage


def sweep_record(storage: Storage, job_text: str, trials: int, **changes: Any) -> None:
    """sweep.yaml and sweep.json of a sweep."""
    storage.write(JOB_KEY, job_text.encode())
    record = SweepRecord(
        "tiny", "view", "min", "asha", "random", 0, trials, {}, SAMPLES, status="running", started=NOW - 4000,
        spent_s=3900.0, starts=2,
    )  # fmt: skip
    write_sweep(storage, replace(record, **changes))


def asha_sweep(folder: Path, trials: int = 12, status: str = "finished", gpus: int = 0) -> Storage:
    """Three parameters and one more under a condition; `trials` of them, stopped at two rungs as ASHA does,
    one failed. The loss falls with lr near 1e-3, a bit with jepa, and not with the rest."""
    storage = sweep(folder, trials, status=status)
    rng = np.random.default_rng(3)
    points = [_values(rng) for _ in range(trials)]
    quality = [_quality(values) + 0.05 * rng.normal() for values in points]
    order = np.argsort(np.argsort(quality))
    for i, values in enumerate(points):
        until = SAMPLES if order[i] < trials // 4 else RUNGS[1] if order[i] < trials // 2 else RUNGS[0]
        state = Status.finished if until == SAMPLES else Status.stopped
        if i == 4:
            state, until = Status.failed, EVERY
        message = "NonFiniteError: the loss <was> not finite.\nmore" if state is Status.failed else ""
        reports = [_report(n, quality[i], rng) for n in range(EVERY, until + 1, EVERY)]
        trial(storage, TrialRecord(i, values, state, message), reports, gpus)
    return storage


def trial(storage: Storage, record: TrialRecord, reports: Sequence[Report], gpus: int = 0) -> Storage:
    """One trial with its reports, ledger and empty checkpoints; returns its folder."""
    write_trial(storage, record)
    folder = storage.child(TRIALS).child(trial_name(record.index))
    if not reports:
        return folder
    write_history(
        folder, TrialHistory(record.values, list(reports), is_finished=record.status is Status.finished)
    )
    last = reports[-1]
    marks, began = [Mark(0), Mark(last.step, last.seconds)], NOW - 4000
    ended, price = began + last.seconds + 10, 2.5 if gpus else None
    records(folder, [
        Record("a1", "main", 1, gpus, began, ended, 10, price, FINISHED, 10.0, marks=marks),
    ])  # fmt: skip
    checkpoint(folder, "main", last.step)
    return folder


def checkpoint(run: Storage, stage: str, step: int) -> None:
    """A committed one, empty."""
    commit(run.child(f"{stage}/checkpoints"), step, {}, {"step": step, "total_steps": step}, "token")


def _values(rng: np.random.Generator) -> dict[str, Any]:
    values: dict[str, Any] = {
        LR: float(10 ** rng.uniform(-5, -2)),
        JEPA: float(rng.uniform(0, 2)),
        MODE: str(rng.choice(["full", "lora"])),
    }
    return values | ({RANK: int(rng.integers(2, 33))} if values[MODE] == "lora" else {})


def _quality(values: dict[str, Any]) -> float:
    return 0.5 * abs(math.log10(values[LR]) + 3) + 0.15 * abs(values[JEPA] - 1)


def _report(samples: int, quality: float, rng: np.random.Generator) -> Report:
    loss = 2.0 + quality * samples / SAMPLES + 3 * math.exp(-samples / 2000) + quality + 0.01 * rng.normal()
    step = samples // BATCH
    return Report("main", step, samples, 0.5 * step, {"view": float(loss), "loss": 2 * float(loss)})
