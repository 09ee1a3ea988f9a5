"""A stage of training, from storage to metrics: the page to read first.

    storage -> manifest -> plan -> stream -> batches -> stage -> engine -> checkpoint -> metrics

`_train` is that line. What it is told is a `StageRun`; the model, its losses and the meaning of a sample
come in as callables, so nothing here knows what is being trained. Around it, `run_stage` goes back to the
last checkpoint when a step went wrong and leaves out what was wrong with it (`incidents`).
"""

from __future__ import annotations

import contextlib
import logging
import time
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from typing import Any

from plinth.checkpoint import save_load as checkpoint
from plinth.checkpoint.config import CheckpointConfig
from plinth.checkpoint.saver import Saver
from plinth.data.bad_rows import Skips
from plinth.data.batches import LocalBatch, open_batches
from plinth.data.locate import locate
from plinth.data.plan import Cursor, Plan
from plinth.data.sources import OpenSource, open_sources, plan_for
from plinth.engine.engine import BatchSizes, Engine, StepResult
from plinth.engine.process import Process, on_all_ranks
from plinth.errors import NonFiniteError, PlinthError, StorageError
from plinth.observe import incidents
from plinth.observe.config import OnBadStep, OnCollapse
from plinth.observe.incidents import CollapseWatch, Incident
from plinth.observe.metrics import record_step
from plinth.train.attempt import Attempt
from plinth.train.control import Control, Exchange, Orders, Rescue, checkpoint_report
from plinth.train.observers import Observers
from plinth.train.stage_run import StageRun, first_cursor, notes_of, preflight, stage_steps

__all__ = ["CheckpointConfig", "StageEnd", "StageRun", "preflight", "run_stage"]

RESIZE_LIMIT_S = 60.0
"""How long the workers wait to be restarted at another size before they go on at theirs."""

log = logging.getLogger(__name__)


@dataclass
class StageEnd:
    """How a call of `run_stage` ended."""

    summary: dict[str, Any] = field(default_factory=dict)
    """The numbers of the last step; empty if the stage had ended before."""
    is_stopped: bool = False
    """Whether it was told to stop, and did so after a checkpoint, before the stage's end."""


class _BadStep(Exception):
    """A step that is to be taken back."""

    def __init__(self, incident: Incident, error: PlinthError) -> None:
        super().__init__(str(error))
        self.incident, self.error = incident, error


@dataclass
class _Stage:
    """What stays the same over the rollbacks of a stage."""

    run: StageRun
    process: Process
    control: Control
    sources: list[OpenSource]
    plan: Plan
    total_steps: int
    saver: Saver
    observers: Observers


def run_stage(run: StageRun, process: Process, control: Control, attempt: Attempt) -> StageEnd:
    """Train a stage to its end on this rank, from its last checkpoint if it has one.

    Raises:
        PlinthError: what the user can mend.
    """
    sources = open_sources(run.data, run.storage_options)
    plan = plan_for(sources, run.data, run.seed, run.global_batch_size)
    total_steps = stage_steps(run, plan)
    if checkpoint.latest(run.checkpoints) == total_steps:
        _say(process, "%s: all %d steps are done", run.name, total_steps)
        return StageEnd()
    with ExitStack() as opened:
        observers = opened.enter_context(Observers(run, process, attempt))
        saver = Saver(
            process.world,
            run.checkpoints,
            run.scratch,
            run.checkpoint,
            observers.before_commit,
            observers.committed,
            run.on_upload,
        )
        opened.callback(saver.close)
        stage = _Stage(run, process, control, sources, plan, total_steps, saver, observers)
        while True:
            try:
                return _train(stage)
            except _BadStep as bad:
                _roll_back(stage, bad)


def _train(it: _Stage) -> StageEnd:
    """From the last checkpoint to the end of the stage, or to an order to stop, or to a bad step."""
    run, process = it.run, it.process
    with ExitStack() as opened:
        stage = run.build_stage(it.sources)
        sizes = BatchSizes(run.global_batch_size, run.micro_batch_size)
        engine = Engine(
            stage, run.optim, run.zero, process, total_steps=it.total_steps, sizes=sizes, seed=run.seed
        )
        opened.callback(engine.close)
        notes = _resume_or_start(run, engine, process)
        losses: list[float] = list(notes.get("recent_losses", []))
        out_samples, out_batches = incidents.left_out(incidents.read_all(run.storage))
        batches = open_batches(
            it.sources, run.data, run.seed, run.global_batch_size, process.world,
            first_cursor(notes, it.plan), list(stage.columns()), run.decode, Skips(out_samples),
        )  # fmt: skip
        opened.callback(batches.close)
        it.observers.begin(engine)
        exchange, collapse = Exchange(process, it.control), CollapseWatch(run.guard)

        end, stall_s = StageEnd(), 0.0
        unreported: list[dict[str, float]] = []
        while (step := engine.completed_steps) < it.total_steps and not end.is_stopped:
            started = time.perf_counter()
            batch = next(b for b in batches if b.cursor not in out_batches)
            it.observers.batch(step, batch)
            result = _step(it, engine, batch, losses)
            orders = exchange.after_step(bool(batch.skipped), it.observers.save_s)
            record = record_step(
                result, batch, process, run.global_batch_size, started, stall_s, it.observers.compute_s()
            )
            if orders.has_skipped:
                record.skipped = _gathered(it, batch.skipped)
            end.summary, stall_s = record.summary(), 0.0
            unreported.append(end.summary)
            it.observers.step(record, engine, batch)
            _watch(it, collapse, result)
            if _is_due(step + 1, run.checkpoint.every_steps) or step + 1 == it.total_steps or _hurry(orders):
                kept = notes_of(run, it.plan) | {
                    "cursor": batch.next_cursor.to_dict(),
                    "recent_losses": losses[-run.guard.spike_window :],
                }
                stall_s = _save(it, engine, kept, result, orders)
                it.control.report(checkpoint_report(run.name, unreported, run.global_batch_size))
                unreported = []
                end.is_stopped = _obey(it, orders, exchange) and step + 1 < it.total_steps
        began = time.perf_counter()
        it.saver.wait(run.checkpoint.away_limit_s)
        it.observers.end(end.is_stopped, stall_s + time.perf_counter() - began)
        return end


# -- the parts of it ------------------------------------------------------------------------------------


def _resume_or_start(run: StageRun, engine: Engine, process: Process) -> dict[str, Any]:
    """Restore the last checkpoint and return its notes, or take the weights of the stage before."""
    began = time.perf_counter()
    state = checkpoint.load(engine, run.checkpoints, run.scratch)
    if state is not None:
        notes: dict[str, Any] = state["notes"]
        _say(
            process,
            "%s: resuming after step %d of %d (epoch %d step %d) from %s, written by %d worker(s), in %.1f s",
            run.name, state["step"], engine.total_steps, notes["cursor"]["epoch"], notes["cursor"]["step"],
            run.checkpoints.uri, state["written_by"]["world_size"], time.perf_counter() - began,
        )  # fmt: skip
        return notes
    _say(process, "%s: starting, %d steps", run.name, engine.total_steps)
    if run.weights_from is not None:
        source = run.weights_from.child("checkpoints")
        taken = checkpoint.load_weights(engine, source, run.scratch)
        _say(
            process, "%s: weights of step %d of %s: %d parameters taken, %d new, %d reshaped, %d unused",
            run.name, taken.step, source.uri, len(taken.loaded), len(taken.missing), len(taken.reshaped),
            len(taken.unused),
        )  # fmt: skip
    return {}


def _step(it: _Stage, engine: Engine, batch: LocalBatch, losses: list[float]) -> StepResult:
    """One optimizer step; `losses` grows by one.

    Raises:
        _BadStep: it is not finite, or a spike, and the job wants it taken back.
    """
    guard = it.run.guard
    details = _is_due(engine.completed_steps, it.run.metrics.details_every_steps)
    try:
        result = engine.step(batch.tensors, details=details)
    except NonFiniteError as error:
        if guard.on_bad_step is OnBadStep.stop:
            raise
        raise _BadStep(_incident(it, error, engine.completed_steps, batch, None), error) from error
    if incidents.is_spike(guard, losses, result.loss):
        spike = NonFiniteError(f"The loss of step {result.step} is a spike: {result.loss:.4g}.")
        if guard.on_bad_step is OnBadStep.stop:
            raise spike
        raise _BadStep(_incident(it, spike, result.step, batch, result.loss), spike)
    losses.append(result.loss)
    return result


def _incident(
    it: _Stage, error: NonFiniteError, step: int, batch: LocalBatch, loss: float | None
) -> Incident:
    """What happened, as all ranks see it. If nobody can name samples, or half of all are named, the
    batch is left out as a whole: that is no matter of single samples."""
    ids = _gathered(it, batch.sample_ids)
    named = [i for of_rank in error.by_rank for i in of_rank]
    whole_batch = not named or 2 * len(named) >= len(ids)
    return Incident(
        kind=error.problem.split(" of step")[0] + (" spike" if loss is not None else " not finite"),
        step=step,
        epoch=batch.cursor.epoch,
        step_in_epoch=batch.cursor.step,
        whole_batch=whole_batch,
        sample_ids=ids if whole_batch else named,
        by_rank=[list(of_rank) for of_rank in error.by_rank],
        locations=_locations(it, batch.cursor, named) if it.process.world.rank == 0 else [],
        loss=loss,
    )


def _gathered(it: _Stage, own: list[str]) -> list[str]:
    """The lists of all ranks, one after the other."""
    return [item for of_rank in on_all_ranks(it.process.world, lambda: own) for item in of_rank]


def _locations(it: _Stage, cursor: Cursor, ids: list[str]) -> list[dict[str, Any]]:
    """Where the samples are stored; nothing if the storage does not say."""
    try:
        return [asdict(location) for location in locate(it.sources, it.plan, cursor, ids)]
    except StorageError:
        return []


def _roll_back(it: _Stage, bad: _BadStep) -> None:
    """Write the incident down; the caller goes back to the last checkpoint.

    Raises:
        PlinthError: there have been too many.
    """
    with contextlib.suppress(StorageError):  # what is committed by then is what we go back to
        it.saver.wait(it.run.checkpoint.away_retry_s)
    # All must have the same number: rank 0 counts, before it adds this one.
    is_first = it.process.world.rank == 0
    before = on_all_ranks(
        it.process.world, lambda: len(incidents.read_all(it.run.storage)) if is_first else 0
    )[0]
    within = before < it.run.guard.max_rollbacks
    if is_first:
        it.observers.incident(bad.incident, "rolled back" if within else "stopped")
        log.warning("%s: %s", it.run.name, bad.error)
    on_all_ranks(it.process.world, lambda: None)  # written before anyone reads what is left out
    if not within:
        raise type(bad.error)(
            f"{bad.error.problem} The stage was rolled back {before} times before.",
            f"Look at {it.run.storage.uri}/{incidents.FOLDER}, or raise guard.max_rollbacks.",
        ) from bad.error
    _say(it.process, "%s: rolling back (%d of %d)", it.run.name, before + 1, it.run.guard.max_rollbacks)


def _watch(it: _Stage, collapse: CollapseWatch, result: StepResult) -> None:
    for what in collapse.look(result.logs):
        _say(it.process, "%s: COLLAPSE at step %d: %s", it.run.name, result.step, what)
        if it.run.guard.on_collapse is OnCollapse.stop:
            raise PlinthError(
                f"The representation has collapsed at step {result.step}: {what}.",
                "Lower optim.lr or the weight of the term at fault, or set guard.on_collapse=warn.",
            )


def _save(it: _Stage, engine: Engine, notes: dict[str, Any], result: StepResult, orders: Orders) -> float:
    """Begin a checkpoint; returns how long training waited for it."""
    began = time.perf_counter()
    it.observers.flush()
    metrics = {"loss": result.loss, **result.terms, **result.logs}
    saved = checkpoint.save(engine, it.saver, notes, metrics)
    if orders.rescue is Rescue.save_locally:
        it.saver.wait_until_local()
    elif _hurry(orders):
        it.saver.wait(it.run.checkpoint.away_limit_s)
    _say(
        it.process, "%s: checkpoint of step %d, %.0f ms of waiting",
        it.run.name, saved.step, 1000 * saved.stall_s,
    )  # fmt: skip
    return time.perf_counter() - began


def _obey(it: _Stage, orders: Orders, exchange: Exchange) -> bool:
    """After a checkpoint: wait to be ended if that is what is coming; whether to stop here."""
    if orders.rescue is not Rescue.none:
        _say(it.process, "%s: saved before this node is taken away", it.run.name)
        it.observers.expect_end()
        it.control.wait_for_shutdown(exchange.time_left_s())
    elif orders.resize:
        it.saver.wait(it.run.checkpoint.away_limit_s)
        _say(it.process, "%s: saved before a change of size", it.run.name)
        it.observers.expect_end()
        it.control.wait_for_shutdown(RESIZE_LIMIT_S)
    return orders.stop


def _hurry(orders: Orders) -> bool:
    """Whether a checkpoint is due now whatever the step."""
    return orders.stop or orders.rescue is not Rescue.none


def _is_due(step: int, every: int) -> bool:
    return every > 0 and step % every == 0


def _say(process: Process, message: str, *values: object) -> None:
    if process.world.rank == 0:
        log.info(message, *values)
