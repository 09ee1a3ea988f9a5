"""What is left of a dead rank: its messages, its last batches, its stacks, and why it failed.

Every rank writes to a local folder of its host, without waiting for the disk. The files remain however the
process ends:

    <attempt>-rank<r>.log             messages of this package
    <attempt>-rank<r>.batches         ids of the last batches, one per line; removed at a clean exit
    <attempt>-rank<r>.stacks          stacks of all threads at a hang, a crash in native code, a failure
    <attempt>-rank<r>.failure.json    a `Failure`

`salvage`, in any process of the host, copies them to the run's logs/, also those of dead processes. A living
rank also copies its own every few seconds (`keep_copied`), in case its host is lost.
"""

from __future__ import annotations

import contextlib
import faulthandler
import fcntl
import json
import logging
import os
import re
import socket
import sys
import time
import traceback
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, TextIO

from plinth.every import Every
from plinth.observe.failures import (
    BATCHES_SUFFIX,
    FAILURE_SUFFIX,
    FOLDER,
    Failure,
    is_collective,
    last_batch,
    vanished,
)
from plinth.redaction import RedactionFilter, redact
from plinth.storage import Storage, local_files, scratch

LOG_SUFFIX, STACKS_SUFFIX = ".log", ".stacks"
CUT_SUFFIX = ".batches-cut"
NEW_SUFFIX = "-new"
"""Of a log that has no lock yet. Neither of these names is one that `salvage` looks for."""
ARMED_ANEW = 0.1
"""Share of its time after which the alarm for a hang is set again."""
BATCHES_KEPT = 4
BATCHES_BEFORE_CUT = 64
CLOSE_TIMEOUT_S = 10.0
FILE_PATTERN = re.compile(
    r"(?P<stem>(?P<attempt>.+)-rank(?P<rank>\d+))\.(?:log|batches|stacks|failure\.json)"
)

log = logging.getLogger(__name__)


class RankLog:
    """The files of one rank in one attempt, as a context manager. It records an error that leaves it.

    A full disk raises nothing here: training continues without these files.

    Args:
        folder: local to this host, shared by all ranks and attempts of a run.
    """

    def __init__(self, folder: Path, attempt_id: str, rank: int) -> None:
        self._folder, self._stem = folder, f"{attempt_id}-rank{rank}"
        self._attempt, self._rank, self._host = attempt_id, rank, socket.gethostname()
        self._handler: _LogFile | None = None
        self._batches: TextIO | None = None
        self._stacks: TextIO | None = None
        self._recent: deque[str] = deque(maxlen=BATCHES_KEPT)
        self._lines = 0
        self._step: int | None = None
        self._sample_ids: list[str] = []
        self._stage = ""
        self._has_failed = False
        self._is_whole = True
        self._copying: Every | None = None
        self._armed_at = self._timeout_s = 0.0

    def __enter__(self) -> RankLog:
        with self._disk_may_be_full():
            self._folder.mkdir(parents=True, exist_ok=True)
            self._handler = _LogFile(self._path(LOG_SUFFIX))
            logging.getLogger("plinth").addHandler(self._handler)
            self._note(f"rank {self._rank} of attempt {self._attempt}, pid {os.getpid()} on {self._host}")
            self._open_batches()
            self._stacks = self._path(STACKS_SUFFIX).open("a")
            faulthandler.enable(self._stacks)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            self.failed(error)
        if self._copying is not None:
            self._copying.close(CLOSE_TIMEOUT_S)
        self.expect_end()
        with self._disk_may_be_full():
            if self._stacks is not None:
                faulthandler.cancel_dump_traceback_later()
                faulthandler.enable(sys.__stderr__ or sys.stderr)  # where Ray's workers have it
                self._stacks.close()
        if self._handler is not None:
            self._note("ended with an error" if self._has_failed else "ended")
            logging.getLogger("plinth").removeHandler(self._handler)
            self._handler.close()

    def batch(self, step: int, sample_ids: Sequence[str], stage: str = "") -> None:
        """Record the samples of the next step. Call it before the step."""
        self._step, self._sample_ids, self._stage = step, list(sample_ids), stage
        if self._handler is None:
            return
        record = {
            "time": time.time(), "host": self._host, "pid": os.getpid(), "stage": stage, "step": step,
            "sample_ids": self._sample_ids,
        }  # fmt: skip
        self._recent.append(json.dumps(record) + "\n")
        self._lines += 1
        with self._disk_may_be_full():
            batches = self._batches or self._open_batches()  # after an `expect_end` without an end
            if self._lines < BATCHES_BEFORE_CUT:
                batches.write(self._recent[-1])
            else:
                batches.close()
                self._cut()

    def arm(self, timeout_s: float) -> None:
        """Write the stacks of all threads unless this is called again within `timeout_s`; up to `ARMED_ANEW`
        of it later, because arming starts a thread."""
        now = time.monotonic()
        is_fresh = timeout_s == self._timeout_s and now - self._armed_at < ARMED_ANEW * timeout_s
        if self._stacks is not None and not is_fresh:
            faulthandler.dump_traceback_later((1 + ARMED_ANEW) * timeout_s, file=self._stacks)
            self._armed_at, self._timeout_s = now, timeout_s

    def expect_end(self) -> None:
        """From now on the process may be killed without a failure, as when the workers are restarted."""
        if self._batches is not None:
            self._batches.close()
            self._batches = None
        with self._disk_may_be_full():
            self._path(BATCHES_SUFFIX).unlink(missing_ok=True)  # its absence marks a clean exit

    def keep_copied(self, storage: Storage, every_s: float) -> None:
        """Copy these files to logs/ in the run's `storage` every `every_s`, from a thread, until the end."""
        sent: dict[str, int] = {}
        copy = partial(_copy, self._folder, self._stem, storage, sent)
        self._copying = Every(every_s, copy, f"logs cannot be copied to {storage.uri}")

    def failed(self, error: BaseException) -> None:
        """Record the error, where it happened and on which samples; only the first call counts."""
        if self._has_failed:
            return
        self._has_failed = True
        failure = Failure(
            attempt=self._attempt,
            rank=self._rank,
            host=self._host,
            pid=os.getpid(),
            time=time.time(),
            error=type(error).__name__,
            message=redact(str(error)),
            traceback=redact("".join(traceback.format_exception(error))),
            step=self._step,
            sample_ids=self._sample_ids,
            is_collective=is_collective(error),
            stage=self._stage,
        )
        with self._disk_may_be_full():
            _write(self._folder, self._stem, failure)
            self._note(failure.traceback, logging.ERROR)
            if self._stacks is not None:
                faulthandler.dump_traceback(self._stacks)

    def _open_batches(self) -> TextIO:
        self._batches = self._path(BATCHES_SUFFIX).open("a", buffering=1)
        return self._batches

    def _cut(self) -> None:
        """Keep only the last lines; a kill at any moment leaves the old file or the new one."""
        cut = self._path(CUT_SUFFIX).open("w", buffering=1)
        cut.writelines(self._recent)
        self._path(CUT_SUFFIX).replace(self._path(BATCHES_SUFFIX))
        self._batches, self._lines = cut, len(self._recent)

    @contextlib.contextmanager
    def _disk_may_be_full(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            if self._is_whole:
                log.warning("the logs of this rank are incomplete, training continues: %s", error)
            self._is_whole = False

    def _note(self, text: str, level: int = logging.INFO) -> None:
        """Log to the file only."""
        if self._handler is not None:
            self._handler.handle(logging.LogRecord(__name__, level, __file__, 0, text, None, None))

    def _path(self, suffix: str) -> Path:
        return self._folder / f"{self._stem}{suffix}"


class _LogFile(logging.FileHandler):
    """Redacted, and locked while the process lives: `salvage` tries the lock."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, encoding="utf-8")
        self.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
        self.addFilter(RedactionFilter())

    def _open(self) -> Any:
        """The file gets its name once it is locked: without the lock, a `salvage` of another rank would take
        it for that of a dead process, and remove it."""
        path = Path(self.baseFilename)
        unnamed = path.with_name(f"{path.name}{NEW_SUFFIX}")
        is_new = not path.exists()
        file = (unnamed if is_new else path).open("a", encoding=self.encoding)
        with contextlib.suppress(OSError):  # a file system without locks
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if is_new:
            unnamed.replace(path)
        return file

    def handleError(self, record: logging.LogRecord) -> None:
        """Print nothing: a full disk must not fill the terminal with a traceback per message."""


def salvage(folder: Path, storage: Storage) -> None:
    """Copy the files of this host's ranks to logs/ in the run's `storage`; remove those of dead processes. A
    process that vanished gets a failure record. Errors of the storage are logged, not raised."""
    if not scratch.is_own(folder):
        return
    found = [match for path in sorted(folder.iterdir()) if (match := FILE_PATTERN.fullmatch(path.name))]
    for stem, attempt, rank in sorted({(m["stem"], m["attempt"], int(m["rank"])) for m in found}):
        try:
            with _gone(folder / f"{stem}{LOG_SUFFIX}") as is_gone:
                if is_gone:
                    _record_if_vanished(folder, stem, attempt, rank)
                _copy(folder, stem, storage)
                if is_gone:
                    _remove(folder, stem, storage)
        except Exception as error:  # no reason to stop training
            log.warning("logs stay in %s, they cannot be copied to %s: %s", folder, storage.uri, error)
            return


@contextlib.contextmanager
def _gone(path: Path) -> Iterator[bool]:
    """Whether the process that writes this log is dead; inside the context no other `salvage` gets True."""
    with contextlib.ExitStack() as opened:
        try:
            file = opened.enter_context(path.open("r+"))
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except FileNotFoundError:  # the log is removed last: another `salvage` has done it all
            is_gone = False
        except BlockingIOError:
            is_gone = False
        else:
            is_gone = True
        yield is_gone


def _record_if_vanished(folder: Path, stem: str, attempt: str, rank: int) -> None:
    batches = folder / f"{stem}{BATCHES_SUFFIX}"
    if not batches.exists() or (folder / f"{stem}{FAILURE_SUFFIX}").exists():
        return
    last = last_batch(batches.read_bytes())
    heard = max((folder / f"{stem}{suffix}").stat().st_mtime for suffix in (BATCHES_SUFFIX, LOG_SUFFIX))
    here = {"host": socket.gethostname(), **last, "time": heard}
    _write(folder, stem, vanished(attempt, rank, here))


def _copy(folder: Path, stem: str, storage: Storage, sent: dict[str, int] | None = None) -> None:
    """Copy all files of a rank except those unchanged since they were `sent` (suffix -> time)."""
    sent = {} if sent is None else sent
    for suffix in (FAILURE_SUFFIX, STACKS_SUFFIX, BATCHES_SUFFIX, LOG_SUFFIX):
        path = folder / f"{stem}{suffix}"
        with contextlib.suppress(FileNotFoundError):
            found = path.stat()
            if found.st_size and sent.get(suffix) != found.st_mtime_ns:
                storage.upload(path, f"{FOLDER}/{path.name}")
                sent[suffix] = found.st_mtime_ns


def _remove(folder: Path, stem: str, storage: Storage) -> None:
    """Remove a rank's files, the log last: its lock guards the others. After a clean exit also remove the
    batches that the rank had copied to storage, as they would mark a process that vanished."""
    if not (folder / f"{stem}{BATCHES_SUFFIX}").exists():
        storage.delete(f"{FOLDER}/{stem}{BATCHES_SUFFIX}")
    for suffix in (FAILURE_SUFFIX, STACKS_SUFFIX, BATCHES_SUFFIX, CUT_SUFFIX, LOG_SUFFIX):
        (folder / f"{stem}{suffix}").unlink(missing_ok=True)


def _write(folder: Path, stem: str, failure: Failure) -> None:
    path = folder / f"{stem}{FAILURE_SUFFIX}"
    local_files.write(str(path), json.dumps(asdict(failure), indent=1).encode())
