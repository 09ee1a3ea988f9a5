"""What a training worker unpickles: builds a head from the job alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from jobs.common import models
from jobs.evaluate import encoders
from jobs.finetune.config import FinetuneJob
from jobs.finetune.scenes import SceneSets, SceneStore
from plinth.data.sources import OpenSource
from plinth.errors import ConfigError, DataError
from plinth.storage import StorageOptions
from poma3d.export import SceneEncoder, weights_digest
from poma3d.heads.config import TextConfig
from poma3d.heads.questions import QuestionShape
from poma3d.heads.stage import QuestionStage, TrainedEncoder
from poma3d.heads.text import load_tower
from poma3d.network.encoder import PointMapEncoder
from poma3d.network.vit import VisionTransformer


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
    trained = None if scenes is None else _trained(job, scenes, digest)
    if trained is not None:
        shape = replace(shape, embedding=trained.encoder.vit.shape.joint)
    try:
        tower = load_tower(local(job.text, job.storage))
    except ValueError as error:
        raise ConfigError(f"{error}.") from None
    return QuestionStage(job.head, job.qa, tower, shape, classes, job.seed, trained)


def first_encoder(job: FinetuneJob) -> tuple[SceneEncoder, dict[str, Any]]:
    """The encoder that training starts from, and what is written down about it.

    Raises:
        CheckpointError: no encoder there.
    """
    given = job.encoder
    assert given is not None
    found = encoders.load(given.source, job.storage, given.teacher)
    origin = found.provenance
    return found, {
        "digest": weights_digest(found),
        "weights": "trained with the head",
        "run": origin.run or given.source,
        "teacher": origin.teacher,
        "teacher_revision": origin.teacher_revision,
    }


def check_size(encoder: SceneEncoder, scenes: SceneSets, where: str) -> None:
    """Refuse scenes of another size than an encoder takes.

    Args:
        where: who names them, or where they are.

    Raises:
        DataError: naming both sizes.
    """
    size, own = encoder.vit.shape.image_size, (scenes.shape.height, scenes.shape.width)
    if size != own:
        raise DataError(
            f"{where}: scenes have views of {own} pixels, the encoder takes {size}.",
            "Ingest the scenes at the encoder's size.",
        )


def _trained(job: FinetuneJob, scenes: SceneSets, digest: str | None) -> TrainedEncoder:
    given = job.encoder
    assert given is not None
    first, record = first_encoder(job)
    check_size(first, scenes, scenes.names)
    if digest is not None and record["digest"] != digest:
        raise ConfigError(
            f"encoder.source {given.source} has other weights than when this run began.",
            "Export the encoder that it began with, and name the export.",
        )
    vit = VisionTransformer(first.vit.shape, first.vit.patch_embed.gain, given.gradient_checkpointing)
    vit.load_state_dict(first.vit.state_dict())
    of_head = job.optim.lr if job.heads.lr is None else job.heads.lr
    scale = 1.0 if given.lr is None else given.lr / of_head
    return TrainedEncoder(PointMapEncoder(vit), scenes.shape, SceneStore(scenes, given.cached_scenes), scale)


def local(text: TextConfig, options: StorageOptions) -> TextConfig:
    """The same with a tower in storage fetched to this node."""
    return replace(text, source=models.fetch(text.source, options, "text.source"))
