"""What a training worker unpickles: builds a head from the job alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from jobs.common import models
from jobs.finetune.config import FinetuneJob
from plinth.data.sources import OpenSource
from plinth.errors import ConfigError
from plinth.storage import StorageOptions
from poma3d.heads.config import TextConfig
from poma3d.heads.questions import QuestionShape
from poma3d.heads.stage import QuestionStage
from poma3d.heads.text import load_tower


def build_from_sources(job: FinetuneJob, classes: int, sources: Sequence[OpenSource]) -> QuestionStage:
    return build_stage(job, classes, QuestionShape(**sources[0].manifest.attributes["shape"]))


def build_stage(job: FinetuneJob, classes: int, shape: QuestionShape) -> QuestionStage:
    """The head with new weights and its text tower; on any worker, from the job alone.

    Raises:
        ConfigError: the tower cannot be loaded.
    """
    models.quiet_transformers()
    try:
        tower = load_tower(local(job.text, job.storage))
    except ValueError as error:
        raise ConfigError(f"{error}.") from None
    return QuestionStage(job.head, job.qa, tower, shape, classes, job.seed)


def local(text: TextConfig, options: StorageOptions) -> TextConfig:
    """The same with a tower in storage fetched to this node."""
    return replace(text, source=models.fetch(text.source, options, "text.source"))
