"""Bad steps: found, recorded, rolled back, and not repeated.

An incident is a file <stage>/incidents/step-00000042.json in the run. From then on every process that trains
the stage leaves out what the incidents name, after a rollback as after a restart. So a run that was
interrupted after an incident gives the same result as one that was not.
"""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any

from plinth.data.plan import Cursor
from plinth.digests import finite
from plinth.observe.config import GuardConfig
from plinth.observe.once import Once, in_folder
from plinth.storage import Storage
from plinth.storage.json_objects import damaged, filled, read_json

FOLDER = "incidents"
MEND = "Restore it; or delete it: what it left out is then trained on."
MAD_TO_SIGMA = 1.4826
"""Standard deviation of normal values over their median absolute deviation."""
LEAST_SPREAD = 1e-3
"""Relative to the median: where losses hardly change, a small step is not a spike."""


@dataclass
class Incident:
    """One bad step. From then on its global batch is left out (`whole_batch`), or its samples are."""

    kind: str
    step: int
    epoch: int
    step_in_epoch: int
    whole_batch: bool
    sample_ids: list[str]
    by_rank: list[list[str]]
    """The samples that each rank suspects."""
    locations: list[dict[str, Any]] = field(default_factory=list)
    """Where the samples are stored."""
    loss: float | None = None
    recent_losses: list[float] = field(default_factory=list)
    recent_grad_norms: list[float] = field(default_factory=list)
    action: str = ""
    time: float = field(default_factory=time.time)


def write(storage: Storage, incident: Incident) -> str:
    """Write an incident of a stage; returns its key. Another incident of the same step gets another key."""
    number = sum(key.startswith(_key(incident.step, "")) for key, _ in storage.list(FOLDER))
    key = _key(incident.step, f"-{number}.json")
    storage.write(key, json.dumps(finite(asdict(incident)), indent=1).encode())
    return key


def read_all(
    storage: Storage, once: Once | None = None, sizes: Mapping[str, int] | None = None
) -> list[Incident]:
    """All incidents of a stage, by step.

    Args:
        once: what was read before, of a process that asks again and again.
        sizes: of all keys in the stage's folder; listed when None.

    Raises:
        DamagedObjectError: one cannot be read: which samples it left out is then unknown.
    """
    there = in_folder(storage, sizes, FOLDER)
    return list((once or Once()).read("incidents", storage, there, partial(_read, storage)).values())


def _read(storage: Storage, key: str) -> Incident:
    content = read_json(storage, key, MEND)
    try:
        return filled(Incident, content)
    except ValueError as error:
        raise damaged(storage, key, error, MEND) from None


def left_out(incidents: Sequence[Incident]) -> tuple[frozenset[str], frozenset[Cursor]]:
    """Samples and global batches to leave out."""
    samples = frozenset(i for incident in incidents if not incident.whole_batch for i in incident.sample_ids)
    batches = frozenset(Cursor(i.epoch, i.step_in_epoch) for i in incidents if i.whole_batch)
    return samples, batches


def is_spike(config: GuardConfig, before: Sequence[float], loss: float) -> bool:
    """Whether a loss stands out from those of the steps before."""
    recent = before[-config.spike_window :]
    if not config.spike_sigmas or len(recent) < config.spike_window // 2:
        return False
    median = statistics.median(recent)
    spread = MAD_TO_SIGMA * statistics.median(abs(value - median) for value in recent)
    return loss - median > config.spike_sigmas * max(spread, LEAST_SPREAD * abs(median))


class CollapseWatch:
    """Counts how many times in a row the logs of a stage have been below their floors."""

    def __init__(self, config: GuardConfig) -> None:
        self._config = config
        self._below: dict[str, int] = {}

    def look(self, logs: dict[str, float]) -> list[str]:
        """What has collapsed: reported once, when a log has been below its floor for `collapse_patience`."""
        found = []
        for name, floor in self._config.floors.items():
            if name in logs:
                low = logs[name] < floor
                self._below[name] = self._below.get(name, 0) + 1 if low else 0
                if self._below[name] == self._config.collapse_patience:
                    found.append(f"{name} is {logs[name]:.3g}, below its floor {floor:g}")
        return found


def _key(step: int, rest: str) -> str:
    return f"{FOLDER}/step-{step:08d}{rest}"
