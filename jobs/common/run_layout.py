"""Where things lie: the shipped job files, and the names inside a run's folder."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from jobs.common.ray_config import RayConfig
from plinth.checkpoint.config import CheckpointConfig
from plinth.engine.config import OptimConfig, ZeroConfig
from plinth.launch.config import FitConfig
from plinth.observe.config import GuardConfig, LedgerConfig, MetricsConfig
from plinth.storage import Storage, StorageOptions
from plinth.storage.options import LockConfig

CONFIGS = Path(__file__).parents[1] / "configs"
"""The job files that come with the package."""

STAGES = ("warmup", "main")
"""The two stages in the order in which they run: their folders, and their sections in the job."""
HEADS = "heads"
"""The stage of `poma finetune` of a head."""
TRAINING = "training"
"""The stage of `poma finetune` of a language model."""
ALL_STAGES = (*STAGES, HEADS, TRAINING)
"""Whatever a run may hold."""
CONFIG_KEY = "config.yaml"
"""The resolved job."""
PINS_KEY = "data.json"
"""The versions of the data sets that the run reads."""


def is_folder_name(name: str) -> bool:
    """Whether a name leads to a folder below the one that it is joined to, and prints as one line."""
    parts = name.split("/")
    return name.isprintable() and all(part.strip() not in ("", ".", "..") for part in parts)


class RunJob(Protocol):
    """What the jobs have in common that train something as a run: `poma pretrain` and `poma finetune`."""

    name: str
    output: str
    seed: int
    storage: StorageOptions
    optim: OptimConfig
    zero: ZeroConfig
    checkpoint: CheckpointConfig
    guard: GuardConfig
    ledger: LedgerConfig
    lock: LockConfig
    metrics: MetricsConfig
    fit: FitConfig
    ray: RayConfig


def run_storage(job: RunJob) -> Storage:
    """The run's folder."""
    return Storage.from_uri(job.output, job.storage).child(job.name)
