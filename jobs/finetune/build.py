"""What a training worker unpickles: builds a head from the job alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from jobs.common import models
from jobs.common.run_layout import HEADS
from jobs.finetune.config import FinetuneJob
from jobs.finetune.encoder import check_size, first_encoder, to_be_trained
from jobs.finetune.scenes import SceneSets, SceneStore
from jobs.pretrain.stage_spec import optim_of
from plinth.data.sources import OpenSource
from plinth.errors import ConfigError
from plinth.storage import StorageOptions
from poma3d.heads.config import TextConfig
from poma3d.heads.questions import QuestionShape
from poma3d.heads.stage import QuestionStage, TrainedEncoder
from poma3d.heads.text import load_tower
from poma3d.network.encoder import PointMapEncoder

WITH = "the head"
"""What an encoder is trained with, as its record says."""


def build_from_sources(
    job: FinetuneJob, classes: int, scenes: SceneSets | None, sources: Sequence[OpenSource]
) -> QuestionStage:
    attributes = sources[0].manifest.attributes
    return build_stage(
        job, classes, QuestionShape(**attributes["shape"]), scenes, attributes["encoder"]["digest"]
    )


def build_stage(
    job: FinetuneJob,
    classes: int,
    shape: QuestionShape,
    scenes: SceneSets | None = None,
    digest: str | None = None,
) -> QuestionStage:
    """The head with new weights and its text tower; on any worker, from the job alone.

    Args:
        shape: its `embedding` is that of the encoder, where that is trained.
        scenes: for an encoder that is trained.
        digest: of the weights that it starts from.

    Raises:
        ConfigError: the tower cannot be loaded, or the encoder has other weights now.
        DataError: scenes of another size than the encoder takes.
    """
    models.quiet_transformers()
    trained = None if scenes is None else trained_encoder(job, scenes, digest)
    if trained is not None:
        shape = replace(shape, embedding=trained.encoder.vit.shape.joint)
    try:
        tower = load_tower(local(job.text, job.storage))
    except ValueError as error:
        raise ConfigError(f"{error}.") from None
    return QuestionStage(job.head, job.qa, tower, shape, classes, job.seed, trained)


def trained_encoder(job: FinetuneJob, scenes: SceneSets, digest: str | None) -> TrainedEncoder:
    """The encoder that is trained with the head, on these scenes.

    Args:
        digest: of the weights that it starts from, where the run has begun.

    Raises:
        ConfigError: it has other weights now.
        CheckpointError: no encoder there.
        DataError: scenes of another size than it takes.
    """
    given = job.encoder
    assert given is not None
    first, record = first_encoder(given, job.storage, WITH)
    check_size(first, scenes, scenes.names)
    vit = to_be_trained(given, first, record["digest"], digest)
    scale = 1.0 if given.lr is None else given.lr / optim_of(job, job.heads, HEADS).lr
    return TrainedEncoder(PointMapEncoder(vit), scenes.shape, SceneStore(scenes, given.cached_scenes), scale)


def local(text: TextConfig, options: StorageOptions) -> TextConfig:
    """The same with a tower in storage fetched to this node."""
    return replace(text, source=models.fetch(text.source, options, "text.source"))
