"""What is written down while a stage trains: metrics, pictures, the ledger, incidents, last batches.

All of it beside the training: whatever becomes of these files, the result is the same.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from contextlib import AbstractContextManager
from dataclasses import asdict, replace
from types import TracebackType
from typing import Any

from plinth.checkpoint.saver import Saved
from plinth.data.assemble import LocalBatch
from plinth.engine.engine import Engine
from plinth.engine.process import Process, on_all_ranks
from plinth.errors import StorageError, TakenOverError
from plinth.observe import incidents
from plinth.observe.incidents import Incident
from plinth.observe.ledger import CATEGORIES, FAILED, FINISHED, STOPPED, Ledger, Record, summarise
from plinth.observe.metrics import MetricsWriter, StepRecord
from plinth.observe.sinks import RunName, Sinks
from plinth.observe.step_lines import recover_lines
from plinth.observe.stragglers import ForwardClock
from plinth.observe.telemetry import Telemetry
from plinth.storage.lock import refuse_if_taken_over
from plinth.train.attempt import Attempt
from plinth.train.profile import StageProfile
from plinth.train.resolve import ResolvedStage

RECENT_STEPS = 50
"""Steps whose losses and gradient norms go into an incident."""
SECTIONS = ("data", "optim", "zero", "checkpoint", "metrics", "guard", "ledger")
SIZES = ("global_batch_size", "micro_batch_size", "epochs", "steps", "seed")

log = logging.getLogger(__name__)


class Observers:
    """The observers of one stage on this rank, as a context."""

    def __init__(self, stage: ResolvedStage, process: Process, attempt: Attempt) -> None:
        self._stage, self._process, self._attempt = stage, process, attempt
        self._run_name = attempt.storage.uri.rsplit("/", 1)[-1]
        self._telemetry = Telemetry(self._run_name, stage.name, process.world.rank)
        self._ledger = self._open_ledger() if process.world.rank == 0 else None
        self._clock: ForwardClock | None = None
        self._sinks: Sinks | None = None
        self._writer: MetricsWriter | None = None
        self._writer_lock = threading.Lock()  # it is synced in a thread, and closed on a rollback
        self._recent: list[StepRecord] = []
        self._profile: StageProfile | None = None
        if stage.profile is not None and process.world.rank == 0:
            self._profile = StageProfile(stage.profile, stage.name, process.device)
        self.save_s: float | None = None
        """Rank 0: from the beginning of the last checkpoint to its commit."""

    def __enter__(self) -> Observers:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._telemetry.close()
        if self._profile:
            self._profile.close()
        self._close_writer()
        self._close_sinks(FAILED)
        if self._ledger and kind is not None:
            self._ledger.close(FAILED)

    def end(self, is_stopped: bool, checkpoint_s: float) -> None:
        """The stage has ended or stopped; `checkpoint_s` is how long its last checkpoint held it up."""
        if self._ledger:
            self._ledger.close(STOPPED if is_stopped else FINISHED, checkpoint_s)
        self._close_writer()
        self._close_sinks(STOPPED if is_stopped else FINISHED)
        self._attempt.stage_started = time.time()

    def expect_end(self) -> None:
        """All is saved; this process may be ended from now on."""
        self._attempt.rank_log.expect_end()

    def batch(self, step: int, batch: LocalBatch) -> None:
        """A step begins. Should the process die in it, its batch is on record."""
        self._attempt.rank_log.batch(step, batch.sample_ids, self._stage.name)
        self._attempt.rank_log.arm(self._stage.guard.hang_after_s)

    def begin(self, engine: Engine) -> None:
        """Training begins after `engine.completed_steps`, anew or after a rollback. Call it on all ranks."""
        # Together: its folder goes with it, and is the one that all ranks of this machine look into next.
        on_all_ranks(self._process.world, self._close_writer)
        local = self._stage.scratch / "metrics"
        recover_lines(self._process.world, self._stage.storage, local)
        hosts = on_all_ranks(self._process.world, lambda: self._process.host)
        if self._clock:
            self._clock.close()
        self._clock = ForwardClock(engine.stage, self._process.device)
        if self._process.world.rank == 0:
            self._sinks = self._sinks or self._open_sinks()
            self._writer = MetricsWriter(
                self._stage.metrics, self._stage.storage, local, self._stage.name,
                engine.completed_steps, engine.total_steps, hosts, self._sinks, self._stage.steps_before,
            )  # fmt: skip
            self._writer.settings(settings_of(self._stage), self._stage.config)
        if self._profile:
            self._profile.begin(engine)

    def compute_s(self) -> float:
        """What the forward passes of this rank have taken since the last call."""
        return self._clock.take_s() if self._clock else 0.0

    def step(self, record: StepRecord, engine: Engine, batch: LocalBatch) -> None:
        """A step was taken. Call it on all ranks: the pictures of stage 3 gather weights."""
        with self._profile.writing() if self._profile else contextlib.nullcontext():
            self._write(record, engine, batch)
        if self._profile:
            self._profile.step(record)

    def _write(self, record: StepRecord, engine: Engine, batch: LocalBatch) -> None:
        self._recent = [*self._recent[-RECENT_STEPS + 1 :], record]
        self._telemetry.record(record)
        if self._ledger:
            self._ledger.step(record.step, record.step_s, record.data_wait_s, record.checkpoint_s)
        if self._writer:
            self._writer.step(record)
        every = self._stage.metrics.pictures_every_steps
        if every and record.step % every == 0:
            pictures = engine.pictures(batch.tensors)
            if self._writer:
                self._writer.pictures(pictures, record.step)

    def saving(self) -> AbstractContextManager[None]:
        """Around the begin of a checkpoint."""
        return self._profile.saving() if self._profile else contextlib.nullcontext()

    def flush(self) -> None:
        """A checkpoint begins: write out what belongs to it."""
        if self._writer:
            self._writer.flush()

    def may_commit(self) -> None:
        """Called in a thread on rank 0 before anything of this process is to count.

        Raises:
            TakenOverError: another process writes the run by now.
        """
        refuse_if_taken_over(self._attempt.storage, self._stage.lock_token)

    def before_commit(self, saved: Saved) -> None:
        """Called in a thread on rank 0: a run that resumes from the checkpoint has all lines up to it.

        Raises:
            TakenOverError: another process writes the run by now.
        """
        self.may_commit()
        book = summarise(self._attempt.storage)
        with self._writer_lock:
            if self._writer:
                self._writer.ledger({c: book.share(c) for c in CATEGORIES}, saved.step)
                self._writer.sync()

    def committed(self, saved: Saved) -> None:
        """Called in a thread on rank 0: the checkpoint counts."""
        self.save_s = saved.durable_s
        if self._ledger:
            self._ledger.committed(saved.step)

    def incident(self, incident: Incident, action: str) -> None:
        """Write an incident down; on rank 0."""
        incident = replace(
            incident,
            action=action,
            recent_losses=[r.loss for r in self._recent],
            recent_grad_norms=[r.grad_norm for r in self._recent],
        )
        key = incidents.write(self._stage.storage, incident)
        log.warning(
            "%s: incident of step %d: %s/%s", self._stage.name, incident.step, self._stage.storage.uri, key
        )

    def _open_ledger(self) -> Ledger:
        world, device = self._process.world, self._process.device
        gpus = world.world_size if device.type == "cuda" else 0
        started, config = self._attempt.stage_started, self._stage.ledger
        record = Record(
            self._attempt.id,
            self._stage.name,
            world.world_size,
            gpus,
            started=started,
            beat=started,
            beat_every_s=config.beat_every_s,
            price_per_gpu_hour=config.price_per_gpu_hour,
            is_first=self._attempt.is_first,
        )
        return Ledger(self._attempt.storage, record)

    def _open_sinks(self) -> Sinks | None:
        if not self._stage.metrics.sinks:
            return None
        name = RunName(
            id=f"{self._stage.run_id or self._run_name}-{self._stage.name}",
            group=self._run_name,
            name=f"{self._run_name}/{self._stage.name}",
        )
        return Sinks(self._stage.metrics, name, settings_of(self._stage), self._stage.scratch / "sinks")

    def _close_sinks(self, outcome: str) -> None:
        """After the writer; whatever it had goes with them."""
        if self._sinks:
            self._sinks.close(outcome)

    def _close_writer(self) -> None:
        with self._writer_lock:
            writer, self._writer = self._writer, None
        if writer is None:
            return
        try:
            refuse_if_taken_over(self._attempt.storage, self._stage.lock_token)
        except TakenOverError:
            writer.abandon()
            return
        except StorageError:
            pass  # `close` tries it once more, and says so
        try:
            writer.close()
        except StorageError as error:
            log.warning("the last metrics of %s are not in storage: %s", self._stage.name, error.problem)


def settings_of(stage: ResolvedStage) -> dict[str, Any]:
    """The settings of the stage, for trackers and TensorBoard."""
    sections = {name: asdict(getattr(stage, name)) for name in SECTIONS}
    return {**stage.config, **sections, **{name: getattr(stage, name) for name in SIZES}}
