"""What a run's folder says of the run: status, progress, checkpoints, ledger, incidents, failures."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

import yaml

from jobs.common.run_layout import ALL_STAGES, CONFIG_KEY
from plinth.checkpoint.store import CheckpointInfo, list_checkpoints, read_state
from plinth.errors import CheckpointError, StorageError, first_line
from plinth.every import QUIET_HEARTBEATS
from plinth.observe import failures, incidents, ledger
from plinth.observe.failures import Failure
from plinth.observe.incidents import Incident
from plinth.observe.ledger import FAILED, FINISHED, RUNNING, STOPPED, LedgerSummary, Record
from plinth.observe.metrics import duration
from plinth.observe.once import Once, below
from plinth.observe.step_lines import LINES_KEY, PARTS_FOLDER, parsed
from plinth.observe.stragglers import find_straggler
from plinth.storage import Storage
from plinth.storage.json_objects import damaged
from plinth.storage.lock import is_gone, read_lock

SILENT = "silent"
LOCKED_QUIET_S = 300.0
"""A locked run that is silent for longer counts as lost: until then its workers may be restarting."""
TAIL_BYTES = 1 << 18
ENOUGH_LINES = 100
"""With fewer at hand the part before is read, too."""


@dataclass
class StageState:
    """One stage of a run."""

    name: str
    step: int
    """Steps done."""
    total_steps: int | None
    """None before its first checkpoint."""
    loss: float | None
    time: float | None
    """Time of the last line of its metrics."""
    checkpoints: list[CheckpointInfo]
    incidents: list[Incident]
    slow: str = ""
    """The rank for which the others wait, as one sentence; empty if there is none."""

    @property
    def committed(self) -> list[int]:
        """Steps of the committed checkpoints."""
        return [info.step for info in self.checkpoints if info.is_committed]

    @property
    def is_done(self) -> bool:
        """Whether the checkpoint of the last step is committed."""
        return self.total_steps is not None and self.total_steps in self.committed


@dataclass
class RunState:
    """A run at a moment."""

    uri: str
    status: str
    """running, silent, finished, stopped or failed. Silent: it has not ended by its own account, and gives no
    sign of life; its workers may be restarting."""
    detail: str
    """More about the status; may be empty."""
    stages: list[StageState]
    """Those that have started."""
    ledger: LedgerSummary
    failures: list[list[Failure]] = field(default_factory=list)
    """Per attempt that failed, by time; in each, causes before what they caused."""
    records: list[Record] = field(default_factory=list)
    """What the ledger is added up from."""

    @property
    def stage(self) -> StageState | None:
        """The last one that has begun."""
        return self.stages[-1] if self.stages else None

    @property
    def slow(self) -> str:
        """The rank that slowed the run down before its last checkpoint, as a sentence; empty if none did."""
        return self.stage.slow if self.stage is not None else ""

    @property
    def where(self) -> str:
        """Stage and step of total; empty before the first step."""
        if self.stage is None:
            return ""
        total = "" if self.stage.total_steps is None else f" of {self.stage.total_steps}"
        return f"{self.stage.name}, step {self.stage.step}{total}"


def read_run(storage: Storage, now: float, once: Once | None = None) -> RunState:
    """Read the folder of a run. What grows with its attempts is read several files at a time.

    Args:
        now: `time.time()`.
        once: what was read before, of a process that asks again and again.

    Raises:
        StorageError: it holds no run, or cannot be read; `DamagedObjectError` for one of its files.
    """
    sizes = dict(storage.list())
    if not is_run(sizes):
        raise StorageError(
            f"{storage.uri} is not a run.", "Give the folder of a run: output/name of its job."
        )
    once = once or Once()
    failed = failures.read_failures(storage, once, sizes)
    records = ledger.read_records(storage, failed, once, sizes)
    begun = [name for name in ALL_STAGES if any(key.startswith(f"{name}/") for key in sizes)]
    stages = [_stage(storage.child(name), name, records, below(sizes, name), once) for name in begun]
    status, detail = _status(storage, stages, records, now)
    found = failures.by_attempt(failed)
    return RunState(
        uri=storage.uri,
        status=status,
        detail=detail,
        stages=stages,
        ledger=ledger.add_up(records, now if status in (RUNNING, SILENT) else None),
        failures=[failures.by_precedence(of_attempt) for of_attempt in found.values()],
        records=records,
    )


def runs_in(folder: Storage) -> list[str]:
    """Names of the runs in a folder, in order.

    Raises:
        StorageError: it holds none, or cannot be read.
    """
    folder.check()
    keys: dict[str, set[str]] = {}
    for key, _ in folder.list():
        name, _, rest = key.partition("/")
        keys.setdefault(name, set()).add(rest)
    names = sorted(name for name, below in keys.items() if is_run(below))
    if not names:
        raise StorageError(f"{folder.uri} holds no runs.", "Give the output of a pretraining job.")
    return names


def is_run(keys: Collection[str]) -> bool:
    """Whether a folder with these keys is that of a run."""
    return CONFIG_KEY in keys


def _stage(
    storage: Storage, name: str, records: list[Record], sizes: Mapping[str, int], once: Once
) -> StageState:
    lines = _last_lines(storage, sizes)
    last = lines[-1] if lines else {}
    straggler = find_straggler(lines)
    checkpoints = list_checkpoints(storage.child("checkpoints"))
    try:
        total = int(read_state(storage.child("checkpoints"))["total_steps"])
    except CheckpointError:
        total = None
    trained = [record for record in records if record.stage == name and record.marks]
    step = int(last.get("step", -1)) + 1
    if trained:  # fresher than the metrics, which come with the checkpoints
        step = trained[-1].marks[-1].step
    return StageState(
        name, step, total, last.get("loss"), last.get("time"), checkpoints,
        incidents.read_all(storage, once, sizes), straggler.sentence if straggler else "",
    )  # fmt: skip


def _last_lines(storage: Storage, sizes: Mapping[str, int]) -> list[dict[str, Any]]:
    """The last lines of a stage's metrics, from the end of their parts; empty where there is none.

    Args:
        sizes: of the objects in the stage's folder.
    """
    parts = sorted(key for key in sizes if key.startswith(f"{PARTS_FOLDER}/"))
    found: list[dict[str, Any]] = []
    for key in [LINES_KEY] * (LINES_KEY in sizes) + parts[-1:]:
        if sizes[key] and len(found) < ENOUGH_LINES:
            start = max(0, sizes[key] - TAIL_BYTES)
            text = storage.read_range(key, start, sizes[key]).decode(errors="replace")
            found = [*parsed(text), *found]
    return found


def _status(storage: Storage, stages: list[StageState], records: list[Record], now: float) -> tuple[str, str]:
    lock = read_lock(storage)
    holder = f"held by {lock['holder']}" if lock else ""
    done = {stage.name for stage in stages if stage.is_done}
    if done and done >= _wanted(storage):
        return FINISHED, ""
    if lock and is_gone(lock):
        return FAILED, f"its process is gone; its lock was left behind ({holder})"
    if not records:
        return (RUNNING, holder) if lock else (STOPPED, "")
    last = max(records, key=lambda record: record.beat)
    quiet_s = now - last.beat
    if lock or last.outcome == RUNNING:
        patience_s = QUIET_HEARTBEATS * last.beat_every_s
        if quiet_s <= patience_s:
            return RUNNING, holder
        if lock and quiet_s <= LOCKED_QUIET_S:
            return SILENT, f"{holder}; no sign of life for {duration(quiet_s)}, restarting or lost"
        left = f"; its lock was left behind ({holder})" if lock else ""
        return FAILED, f"no sign of life for {duration(quiet_s)}{left}"
    return (STOPPED if last.outcome == FINISHED else last.outcome), ""


def _wanted(storage: Storage) -> set[str]:
    """The stages that the job has."""
    try:
        job = yaml.safe_load(storage.read(CONFIG_KEY))
        return {name for name in ALL_STAGES if job.get(name) is not None}
    except (yaml.YAMLError, AttributeError, UnicodeDecodeError) as error:
        fix = "Restore it: it is the job as it was resolved at the run's last start, which writes it anew."
        raise damaged(storage, CONFIG_KEY, first_line(error), fix) from None
