"""The job file of `poma demo`."""

from __future__ import annotations

from dataclasses import dataclass, field

from jobs.demo.teacher_config import TeacherTrainConfig
from jobs.evaluate.config import EvaluateJob
from jobs.finetune.config import FinetuneJob
from jobs.ingest.config import IngestJob
from jobs.pretrain.config import PretrainJob
from plinth.counts import Count
from plinth.locations import ResultLocation


@dataclass
class DemoJob:
    """`poma demo`: everything from rooms to a report, in one folder."""

    kind: str = "demo"
    """Which command this file is for."""
    folder: ResultLocation = "demo"
    """Where data, teacher, runs and the report go. What is already there is not made again."""
    rooms: IngestJob = field(default_factory=IngestJob)
    """Training rooms: scenes of several views. Its output is set by the demo."""
    images: IngestJob = field(default_factory=IngestJob)
    """Single views of rooms for the warm-up. Its output is set by the demo."""
    held_out: IngestJob = field(default_factory=IngestJob)
    """Rooms that nothing trains on. Its output is set by the demo."""
    teacher: TeacherTrainConfig = field(default_factory=TeacherTrainConfig)
    """The tiny CLIP that is trained on the training rooms' colour images and captions."""
    image_tokens: bool = False
    """Keep the teacher's patch tokens, for dense distillation."""
    pretrain: PretrainJob = field(default_factory=PretrainJob)
    """Both stages. Data, teacher and output are set by the demo."""
    evaluate: EvaluateJob = field(default_factory=EvaluateJob)
    """Retrieval and probe on the held-out rooms. Run, data and teacher are set by the demo."""
    questions_per_type: Count = 4
    """Questions of a type about a room, at most."""
    head: FinetuneJob | None = None
    """A head that answers those about the training rooms from the encoder's features and is scored on those
    about the held-out rooms; null leaves it out."""
