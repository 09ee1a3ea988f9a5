"""The metrics of a stage: TensorBoard, the same numbers as JSON lines, and a progress line in the terminal.

    <stage>/metrics.jsonl     one line per step (`step_lines`)
    <stage>/tensorboard/      events: scalars of every step, pictures of some

Rank 0 writes both to a local folder and copies them to the run's storage at checkpoints and at the end. A
resumed run continues after the step of its checkpoint: later lines of the run that died are dropped.

A full local disk stops none of it: lines wait in memory, and TensorBoard goes on when there is room again.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import resource
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch

from plinth.data.assemble import LocalBatch
from plinth.digests import finite
from plinth.engine.engine import StepResult
from plinth.engine.process import Process
from plinth.observe.board import LOSS_TAG, write_settings
from plinth.observe.config import MetricsConfig
from plinth.observe.sinks import Sinks
from plinth.observe.step_lines import PART_BYTES, StepLines
from plinth.observe.stragglers import COMPUTE, DATA_WAIT, RankSeconds, RankTimes
from plinth.redaction import redact
from plinth.storage import Storage

TENSORBOARD_FOLDER = "tensorboard"
RATE_WINDOW_STEPS = 20
HALF_BITS = 32
HALF_MASK = (1 << HALF_BITS) - 1

log = logging.getLogger(__name__)


@dataclass
class StepRecord:
    """One line of metrics.jsonl. Durations in seconds. `digest` is a hash of the sample ids of the global
    batch: two runs that saw the same data have the same digests."""

    step: int
    epoch: int
    step_in_epoch: int
    loss: float
    terms: dict[str, float]
    logs: dict[str, float]
    grad_norm: float
    lr: float
    digest: str
    world_size: int
    samples: int
    step_s: float
    data_wait_s: float
    checkpoint_s: float
    memory_bytes: int
    time: float
    skipped: list[str] = field(default_factory=list)
    """Samples of the global batch that could not be trained on, each with the reason."""
    compute_s: float = 0.0
    """Time of the forward passes on this rank."""
    ranks: RankSeconds = field(default_factory=dict)
    """Times that show slow ranks; empty with one rank. Some lines of metrics.jsonl have their means."""

    def summary(self) -> dict[str, Any]:
        """The most important numbers, flat."""
        numbers = {"step": self.step, "loss": self.loss, "lr": self.lr, "grad_norm": self.grad_norm}
        return numbers | self.terms


def told(batch: LocalBatch, compute_s: float) -> np.ndarray:
    """What this rank tells the others for the record of a step, fp64 [2 n + 2]: its sample keys, in halves
    that fp64 holds exactly, and its times.

    Args:
        compute_s: of the step before: this one's is known when the device is done with it.
    """
    keys = batch.tensors["sample_key"].numpy()
    return np.concatenate([keys >> HALF_BITS, keys & HALF_MASK, [batch.wait_s, compute_s]]).astype(np.float64)


def record_step(
    result: StepResult,
    of_ranks: np.ndarray,
    batch: LocalBatch,
    process: Process,
    global_batch_size: int,
    started: float,
    checkpoint_s: float,
    compute_s: float = 0.0,
) -> StepRecord:
    """The record of a step; call it right after the step.

    Args:
        of_ranks: [ranks, k], what they `told`.
        started: `time.perf_counter()` before the batch was requested.
        checkpoint_s: time that a checkpoint took between the step before and this one.
        compute_s: time of the step's forward passes on this rank.
    """
    upper, lower = np.split(of_ranks[:, :-2].astype(np.int64), 2, axis=1)
    keys = (upper << HALF_BITS) | lower
    waits, computes = of_ranks[:, -2:].T.tolist()
    numbers = {f.name: getattr(result, f.name) for f in fields(result) if f.name != "told"}
    return StepRecord(
        **numbers,
        epoch=batch.cursor.epoch,
        step_in_epoch=batch.cursor.step,
        digest=hashlib.blake2b(keys.tobytes(), digest_size=8).hexdigest(),
        world_size=process.world.world_size,
        samples=global_batch_size,
        step_s=time.perf_counter() - started,
        data_wait_s=batch.wait_s,
        checkpoint_s=checkpoint_s,
        memory_bytes=_memory_bytes(process.device),
        time=time.time(),
        compute_s=compute_s,
        ranks={DATA_WAIT: waits, COMPUTE: computes} if len(of_ranks) > 1 else {},
    )


def _memory_bytes(device: torch.device) -> int:
    """Peak memory of this process: on its GPU, else in RAM."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


class MetricsWriter:
    """Writes the metrics of one stage; only on rank 0.

    Args:
        storage: folder of the stage in the run, where the files end up.
        local: folder on this machine where they are written; emptied first.
        name: of the stage, for the progress line.
        first_step: steps done before, 0 for a new run.
        hosts: of each rank.
        sinks: get the same scalars as TensorBoard, by the stage's own steps; closed by whoever made them.
        steps_before: of the stages before this one. In TensorBoard its steps continue theirs.
    """

    def __init__(
        self,
        config: MetricsConfig,
        storage: Storage,
        local: Path,
        name: str,
        first_step: int,
        total_steps: int,
        hosts: Sequence[str] = (),
        sinks: Sinks | None = None,
        steps_before: int = 0,
    ) -> None:
        from tensorboard.compat.proto.summary_pb2 import Summary  # type: ignore[import-untyped]

        self._config, self._storage, self._local, self._name = config, storage, local, name
        self._total_steps, self._rank_times, self._sinks = total_steps, RankTimes(hosts), sinks
        self._steps_before, self._first_step = steps_before, first_step
        shutil.rmtree(local, ignore_errors=True)
        self._lines = StepLines(storage, local, first_step)
        self._summary = Summary
        self._recent: list[StepRecord] = []
        self._sent: dict[Path, int] = {}
        self._shown_at = time.monotonic()
        self._is_whole = True
        self._board: Any = None
        with self._disk_may_be_full():
            self._lines.write()
        self._open_board(first_step)

    def step(self, record: StepRecord) -> None:
        """Write a step to all of them."""
        with self._disk_may_be_full():
            self._lines.add(json.dumps(finite(self._line(record))) + "\n")
        self._scalars(scalars(record), record.step)
        self._recent = [*self._recent[-RATE_WINDOW_STEPS + 1 :], record]
        now = time.monotonic()
        is_last = record.step + 1 >= self._total_steps
        if is_last or now - self._shown_at >= self._config.progress_every_s:
            self._shown_at = now
            log.info("%s", progress_line(self._name, self._recent, self._total_steps))

    def settings(self, settings: Mapping[str, Any], deciding: Mapping[str, Any]) -> None:
        """Show the stage's settings in TensorBoard.

        Args:
            deciding: those that decide its result.
        """
        with self._board_may_fail():
            if self._board is not None:
                write_settings(self._board, settings, deciding, self._steps_before + self._first_step)

    def ledger(self, shares: Mapping[str, float], step: int) -> None:
        """Show where the run's time went so far, as shares of the wall time."""
        self._scalars({f"time/{category}": share for category, share in shares.items()}, step)

    def pictures(self, pictures: Mapping[str, np.ndarray], step: int) -> None:
        """Show images uint8 [H, W, 3]."""
        with self._board_may_fail():
            for tag, image in pictures.items() if self._board is not None else ():
                self._board.add_image(tag, image, self._steps_before + step, dataformats="HWC")

    def _line(self, record: StepRecord) -> dict[str, Any]:
        line = asdict(record)
        line["skipped"] = [
            redact(reason) for reason in record.skipped
        ]  # it may quote an error of the storage
        self._rank_times.add(line.pop("ranks"))
        is_due = record.step % self._config.details_every_steps == 0
        return line | ({"ranks": times} if is_due and (times := self._rank_times.take()) else {})

    def _scalars(self, values: Mapping[str, float], step: int) -> None:
        # One event for all: `add_scalar` writes one for each, at 50 us.
        points = [self._summary.Value(tag=tag, simple_value=value) for tag, value in values.items()]
        with self._board_may_fail():
            if self._board is not None:
                self._board.file_writer.add_summary(self._summary(value=points), self._steps_before + step)
        if self._sinks:
            self._sinks.log(values, step)

    def flush(self) -> None:
        """The next `sync` copies all steps up to now."""
        with self._disk_may_be_full():
            self._lines.write()
        with self._board_may_fail():
            if self._board is not None:
                self._board.flush()
                if self._recent and self._board_is_full():
                    self._board.close()
                    self._open_board(self._recent[-1].step + 1)
        if self._board is None and self._recent:  # perhaps there is room now
            self._open_board(self._recent[-1].step + 1)
        self._lines.flush()

    def sync(self) -> None:
        """Copy what was flushed to storage. Another thread may call it while steps are written."""
        self._lines.sync()
        for path in sorted((self._local / TENSORBOARD_FOLDER).glob("*")):
            size = path.stat().st_size
            if self._sent.get(path) != size:
                self._storage.upload(path, path.relative_to(self._local).as_posix())
                self._sent[path] = size

    def close(self) -> None:
        """Copy everything to storage and remove the local folder."""
        self.flush()
        self._close_files()
        try:
            self.sync()
        finally:
            shutil.rmtree(self._local, ignore_errors=True)

    def abandon(self) -> None:
        """Copy nothing and remove the local folder: another process writes the run's metrics."""
        self._close_files()
        shutil.rmtree(self._local, ignore_errors=True)

    def _close_files(self) -> None:
        with self._board_may_fail():
            if self._board is not None:
                self._board.close()
        self._lines.close()

    def _board_is_full(self) -> bool:
        """Whether its file is so large that a new one is begun: what is full is copied once."""
        files = (self._local / TENSORBOARD_FOLDER).glob("*")
        return max((path.stat() for path in files), key=lambda of: of.st_mtime_ns).st_size >= PART_BYTES

    def _open_board(self, first_step: int) -> None:
        from torch.utils.tensorboard.writer import SummaryWriter

        with self._board_may_fail():
            (self._local / TENSORBOARD_FOLDER).mkdir(parents=True, exist_ok=True)
            # purge_step: TensorBoard hides what a run that died had written from this step on.
            self._board = SummaryWriter(
                str(self._local / TENSORBOARD_FOLDER), purge_step=self._steps_before + first_step
            )

    @contextlib.contextmanager
    def _board_may_fail(self) -> Iterator[None]:
        """Its writer is of no use after an error: it raises it again at every call."""
        with self._disk_may_be_full():
            try:
                yield
            except OSError:
                self._board = None
                raise

    @contextlib.contextmanager
    def _disk_may_be_full(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            if self._is_whole:
                where = f"metrics of {self._name} cannot be written to {self._local} ({error})"
                kept = "the lines are kept in memory, TensorBoard lacks these steps"
                log.warning("%s; training continues: %s", where, kept)
            self._is_whole = False


def progress_line(name: str, recent: list[StepRecord], total_steps: int) -> str:
    """Where the stage is, its loss, its rate over the recent steps and the time that is left."""
    last = recent[-1]
    spent = sum(r.step_s + r.checkpoint_s for r in recent)
    per_step = spent / len(recent)
    left = per_step * (total_steps - last.step - 1)
    waiting = sum(r.data_wait_s for r in recent) / max(spent, 1e-9)
    parts = "  ".join(f"{term} {value:.3f}" for term, value in last.terms.items())
    return (
        f"{name} {last.step + 1}/{total_steps}  epoch {last.epoch}  loss {last.loss:.4f}  {parts}  "
        f"lr {last.lr:.2e}  {last.samples / max(per_step, 1e-9):.1f} samples/s  "
        f"data wait {waiting:.0%}  {duration(left)} left"
    )


def duration(seconds: float) -> str:
    """For people: 45 s, 12 min, 3 h 20 min."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"


def scalars(record: StepRecord) -> dict[str, float]:
    """The numbers of a step by their names in TensorBoard."""
    seconds = max(record.step_s, 1e-9)
    return {
        LOSS_TAG: record.loss,
        **{f"loss/{name}": value for name, value in record.terms.items()},
        **{f"stage/{name}": value for name, value in record.logs.items()},
        "optimizer/lr": record.lr,
        "optimizer/grad_norm": record.grad_norm,
        "speed/samples_per_s": record.samples / seconds,
        "speed/samples_per_s_per_worker": record.samples / seconds / record.world_size,
        "speed/step_s": record.step_s,
        "speed/data_wait_share": record.data_wait_s / seconds,
        "memory/bytes": record.memory_bytes,
        "position/epoch": record.epoch,
    }
