"""Why ranks failed, and which of them did first.

When a rank dies, the others fail in the collective that waits for it, often with longer messages and
sometimes earlier by the clock. So causes are ordered: an error of a rank's own; a rank that vanished; a
broken collective. Among equals the first by time, then by rank.
"""

from __future__ import annotations

import contextlib
import json
import logging
import re
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from typing import Any

from plinth.errors import PlinthError
from plinth.observe.once import Once, in_folder
from plinth.redaction import printable, redact, without_codes
from plinth.storage import Storage
from plinth.storage.json_objects import filled

FOLDER = "logs"
FAILURE_SUFFIX, BATCHES_SUFFIX, LOST_SUFFIX = ".failure.json", ".batches", ".lost.json"
ATTEMPT_TIME = "%Y%m%d-%H%M%S"
"""How the id of an attempt begins: when it did, in UTC. Ids sort by it."""
TIME_CHARS = 15
"""Length of that."""
RANK_MARK = "-rank"
"""Between attempt and rank in the names of their files."""
BATCHES_KEY = re.compile(rf"{FOLDER}/(?P<attempt>.+){RANK_MARK}(?P<rank>\d+)\{BATCHES_SUFFIX}")
VANISHED = "vanished"
SHOWN_IDS = 8
SHOWN_CHARS, SHOWN_CHARS_OF_FOLLOWERS = 300, 120

# What gloo, NCCL and torch's store say in a rank whose peer is gone.
_BROKEN_COLLECTIVE = re.compile(
    r"gloo|nccl|ProcessGroup|TCPStore|collective operation|Connection closed by peer"
    r"|Connection reset by peer|Broken pipe|(?:socket|wait) ?timeout|timed out",
    re.IGNORECASE,
)

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Failure:
    """How a rank of an attempt ended."""

    attempt: str
    rank: int
    host: str
    pid: int | None
    time: float | None
    """Seconds since 1970; for a rank that vanished, its last sign of life, None if there was none."""
    error: str
    """Class of the error, or VANISHED."""
    message: str = ""
    traceback: str = ""
    step: int | None = None
    """The step that it was in; None before the first."""
    sample_ids: list[str] = field(default_factory=list)
    """Samples of this rank in that step."""
    is_collective: bool = False
    """Whether the error may be a consequence of another rank's death."""
    stage: str = ""
    """Stage of that step, where known."""
    is_first_lost: bool = False
    """Whether the launcher saw its process die while others lived: what it ended itself is not among them."""


def is_collective(error: BaseException) -> bool:
    """Whether the error comes from the communication between ranks."""
    # torch.distributed raises RuntimeErrors; sockets to storage raise OSErrors, explained as PlinthErrors.
    if isinstance(error, PlinthError) or not isinstance(error, RuntimeError):
        return False
    return _BROKEN_COLLECTIVE.search(f"{type(error).__name__}: {error}") is not None


def read_failures(
    storage: Storage, once: Once | None = None, sizes: Mapping[str, int] | None = None
) -> list[Failure]:
    """All failures in the logs of a run, by time; one that cannot be read is skipped with a warning. Includes
    ranks of a failed attempt whose host is lost, if they had copied their batches.

    Args:
        once: what was read before, of a process that asks again and again.
        sizes: of all keys in the run's folder; listed when None.
    """
    once = once or Once()
    there = in_folder(storage, sizes, FOLDER)
    own = {key: size for key, size in there.items() if key.endswith(FAILURE_SUFFIX)}
    read = once.read("failures", storage, own, partial(_failure, storage)).values()
    failures = [failure for failure in read if failure is not None]
    failed = {failure.attempt for failure in failures}
    lost = _first_lost(storage, there, once)
    failed |= {attempt for attempt, _ in lost}
    known = {(failure.attempt, failure.rank) for failure in failures}
    silent = {
        found.string: (found["attempt"], int(found["rank"]))
        for found in filter(None, map(BATCHES_KEY.fullmatch, there))
        if found["attempt"] in failed and (found["attempt"], int(found["rank"])) not in known
    }
    of_silent = {key: there[key] for key in silent}
    lasts = once.read("batches", storage, of_silent, lambda key: last_batch(storage.read(key)))
    failures += [vanished(*silent[key], last) for key, last in lasts.items()]
    failures = [_with_word_of(f, lost) for f in failures]
    return sorted(failures, key=lambda failure: (failure.time or 0.0, failure.rank))


def _failure(storage: Storage, key: str) -> Failure | None:
    try:
        return filled(Failure, json.loads(storage.read(key)))
    except (ValueError, TypeError, RecursionError) as error:
        log.warning("%s/%s is skipped, it cannot be read: %s", storage.uri, key, error)
        return None


def _with_word_of(failure: Failure, lost: Mapping[tuple[str, int], str]) -> Failure:
    """The failure with what the launcher says of its rank."""
    why = lost.get((failure.attempt, failure.rank))
    if why is None:
        return failure
    said = why if failure.error == VANISHED and why else failure.message
    return replace(failure, is_first_lost=True, message=said)


def attempts_of(keys: Iterable[str]) -> list[str]:
    """The attempts that have files among the keys of a run's logs, oldest first."""
    names = (key.removeprefix(f"{FOLDER}/").partition(RANK_MARK) for key in keys)
    return sorted({attempt for attempt, mark, _ in names if mark})


def record_lost(storage: Storage, ranks: Mapping[int, str]) -> None:
    """Keep which ranks' processes died first, as the launcher sees it now. It does not know the attempt, of
    which nothing may be in storage yet: the time tells.

    Args:
        ranks: each with why, where that is known; else empty.
    """
    now = datetime.now(UTC).strftime(ATTEMPT_TIME)
    key = f"{FOLDER}/{now}-{uuid.uuid4().hex[:6]}{LOST_SUFFIX}"
    storage.write(key, json.dumps({str(rank): ranks[rank] for rank in sorted(ranks)}).encode())


def _first_lost(storage: Storage, there: Mapping[str, int], once: Once) -> dict[tuple[str, int], str]:
    """(attempt, rank) of what the launcher saw die first, with why: in the newest attempt that had begun by
    then."""
    attempts, lost = attempts_of(there), dict[tuple[str, int], str]()
    told = {key: size for key, size in there.items() if key.endswith(LOST_SUFFIX)}
    for key, of_ranks in once.read("lost", storage, told, partial(_told, storage)).items():
        time = key.removeprefix(f"{FOLDER}/")[:TIME_CHARS]
        begun = [attempt for attempt in attempts if attempt[:TIME_CHARS] <= time]
        for rank, why in of_ranks.items() if begun else ():
            lost[begun[-1], rank] = why or lost.get((begun[-1], rank), "")
    return lost


def _told(storage: Storage, key: str) -> dict[int, str]:
    """Rank -> why it died; none of a file that cannot be read."""
    try:
        said = json.loads(storage.read(key))
        of_ranks = dict.fromkeys(said, "") if isinstance(said, list) else said  # a list until 2026
        return {int(rank): str(why) for rank, why in of_ranks.items()}
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        log.warning("%s/%s is skipped, it cannot be read: %s", storage.uri, key, error)
        return {}


def vanished(attempt: str, rank: int, last: dict[str, Any]) -> Failure:
    """The failure of a rank that left only its last batch."""
    return Failure(
        attempt, rank, last.get("host", ""), last.get("pid"), last.get("time"), VANISHED,
        step=last.get("step"), sample_ids=last.get("sample_ids", []), stage=last.get("stage", ""),
    )  # fmt: skip


def last_batch(lines: bytes) -> dict[str, Any]:
    """The last whole line of a rank's batches (time, host, pid, stage, step, sample_ids), or {}."""
    last: dict[str, Any] = {}
    for line in lines.splitlines():
        with contextlib.suppress(ValueError, RecursionError):  # the last line may be half written
            found = json.loads(line)
            last = found if isinstance(found, dict) else last
    return last


def by_attempt(failures: Sequence[Failure]) -> dict[str, list[Failure]]:
    """The failures of each attempt, attempts in the order of their first failure."""
    found: dict[str, list[Failure]] = {}
    for failure in failures:
        found.setdefault(failure.attempt, []).append(failure)
    return found


def by_precedence(failures: Sequence[Failure], lost_ranks: Mapping[int, str] | None = None) -> list[Failure]:
    """The failures of one attempt, causes before what they caused.

    Args:
        lost_ranks: ranks that the launcher reports as lost, with its message for each.
    """
    lost = dict(lost_ranks or {})
    known = {failure.rank for failure in failures}
    silent = [
        Failure("", rank, "", None, None, VANISHED, said) for rank, said in lost.items() if rank not in known
    ]
    return sorted([*failures, *silent], key=lambda failure: _precedence(failure, lost))


def first_cause(failures: Sequence[Failure], lost_ranks: Mapping[int, str] | None = None) -> str:
    """The first cause in one attempt, in a few lines of text; empty if nothing failed. See
    `by_precedence`."""
    ordered, lost = by_precedence(failures, lost_ranks), lost_ranks or {}
    if not ordered:
        return ""
    first, others = ordered[0], ordered[1:]
    lines = [_opening(first, lost.get(first.rank, ""))]
    if first.sample_ids:
        more = len(first.sample_ids) - SHOWN_IDS
        listed = ", ".join(map(printable, first.sample_ids[:SHOWN_IDS])) + (
            f" and {more} more" if more > 0 else ""
        )
        lines.append(f"  samples in the step: {listed}")
    if others:
        lines.append(f"  {_followed(others)}")
    return without_codes(redact("\n".join(lines)))


def _precedence(failure: Failure, lost: Mapping[int, str]) -> tuple[int, float, int]:
    if failure.error == VANISHED:
        # The launcher ends the other ranks too.
        kind = 1 if failure.rank in lost or failure.is_first_lost else 2
    else:
        kind = 3 if failure.is_collective else 0
    return kind, float("inf") if failure.time is None else failure.time, failure.rank


def _opening(failure: Failure, said: str) -> str:
    where = f"rank {failure.rank}" + (f" on {failure.host}" if failure.host else "")
    stage = f" of {failure.stage}" if failure.stage else ""
    step = f" in step {failure.step}{stage}" if failure.step is not None else ""
    when = f", {utc(failure.time)}" if failure.time is not None else ""
    if failure.error != VANISHED:
        return f"{where}{step}{when}: {failure.error}: {_short(failure.message)}"
    last = f", last sign of life {utc(failure.time)}" if failure.time is not None else ""
    reason = _short(said or failure.message) or "killed, out of memory, or its host or the driver is lost"
    return f"{where} vanished{step}{last}: {reason}"


def _followed(others: Sequence[Failure]) -> str:
    ranks: dict[str, list[int]] = {}
    for failure in others:
        how = f"{failure.error}: {_short(failure.message, SHOWN_CHARS_OF_FOLLOWERS)}"
        ranks.setdefault("vanished" if failure.error == VANISHED else how, []).append(failure.rank)
    listed = "; ".join(f"{', '.join(map(str, sorted(r)))} ({how})" for how, r in ranks.items())
    return f"{len(others)} other rank{'s' if len(others) > 1 else ''} followed: {listed}"


def _short(text: str, most: int = SHOWN_CHARS) -> str:
    """The first line, shortened."""
    line = (text.strip().splitlines() or [""])[0]
    return line if len(line) <= most else line[:most] + " ..."


def utc(seconds: float) -> str:
    """A time as text."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
