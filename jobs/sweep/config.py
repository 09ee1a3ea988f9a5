"""The job file of `poma sweep`."""

from __future__ import annotations

from dataclasses import dataclass, field

from jobs.finetune.config import FinetuneJob
from jobs.pretrain.config import PretrainJob
from plinth.locations import Location
from plinth.schema import MISSING
from plinth.sweep.config import SweepConfig
from poma3d.evaluate.config import ProbeConfig, RetrievalConfig


@dataclass
class TrialEvaluation:
    """What every trial is measured by at its checkpoints, beside its training metrics."""

    data: Location = MISSING
    """Folder or URI of a held-out data set, embedded by the job's teacher."""
    retrieval: RetrievalConfig = field(default_factory=RetrievalConfig)
    """Zero-shot scene retrieval."""
    probe: ProbeConfig = field(default_factory=ProbeConfig)
    """Linear probe of the classes in view."""
    batch_size: int = 16
    """Scenes that pass through the encoder at once."""


@dataclass
class SweepJob(PretrainJob):
    """`poma sweep`: many trials of one pretraining job."""

    kind: str = "sweep"
    """Which command this file is for."""
    evaluation: TrialEvaluation | None = None
    """Measures for sweep.metric; null if a training metric will do."""
    sweep: SweepConfig = field(default_factory=SweepConfig)
    """What is varied, how it is judged, and how much of it."""


@dataclass
class HeadSweepJob(FinetuneJob):
    """`poma sweep`: many trials of one job of `poma finetune`."""

    kind: str = "sweep_finetune"
    """Which command this file is for."""
    sweep: SweepConfig = field(default_factory=SweepConfig)
    """What is varied, how it is judged, and how much of it."""


AnySweepJob = SweepJob | HeadSweepJob
