"""The job file of `poma generate`."""

from __future__ import annotations

from dataclasses import dataclass, field

from jobs.common.ray_config import RayConfig
from jobs.finetune.llm.config import SeenConfig
from plinth.counts import Count, CountOrZero
from plinth.data.config import ShardOptions
from plinth.errors import ConfigError
from plinth.locations import Location, ResultLocation
from plinth.schema import MISSING
from plinth.storage import StorageOptions
from plinth.storage.options import LockConfig


@dataclass
class GenerateJob:
    """`poma generate`: questions about scenes -> what a trained language model answers."""

    kind: str = "generate"
    """Which command this file is for."""
    run: Location = MISSING
    """Folder of a run of a language model (output/name)."""
    step: Count | None = None
    """Which checkpoint; the last when empty."""
    asked: SeenConfig = field(default_factory=SeenConfig)
    """Scenes and what is asked about them, as in the run's `train`; of questions with several situations the
    first. Each kind once."""
    output: ResultLocation = MISSING
    """Folder or URI of the answers. The same command again resumes."""
    max_tokens: Count = 64
    """Longest answer."""
    batch_size: Count = 16
    """Questions that are answered at once."""
    questions_per_task: Count = 512
    """Questions that are done or not, where the job is killed."""
    shards: ShardOptions = field(default_factory=lambda: ShardOptions(row_group_rows=64))
    """How the questions are stored in tokens."""
    storage: StorageOptions = field(default_factory=StorageOptions)
    """How to reach run, model, scenes, questions and output."""
    lock: LockConfig = field(default_factory=LockConfig)
    """How the job makes sure that no other job writes the output."""
    workers: CountOrZero = 1
    """Copies of the model that run at a time; 0 does everything here, without Ray."""
    gpus_per_worker: float = 0.0
    """GPUs that a copy claims; 0 runs on CPUs."""
    cpus_per_worker: float = 1.0
    """CPUs that a copy claims."""
    ray: RayConfig = field(default_factory=RayConfig)
    """Where the copies run."""

    def validate(self) -> None:
        """Refuse values that cannot be.

        Raises:
            ConfigError: naming the field.
        """
        self.shards.validate()
        self.lock.validate()
        kinds = [each.kind for each in self.asked.conversations]
        twice = sorted({kind for kind in kinds if kinds.count(kind) > 1})
        if twice:
            raise ConfigError(
                f"asked.conversations names {twice[0]} twice.",
                "Give each kind once: it has a file of answers.",
            )
