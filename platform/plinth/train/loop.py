"""A stage of training, from storage to metrics: the page to read first.

    storage -> manifest -> plan -> stream -> batches -> stage -> engine -> checkpoint -> metrics

`run_stage` is that line. What it is told is a `StageRun`; the model, its losses and the meaning of a
sample come in as callables, so nothing here knows what is being trained.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

from plinth.data.batches import open_batches
from plinth.data.plan import Cursor
from plinth.data.sources import open_sources, plan_for
from plinth.train import checkpoint
from plinth.train.checkpoint import CheckpointConfig
from plinth.train.engine import BatchSizes, Engine
from plinth.train.metrics import MetricsWriter, record_step
from plinth.train.process import Process
from plinth.train.stage_run import Notes, StageRun, notes_of, preflight, stage_steps

__all__ = ["CheckpointConfig", "StageRun", "preflight", "run_stage"]

log = logging.getLogger(__name__)

Report = Callable[[dict[str, Any]], None]


def run_stage(run: StageRun, process: Process, report: Report | None = None) -> dict[str, Any]:
    """Train a stage to its end on this rank, from its last checkpoint if it has one.

    Args:
        report: called on all ranks after each checkpoint with the numbers of the step.

    Returns:
        The numbers of the last step; empty if the stage had ended before.

    Raises:
        PlinthError: what the user can mend.
    """
    sources = open_sources(run.data, run.storage_options)
    plan = plan_for(sources, run.data, run.seed, run.global_batch_size)
    total_steps = stage_steps(run, plan)
    if checkpoint.latest(run.checkpoints) == total_steps:
        _say(process, "%s: all %d steps are done", run.name, total_steps)
        return {}

    with ExitStack() as opened:
        stage = run.build_stage(sources)
        sizes = BatchSizes(run.global_batch_size, run.micro_batch_size)
        engine = Engine(
            stage, run.optim, run.zero, process, total_steps=total_steps, sizes=sizes, seed=run.seed
        )
        opened.callback(engine.close)
        cursor = _resume_or_start(run, engine, process)
        batches = open_batches(
            sources, run.data, run.seed, run.global_batch_size, process.world, cursor,
            list(stage.columns()), run.decode,
        )  # fmt: skip
        opened.callback(batches.close)
        writer = _open_metrics(run, engine)
        if writer:
            opened.callback(writer.close)

        summary: dict[str, Any] = {}
        saving_s = 0.0
        while (step := engine.completed_steps) < total_steps:
            started = time.perf_counter()
            batch = next(batches)
            result = engine.step(batch.tensors, details=_is_due(step, run.metrics.details_every_steps))
            record = record_step(result, batch, process, run.global_batch_size, started, saving_s)
            summary, saving_s = record.summary(), 0.0
            if writer:
                writer.step(record)
            if _is_due(step, run.metrics.pictures_every_steps):
                pictures = engine.pictures(batch.tensors)  # on all ranks: stage 3 gathers weights for it
                if writer:
                    writer.pictures(pictures, step)
            if _is_due(step + 1, run.checkpoint.every_steps) or step + 1 == total_steps:
                if writer:
                    writer.sync()  # before the checkpoint: a run that resumes from it has all lines up to it
                saving_s = _save(run, engine, {**notes_of(run, plan), "cursor": batch.next_cursor.to_dict()})
                if report:
                    report(summary)
    return summary


def _resume_or_start(run: StageRun, engine: Engine, process: Process) -> Cursor:
    """Restore the last checkpoint, or take the weights of the stage before; where the data goes on."""
    state = checkpoint.load(engine, run.checkpoints, run.scratch)
    if state is not None:
        cursor = Cursor(**state["notes"]["cursor"])
        _say(
            process, "%s: resuming after step %d of %d (epoch %d, step %d) from %s, written by %d worker(s)",
            run.name, state["step"], engine.total_steps, cursor.epoch, cursor.step, run.checkpoints.uri,
            state["written_by"]["world_size"],
        )  # fmt: skip
        return cursor
    _say(process, "%s: starting, %d steps", run.name, engine.total_steps)
    if run.weights_from is not None:
        source = run.weights_from.child("checkpoints")
        taken = checkpoint.load_weights(engine, source, run.scratch)
        _say(
            process, "%s: weights of step %d of %s: %d parameters taken, %d new, %d reshaped, %d unused",
            run.name, taken.step, source.uri, len(taken.loaded), len(taken.missing), len(taken.reshaped),
            len(taken.unused),
        )  # fmt: skip
    return Cursor()


def _open_metrics(run: StageRun, engine: Engine) -> MetricsWriter | None:
    """On rank 0 alone."""
    if engine.world.rank:
        return None
    local = run.scratch / "metrics"
    return MetricsWriter(
        run.metrics, run.storage, local, run.name, engine.completed_steps, engine.total_steps
    )


def _save(run: StageRun, engine: Engine, notes: Notes) -> float:
    """Write a checkpoint; returns the seconds it took."""
    started = time.perf_counter()
    checkpoint.save(engine, run.checkpoints, run.scratch, notes, run.checkpoint.keep_last)
    seconds = time.perf_counter() - started
    _say(engine.process, "%s: checkpoint of step %d in %.1f s", run.name, engine.completed_steps, seconds)
    return seconds


def _is_due(step: int, every: int) -> bool:
    return every > 0 and step % every == 0


def _say(process: Process, message: str, *values: object) -> None:
    if process.world.rank == 0:
        log.info(message, *values)
