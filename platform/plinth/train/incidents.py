"""Steps that went wrong: found, written down, rolled back, and not taken again.

An incident is a file <stage>/incidents/step-00000042.json in the run. It is also what the run goes by:
whoever trains the stage from then on, after a rollback or in another process, leaves out what the
incidents name. So a run that was interrupted after an incident gives the same result as one that was not.
"""

from __future__ import annotations

import enum
import json
import math
import statistics
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from plinth.data.plan import Cursor
from plinth.errors import ConfigError
from plinth.storage import Storage

FOLDER = "incidents"
MAD_TO_SIGMA = 1.4826
"""Standard deviation of normal values over their median absolute deviation."""
LEAST_SPREAD = 1e-3
"""Of the median: losses that hardly move at all are no reason to call a small step a spike."""


class OnBadStep(enum.Enum):
    """What a bad step leads to."""

    rollback = "rollback"
    stop = "stop"


class OnCollapse(enum.Enum):
    """What a collapsed representation leads to."""

    warn = "warn"
    stop = "stop"


@dataclass
class GuardConfig:
    """What counts as going wrong, and what is done about it."""

    on_bad_step: OnBadStep = OnBadStep.rollback
    """After a loss or gradient that is not finite, or a spike: go back to the last checkpoint in the running
    process and leave out the samples that are named, or stop."""
    max_rollbacks: int = 3
    """Rollbacks of a stage, over all its restarts; then the run stops."""
    spike_sigmas: float = 0.0
    """A loss so many standard deviations (robustly estimated) over the median of the steps before is a
    spike; 0 looks for none."""
    spike_window: int = 100
    """Steps that a loss is compared with; there are no spikes before half of them are done."""
    hang_after_s: float = 600.0
    """A step that takes so long has the stacks of all its threads written to the run's logs."""
    floors: dict[str, float] = field(default_factory=dict)
    """Logs of the stage that mean collapse when they stay below a value, e.g. target_feature_std: 0.01."""
    collapse_patience: int = 5
    """How many times in a row a log must be below its floor."""
    on_collapse: OnCollapse = OnCollapse.warn
    """Say so, or also stop the run."""

    def validate(self) -> None:
        """Refuse values out of range.

        Raises:
            ConfigError: naming the key.
        """
        least = {"max_rollbacks": 0, "spike_sigmas": 0, "spike_window": 4, "collapse_patience": 1}
        for key, value in least.items():
            if getattr(self, key) < value:
                raise ConfigError(f"guard.{key} is {getattr(self, key)}, expected {value} or more.")
        if not self.hang_after_s > 0:
            raise ConfigError(f"guard.hang_after_s is {self.hang_after_s}, expected more than 0.")


@dataclass
class Incident:
    """One bad step. With `whole_batch`, its global batch is left out; else the samples, from then on."""

    kind: str
    step: int
    epoch: int
    step_in_epoch: int
    whole_batch: bool
    sample_ids: list[str]
    by_rank: list[list[str]]
    """Who named which samples."""
    locations: list[dict[str, Any]] = field(default_factory=list)
    """Where the samples are stored."""
    loss: float | None = None
    recent_losses: list[float] = field(default_factory=list)
    recent_grad_norms: list[float] = field(default_factory=list)
    action: str = ""
    time: float = field(default_factory=time.time)


def write(storage: Storage, incident: Incident) -> str:
    """Write an incident of a stage; returns its key. A second one of the same step gets another."""
    number = sum(key.startswith(_key(incident.step, "")) for key, _ in storage.list(FOLDER))
    key = _key(incident.step, f"-{number}.json")
    storage.write(key, json.dumps(_finite(asdict(incident)), indent=1).encode())
    return key


def read_all(storage: Storage) -> list[Incident]:
    """All incidents of a stage, by step."""
    return [Incident(**json.loads(storage.read(key))) for key, _ in storage.list(FOLDER)]


def left_out(incidents: Sequence[Incident]) -> tuple[frozenset[str], frozenset[Cursor]]:
    """Samples and global batches that are not to be trained on."""
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
    """Counts how long the logs of a stage have been below their floors."""

    def __init__(self, config: GuardConfig) -> None:
        self._config = config
        self._below: dict[str, int] = {}

    def look(self, logs: dict[str, float]) -> list[str]:
        """What has collapsed, when it has been so for long enough; said once each time it begins."""
        said = []
        for name, floor in self._config.floors.items():
            if name in logs:
                low = logs[name] < floor
                self._below[name] = self._below.get(name, 0) + 1 if low else 0
                if self._below[name] == self._config.collapse_patience:
                    said.append(f"{name} is {logs[name]:.3g}, below its floor {floor:g}")
        return said


def _key(step: int, rest: str) -> str:
    return f"{FOLDER}/step-{step:08d}{rest}"


def _finite(value: Any) -> Any:
    """JSON has no NaN: None stands for it."""
    if isinstance(value, dict):
        return {k: _finite(v) for k, v in value.items()}
    if isinstance(value, list):
        return [_finite(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
