"""A stage of training, from storage to metrics: the page to read first.

    storage -> manifest -> plan -> stream -> batches -> stage -> engine -> checkpoint -> metrics

`_train` is that line. What it is told is a `ResolvedStage`; the model, its losses and the meaning of a sample
come in as callables, so nothing here knows what is being trained. Around it, `run_stage` goes back to the
last checkpoint when a step went wrong and leaves out what was wrong with it (`incidents`).
"""

from __future__ import annotations

import contextlib
import logging
import tempfile
import time
from collections.abc import Container, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from plinth.checkpoint import save_load as checkpoint
from plinth.checkpoint import store
from plinth.checkpoint.saver import Saver
from plinth.data.assemble import LocalBatch
from plinth.data.bad_rows import Skips
from plinth.data.batches import Batches, open_batches
from plinth.data.locate import locate
from plinth.data.plan import Cursor
from plinth.data.sources import check_unchanged
from plinth.engine.engine import Engine, EngineConfig, StepResult
from plinth.engine.process import Process, on_all_ranks
from plinth.errors import NonFiniteError, PlinthError, StorageError
from plinth.observe import incidents
from plinth.observe.config import OnBadStep, OnCollapse
from plinth.observe.incidents import CollapseWatch, Incident
from plinth.observe.metrics import record_step, told
from plinth.storage import scratch
from plinth.train.attempt import Attempt
from plinth.train.control import Consensus, Control, PreemptionAction, StepDecision, checkpoint_report
from plinth.train.observers import Observers
from plinth.train.outcome import StageEnd
from plinth.train.resolve import ResolvedStage, first_cursor
from plinth.units import counted

RESIZE_LIMIT_S = 60.0
"""How long workers wait to be restarted at another size before they continue at their own."""

log = logging.getLogger(__name__)


class _BadStep(Exception):
    """A step to roll back."""

    def __init__(self, incident: Incident, error: PlinthError) -> None:
        super().__init__(str(error))
        self.incident, self.error = incident, error


@dataclass
class StageState:
    """What stays the same over the rollbacks of a stage."""

    stage: ResolvedStage
    process: Process
    control: Control
    saver: Saver
    observers: Observers


def run_stage(
    stage: ResolvedStage,
    process: Process,
    control: Control,
    attempt: Attempt,
    later: Sequence[ResolvedStage] = (),
) -> StageEnd:
    """Train a stage to its end on this rank, from its last checkpoint if it has one.

    Args:
        later: the stages that come after it.

    Raises:
        PlinthError: what the user can mend.
    """
    on_all_ranks(process.world, lambda: scratch.claim(stage.scratch))
    if _is_done(stage, process, later):
        _say(process, "%s: all %d steps are done", stage.name, stage.total_steps)
        return StageEnd()
    check_unchanged(stage.mixture.sources)
    with ExitStack() as opened:
        observers = opened.enter_context(Observers(stage, process, attempt))
        saver = Saver(
            process.world,
            stage.checkpoints,
            stage.scratch,
            stage.checkpoint,
            observers.before_commit,
            observers.may_commit,
            observers.committed,
            stage.on_upload,
            stage.evaluated,
        )
        opened.callback(saver.close)
        state = StageState(stage, process, control, saver, observers)
        while True:
            try:
                return _train(state)
            except _BadStep as bad:
                _roll_back(state, bad)


def _is_done(stage: ResolvedStage, process: Process, later: Sequence[ResolvedStage]) -> bool:
    """Whether the stage's last step is in a whole checkpoint; otherwise the missing steps are trained again.

    The checkpoint is downloaded and compared with its record, unless a later stage is under way: that one
    has checkpoints of its own, and every restart would download this one for nothing.
    """

    def look() -> bool:
        if process.world.rank or store.latest(stage.checkpoints) != stage.total_steps:
            return False
        if any((store.latest(s.checkpoints) or s.total_steps) < s.total_steps for s in later):
            return True
        try:
            with tempfile.TemporaryDirectory(dir=stage.scratch) as local:
                wrong = store.whats_wrong(stage.checkpoints, stage.total_steps, Path(local))
        except OSError as error:
            raise StorageError(
                f"{stage.name}: the last checkpoint cannot be looked at in {stage.scratch}: "
                f"{error.strerror or error}.",
                "Make room there, or give another place with TMPDIR or the job's scratch folder.",
            ) from error
        if wrong:
            log.warning("%s: the last checkpoint is damaged: %s", stage.name, wrong)
        return not wrong

    return on_all_ranks(process.world, look)[0]


def _train(state: StageState) -> StageEnd:
    """From the last checkpoint to the end of the stage, a request to stop, or a bad step."""
    stage, process = state.stage, state.process
    with ExitStack() as opened:
        model = stage.build_stage(stage.mixture.sources)
        sizes = (stage.global_batch_size, stage.micro_batch_size)
        config = EngineConfig(stage.optim, stage.zero, *sizes, stage.total_steps, stage.seed)
        engine = Engine(model, config, process)
        opened.callback(engine.close)
        notes = _resume_or_start(stage, engine, process)
        losses: list[float] = list(notes.get("recent_losses", []))
        out_samples, out_batches = incidents.left_out(incidents.read_all(stage.storage))
        start, columns = first_cursor(notes, stage.plan), list(model.columns())
        batches = open_batches(
            stage.mixture,
            process.world,
            start,
            columns,
            stage.decode,
            Skips(out_samples),
            getattr(model, "read_ahead", None),
        )
        opened.callback(batches.close)
        state.observers.begin(engine)
        consensus, collapse = Consensus(process, state.control), CollapseWatch(stage.guard)

        end, stall_s, compute_s = StageEnd(), 0.0, 0.0
        unreported: list[dict[str, float]] = []
        while (step := engine.completed_steps) < stage.total_steps and not end.is_stopped:
            started = time.perf_counter()
            state.control.enters("waits for its batch of step", step, stage.guard.hang_after_s)
            batch = _next_batch(batches, out_batches)
            state.observers.batch(step, batch)
            state.control.enters("takes step", step, stage.guard.hang_after_s)
            heard = consensus.heard(bool(batch.skipped), state.observers.save_s)
            result = _step(state, engine, batch, losses, [*heard, *told(batch, compute_s)])
            decision = consensus.decide(result.told[:, : len(heard)])
            compute_s = state.observers.compute_s()
            record = record_step(
                result, result.told[:, len(heard) :], batch, process, stage.global_batch_size, started,
                stall_s, compute_s,
            )  # fmt: skip
            if decision.has_skipped:
                record.skipped = _gathered(state, batch.skipped)
            state.control.enters("is done with step", step)
            end.summary, stall_s = record.summary(), 0.0
            unreported.append(end.summary)
            state.observers.step(record, engine, batch)
            _watch(state, collapse, result)
            is_last = step + 1 == stage.total_steps
            if is_last or _is_due(step + 1, stage.checkpoint.every_steps) or decision.is_urgent:
                kept = stage.notes | {
                    "cursor": batch.next_cursor.to_dict(),
                    "recent_losses": losses[-stage.guard.spike_window :],
                }
                with state.observers.saving():
                    stall_s = _save(state, engine, kept, result, decision)
                state.control.report(checkpoint_report(stage.name, unreported, stage.global_batch_size))
                unreported = []
                end.is_stopped = _apply(state, decision, consensus) and not is_last
        began = time.perf_counter()
        state.saver.wait(stage.checkpoint.away_limit_s)
        state.observers.end(end.is_stopped, stall_s + time.perf_counter() - began)
        return end


def _resume_or_start(stage: ResolvedStage, engine: Engine, process: Process) -> dict[str, Any]:
    """Restore the last checkpoint and return its notes, or take the weights of the stage before."""
    began = time.perf_counter()
    state = checkpoint.load(engine, stage.checkpoints, stage.scratch)
    if state is not None:
        notes: dict[str, Any] = state["notes"]
        _say(
            process,
            "%s: resuming after step %d of %d (epoch %d step %d) from %s, written by %s, in %.1f s",
            stage.name, state["step"], engine.total_steps, notes["cursor"]["epoch"], notes["cursor"]["step"],
            stage.checkpoints.uri, counted(state["written_by"]["world_size"], "worker"),
            time.perf_counter() - began,
        )  # fmt: skip
        return notes
    _say(process, "%s: starting, %d steps", stage.name, engine.total_steps)
    if stage.weights_from is not None:
        source = stage.weights_from.child("checkpoints")
        taken = checkpoint.load_weights(engine, source, stage.scratch)
        _say(
            process, "%s: weights of step %d of %s: %d parameters taken, %d new, %d reshaped, %d unused",
            stage.name, taken.step, source.uri, len(taken.loaded), len(taken.missing), len(taken.reshaped),
            len(taken.unused),
        )  # fmt: skip
    return {}


def _next_batch(batches: Batches, left_out: Container[Cursor]) -> LocalBatch:
    """The next batch that no incident has left out."""
    while (batch := next(batches)).cursor in left_out:
        pass
    return batch


def _step(
    state: StageState, engine: Engine, batch: LocalBatch, losses: list[float], tell: Sequence[float]
) -> StepResult:
    """One optimizer step; `losses` grows by one.

    Args:
        tell: to the other ranks.

    Raises:
        _BadStep: it is not finite, or a spike, and the job asks for a rollback.
    """
    guard = state.stage.guard
    details = _is_due(engine.completed_steps, state.stage.metrics.details_every_steps)
    try:
        result = engine.step(batch.tensors, details, tell)
    except NonFiniteError as error:
        if guard.on_bad_step is OnBadStep.stop:
            raise
        raise _BadStep(_incident(state, error, engine.completed_steps, batch, None), error) from error
    if incidents.is_spike(guard, losses, result.loss):
        spike = NonFiniteError(f"The loss of step {result.step} is a spike: {result.loss:.4g}.")
        if guard.on_bad_step is OnBadStep.stop:
            raise spike
        raise _BadStep(_incident(state, spike, result.step, batch, result.loss), spike)
    losses.append(result.loss)
    return result


def _incident(
    state: StageState, error: NonFiniteError, step: int, batch: LocalBatch, loss: float | None
) -> Incident:
    """What happened, the same on all ranks. If no rank can name samples, or if half of them are named, no
    single sample is to blame, so the whole batch is skipped."""
    ids = _gathered(state, batch.sample_ids)
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
        locations=_locations(state, batch.cursor, named) if state.process.world.rank == 0 else [],
        loss=loss,
    )


def _gathered(state: StageState, own: list[str]) -> list[str]:
    """The lists of all ranks, one after the other."""
    return [item for of_rank in on_all_ranks(state.process.world, lambda: own) for item in of_rank]


def _locations(state: StageState, cursor: Cursor, ids: list[str]) -> list[dict[str, Any]]:
    """Where the samples are stored; nothing if the storage does not say."""
    try:
        return [asdict(location) for location in locate(state.stage.mixture, cursor, ids)]
    except StorageError:
        return []


def _roll_back(state: StageState, bad: _BadStep) -> None:
    """Write the incident down; the caller goes back to the last checkpoint.

    Raises:
        PlinthError: there have been too many.
    """
    with contextlib.suppress(StorageError):  # the rollback goes to whatever is committed by then
        state.saver.wait(state.stage.checkpoint.away_retry_s)
    # All ranks need the same number, so rank 0 counts, before it adds this incident.
    is_first = state.process.world.rank == 0
    before = on_all_ranks(
        state.process.world, lambda: len(incidents.read_all(state.stage.storage)) if is_first else 0
    )[0]
    within = before < state.stage.guard.max_rollbacks
    if is_first:
        state.observers.incident(bad.incident, "rolled back" if within else "stopped")
        log.warning("%s: %s", state.stage.name, bad.error)
    on_all_ranks(state.process.world, lambda: None)  # a barrier: written before any rank reads it
    if not within:
        raise type(bad.error)(
            f"{bad.error.problem} The stage was rolled back {before} times before.",
            f"Look at {state.stage.storage.uri}/{incidents.FOLDER}, or raise guard.max_rollbacks.",
        ) from bad.error
    most = state.stage.guard.max_rollbacks
    _say(state.process, "%s: rolling back (%d of %d)", state.stage.name, before + 1, most)


def _watch(state: StageState, collapse: CollapseWatch, result: StepResult) -> None:
    for what in collapse.look(result.logs):
        _say(state.process, "%s: COLLAPSE at step %d: %s", state.stage.name, result.step, what)
        if state.stage.guard.on_collapse is OnCollapse.stop:
            raise PlinthError(
                f"The representation has collapsed at step {result.step}: {what}.",
                "Lower optim.lr or the weight of the term at fault, or set guard.on_collapse=warn.",
            )


def _save(
    state: StageState, engine: Engine, notes: dict[str, Any], result: StepResult, decision: StepDecision
) -> float:
    """Begin a checkpoint; returns how long training waited for it."""
    began = time.perf_counter()
    state.observers.flush()
    metrics = {"loss": result.loss, **result.terms, **result.logs}
    saved = checkpoint.save(engine, state.saver, notes, metrics)
    if decision.preemption is PreemptionAction.save_locally:
        state.saver.wait_until_local()
    elif decision.is_urgent:
        state.saver.wait(state.stage.checkpoint.away_limit_s)
    _say(
        state.process, "%s: checkpoint of step %d, %.0f ms of waiting",
        state.stage.name, saved.step, 1000 * saved.stall_s,
    )  # fmt: skip
    return time.perf_counter() - began


def _apply(state: StageState, decision: StepDecision, consensus: Consensus) -> bool:
    """After a checkpoint: wait for the shutdown that is coming, if one is; returns whether to stop here."""
    if decision.preemption is not PreemptionAction.none:
        _say(state.process, "%s: saved before this node is taken away", state.stage.name)
        state.observers.expect_end()
        state.control.wait_for_shutdown(consensus.time_left_s())
    elif decision.resize:
        state.saver.wait(state.stage.checkpoint.away_limit_s)
        _say(state.process, "%s: saved before a change of size", state.stage.name)
        state.observers.expect_end()
        state.control.wait_for_shutdown(RESIZE_LIMIT_S)
    return decision.stop


def _is_due(step: int, every: int) -> bool:
    return every > 0 and step % every == 0


def _say(process: Process, message: str, *values: object) -> None:
    if process.world.rank == 0:
        log.info(message, *values)
