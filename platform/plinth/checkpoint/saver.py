"""Checkpoints written while training continues.

    training thread     copies the shards into host memory: the only time that training waits
    writer thread       memory -> files on this machine -> part record: now it survives the process
    uploader thread     files -> storage -> part record; rank 0 commits when all ranks' are there

The ranks meet through their part records in storage and in one small exchange on the training thread, never
in a collective beside the training. A storage that is away delays the uploads, not the training; what a
dead process left on the machine's disk is uploaded by the next one (`upload.recover`).
"""

from __future__ import annotations

import contextlib
import logging
import shutil
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from plinth.checkpoint import store, upload
from plinth.checkpoint.config import CheckpointConfig, UploadHook
from plinth.checkpoint.evaluations import Evaluated
from plinth.checkpoint.maintenance import retain
from plinth.engine.process import on_all_ranks
from plinth.engine.zero_shards import TensorShard
from plinth.errors import CheckpointError, StorageError, TakenOverError
from plinth.storage import Storage
from plinth.world import World

FIRST_POLL_S, LAST_POLL_S = 0.02, 1.0
CLOSE_TIMEOUT_S = 30.0

log = logging.getLogger(__name__)


@dataclass
class Saved:
    """A checkpoint that is being saved, on this rank."""

    step: int
    token: str
    folder: Path
    begun: float = field(default_factory=time.monotonic)
    stall_s: float = 0.0
    """How long training waited."""
    durable_s: float | None = None
    """Rank 0: from its beginning to its commit."""


class Snapshot:
    """Host copies of a rank's shards, in memory that is kept from one checkpoint to the next."""

    def __init__(self) -> None:
        self._buffers: dict[str, torch.Tensor] = {}

    def take(self, shards: Iterable[TensorShard]) -> list[TensorShard]:
        """Copies of the shards as they are now. The ones before are overwritten."""
        copies = []
        on_gpu = False
        for shard in shards:
            source = shard.tensor.detach().flatten()
            on_gpu |= source.is_cuda
            buffer = self._buffers.get(shard.key)
            if buffer is None or buffer.shape != source.shape or buffer.dtype != source.dtype:
                buffer = torch.empty(source.shape, dtype=source.dtype, pin_memory=source.is_cuda)
                self._buffers[shard.key] = buffer
            buffer.copy_(source, non_blocking=True)
            copies.append(TensorShard(shard.key, shard.numel, shard.start, buffer))
        if on_gpu:
            torch.cuda.synchronize()
        return copies


class Saver:
    """Saves the checkpoints of one stage on this rank. All methods but `close` are called on all ranks.

    Args:
        storage: the folder of the checkpoints.
        scratch: a local folder of this stage of this run; it may be shared by the ranks of a host.
        before_commit: called on rank 0, in a thread, once its own part of a checkpoint is uploaded; a
            StorageError from it means that the storage is away, a TakenOverError that nothing is to be
            written any more: all ranks raise it at the next `save` or `wait`.
        may_commit: called on rank 0, in a thread, each time before a checkpoint may be committed, however
            long the other ranks' parts have taken; its errors mean the same.
        on_commit: called on rank 0, in a thread, when it is.
        on_upload: called on every rank, in a thread, before each file of its part is uploaded.
        evaluated: which checkpoints are evaluated beside the training; retention leaves them until then.
    """

    def __init__(
        self,
        world: World,
        storage: Storage,
        scratch: Path,
        config: CheckpointConfig,
        before_commit: Callable[[Saved], None] = lambda saved: None,
        may_commit: Callable[[], None] = lambda: None,
        on_commit: Callable[[Saved], None] = lambda saved: None,
        on_upload: UploadHook | None = None,
        evaluated: Evaluated | None = None,
    ) -> None:
        self._world, self._storage, self._config = world, storage, config
        self._evaluated = evaluated
        self._queue_folder = scratch / upload.QUEUE_FOLDER
        self._run = upload.identity(storage, scratch)
        self._before_commit, self._may_commit = before_commit, may_commit
        self._on_commit, self._on_upload = on_commit, on_upload
        self._snapshot = Snapshot()
        self._writer = ThreadPoolExecutor(1, "plinth-write")
        self._uploader = ThreadPoolExecutor(1, "plinth-upload")
        self._closed = threading.Event()
        self._lock = threading.Lock()
        self._written: Future[None] | None = None
        self._pending: list[Saved] = []
        self._dropped: set[str] = set()
        self._failed: list[tuple[str, str]] = []
        self._taken_over: TakenOverError | None = None
        self._failures_in_a_row = 0
        self._last_token = ""

    def save(self, step: int, shards: Iterable[TensorShard], state: dict[str, Any]) -> Saved:
        """Begin a checkpoint; returns once the shards are copied (not asynchronous: once it is committed).

        Args:
            shards: what this rank holds, live.
            state: goes into the commit record; rank 0's counts.

        Raises:
            CheckpointError: too many in a row have failed on some rank.
        """
        began = time.monotonic()
        self.wait_until_local()
        token = self._last_token = self._agree()
        saved = Saved(
            step, token, self._queue_folder / f"{store.folder_name(step)}-{token}-{self._world.rank}"
        )
        copies = self._snapshot.take(shards)
        with self._lock:
            self._pending.append(saved)
        self._written = self._writer.submit(self._write, saved, copies, state)
        if not self._config.asynchronous:
            self.wait(self._config.away_limit_s)
        saved.stall_s = time.monotonic() - began
        return saved

    def wait(self, limit_s: float) -> None:
        """Wait until every checkpoint that was begun is committed, or has failed.

        Raises:
            StorageError: the storage was away for longer than `limit_s`.
            CheckpointError: the last one failed.
        """
        on_all_ranks(self._world, lambda: self._wait_here(limit_s))

    def wait_until_local(self) -> None:
        """Wait until the last one is on this machine's disk."""
        if self._written is not None:
            self._written.result()

    def close(self) -> None:
        """Stop the threads; what is not in storage by then stays on the disk for the next process."""
        self._closed.set()
        self._writer.shutdown(wait=True)
        try:
            self._uploader.submit(str).result(CLOSE_TIMEOUT_S)  # queued behind the others, which now end soon
        except TimeoutError:
            log.warning("an upload to %s is stuck: it is abandoned", self._storage.uri)
        self._uploader.shutdown(wait=False, cancel_futures=True)
        with contextlib.suppress(OSError):
            self._queue_folder.rmdir()  # if nothing waits

    # -- the training thread --------------------------------------------------------------------------

    def _agree(self) -> str:
        """One exchange of all ranks: rank 0 gives the token and says what is dropped; failures are shared."""
        dropped: list[str] = []

        def tell() -> tuple[str, list[str], list[tuple[str, str]]]:
            if self._taken_over is not None:
                raise self._taken_over
            return uuid.uuid4().hex[:8], dropped, list(self._failed)

        if self._world.rank == 0:
            with self._lock:
                waiting = [s for s in self._pending[1:] if s.token not in self._dropped]
                dropped = [s.token for s in waiting[: max(0, len(waiting) - self._config.keep_waiting + 1)]]
        news = on_all_ranks(self._world, tell)
        failed = [(token, why) for _, _, of_rank in news for token, why in of_rank]
        with self._lock:
            self._dropped.update(news[0][1])
            self._dropped.update(token for token, _ in failed)
        self._failed.clear()
        self._failures_in_a_row = self._failures_in_a_row + 1 if failed else 0
        if failed and self._failures_in_a_row > self._config.max_failed:
            raise CheckpointError(
                f"{self._failures_in_a_row} checkpoints in a row have failed: {failed[-1][1]}.",
                "Fix that; the same command resumes from the last one that was committed.",
            )
        return news[0][0]

    def _wait_here(self, limit_s: float) -> None:
        deadline = time.monotonic() + limit_s
        self.wait_until_local()
        while self._pending:
            if time.monotonic() > deadline:
                raise StorageError(
                    f"{self._storage.uri} has been away for {limit_s:g} s; the last checkpoint is in "
                    f"{self._queue_folder} on {socket.gethostname()}.",
                    "Run the same command when the storage is back: it uploads and resumes from there.",
                )
            time.sleep(FIRST_POLL_S)
        if self._taken_over is not None:
            raise self._taken_over
        for token, why in self._failed:
            if token == self._last_token:
                raise CheckpointError(f"{why}.", "Fix that; the same command resumes.")

    # -- the other threads ----------------------------------------------------------------------------

    def _write(self, saved: Saved, copies: list[TensorShard], state: dict[str, Any]) -> None:
        try:
            upload.write_local(saved.folder, saved.step, saved.token, copies, state, self._world, self._run)
        except Exception as error:
            self._fail(saved, error)
        else:
            self._uploader.submit(self._upload, saved)

    def _upload(self, saved: Saved) -> None:
        is_uploaded = False
        while not is_uploaded and saved.token not in self._dropped:
            try:
                is_uploaded = self._upload_and_commit(saved)
            except StorageError as error:
                where = f"The checkpoint of step {saved.step} is only on this machine's disk"
                again = f"training continues, next try in {self._config.away_retry_s:g} s"
                log.warning("STORAGE IS AWAY: %s %s; %s.", error.problem, where, again)
            except TakenOverError as error:
                self._taken_over = error
                break
            except Exception as error:
                self._fail(saved, error)
                return
            if not is_uploaded and self._closed.wait(self._config.away_retry_s):
                with self._lock:
                    self._pending.remove(saved)
                return  # it stays on the disk
        self._forget(saved)

    def _upload_and_commit(self, saved: Saved) -> bool:
        """Upload this rank's part; on rank 0, wait for the others and commit. False: closed meanwhile."""
        upload.upload_part(self._storage, saved.folder, self._on_upload)
        if self._world.rank:
            return True
        self._before_commit(saved)
        pause = FIRST_POLL_S
        while not self._commits(saved):
            if saved.token in self._dropped:
                return True
            if self._closed.wait(pause):
                return False
            pause = min(2 * pause, LAST_POLL_S)
        saved.durable_s = time.monotonic() - saved.begun
        self._on_commit(saved)
        try:
            retain(self._storage, self._config, evaluated=self._evaluated)
        except StorageError as error:
            log.warning("old checkpoints stay for now: %s", error.problem)
        return True

    def _commits(self, saved: Saved) -> bool:
        self._may_commit()
        return upload.commit_if_whole(self._storage, saved.step, saved.token)

    def _fail(self, saved: Saved, error: Exception) -> None:
        """Training continues without this checkpoint; `_agree` tells the other ranks."""
        where = f"rank {self._world.rank}, by way of {self._queue_folder} on {socket.gethostname()}"
        why = f"checkpoint of step {saved.step} on {where}: {str(error).rstrip('.')}"
        log.warning("%s; training continues without it", why)
        self._failed.append((saved.token, why))
        with contextlib.suppress(StorageError):
            upload.mark_failed(self._storage, saved.step, saved.token)
        self._forget(saved)

    def _forget(self, saved: Saved) -> None:
        shutil.rmtree(saved.folder, ignore_errors=True)
        with self._lock:
            self._pending.remove(saved)
