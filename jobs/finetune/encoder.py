"""The encoder that is trained with a head or a language model: what it starts from, and whether that fits."""

from __future__ import annotations

from typing import Any

from jobs.evaluate import encoders
from jobs.finetune.config import EncoderConfig
from jobs.finetune.scenes import SceneSets
from plinth.errors import ConfigError, DataError
from plinth.storage import StorageOptions
from poma3d.export import SceneEncoder, weights_digest
from poma3d.network.vit import VisionTransformer


def first_encoder(
    given: EncoderConfig, options: StorageOptions, trained: str
) -> tuple[SceneEncoder, dict[str, Any]]:
    """The encoder that training starts from, and what is written down about it.

    Args:
        trained: with what, in words.

    Raises:
        CheckpointError: no encoder there.
    """
    found = encoders.load(given.source, options, given.teacher)
    origin = found.provenance
    return found, {
        "digest": weights_digest(found),
        "weights": f"trained with {trained}",
        "run": origin.run or given.source,
        "teacher": origin.teacher,
        "teacher_revision": origin.teacher_revision,
    }


def to_be_trained(
    given: EncoderConfig, first: SceneEncoder, found: str, digest: str | None
) -> VisionTransformer:
    """Its tower with the same weights.

    Args:
        found: digest of the weights that are there.
        digest: of those that the run began with, where it has begun.

    Raises:
        ConfigError: they are others now.
    """
    if digest is not None and found != digest:
        raise ConfigError(
            f"encoder.source {given.source} has other weights than when this run began.",
            "Export the encoder that it began with, and name the export.",
        )
    vit = VisionTransformer(first.vit.shape, first.vit.patch_embed.gain, given.gradient_checkpointing)
    vit.load_state_dict(first.vit.state_dict())
    return vit


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
