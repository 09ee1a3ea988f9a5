"""What a head or a language model is built from to see scenes by their numbers, and the scenes so seen."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from jobs.features.sets import FeatureSets
from jobs.finetune.config import EncoderConfig
from jobs.finetune.encoder import check_size, first_encoder, to_be_trained
from jobs.finetune.numbered import BATCHES_KEPT, NumberedScenes, SceneNumbers, number_scenes
from jobs.finetune.scenes import SceneSets
from plinth.errors import DataError
from plinth.storage import StorageOptions
from poma3d.export import SceneEncoder
from poma3d.network.encoder import PointMapEncoder
from poma3d.seen.config import NONE, VIEWS, VOXELS, SceneTokensConfig
from poma3d.seen.scenes import SeenScenes


@dataclass(frozen=True)
class SceneSetup:
    """Scenes and the sizes of what is seen of them; picklable."""

    numbers: SceneNumbers
    views: int
    """Of a scene."""
    width: int
    """Of what scene tokens are made of."""
    patches: int
    """Of a view."""
    encoder: dict[str, Any] | None = None
    """What is written down of the encoder: digest, weights, run, teacher, teacher_revision."""


def of_encoder(
    scene: SceneTokensConfig, first: SceneEncoder, record: dict[str, Any], scenes: SceneSets, key: str
) -> SceneSetup:
    """What is seen of scenes with an encoder that is trained.

    Args:
        first: the encoder before training.
        record: what is written down of it.
        key: of the split in the job, for messages.

    Raises:
        DataError: scenes of another size than it takes.
    """
    check_size(first, scenes, f"{key}.scenes")
    shape, kind = first.vit.shape, scene.tokens
    patches = 0 if kind == VIEWS else shape.patches
    numbers = number_scenes(None, scenes, "", patches if kind == VOXELS else 0)
    width = shape.joint if kind == VIEWS else shape.width
    return SceneSetup(numbers, scenes.shape.views, width, patches, record)


def of_features(
    scene: SceneTokensConfig, stored: FeatureSets, scenes: SceneSets | None, key: str
) -> SceneSetup:
    """What is seen of scenes whose features are stored.

    Args:
        key: of the split in the job, for messages.
        scenes: that they were made of, where the places of patches are needed.

    Raises:
        DataError: features without patch tokens, of scenes that are not there, or of different sizes.
    """
    if scene.needs_patches and not stored.shape.patches:
        raise DataError(
            f"{key}.features: {stored.names} hold no patch tokens, and scene.tokens is {scene.tokens}.",
            "Run `poma features` with patches=true, or use scene.tokens=views.",
        )
    shape, kind = stored.shape, scene.tokens
    of_places = scenes if kind == VOXELS else None
    column = "views" if kind == VIEWS else "patches"
    numbers = number_scenes(stored, of_places, column, shape.patches if kind == VOXELS else 0)
    if of_places is not None and of_places.shape.views != shape.views:
        raise DataError(
            f"{key}: scenes have {of_places.shape.views} views, their features {shape.views}.",
            "Name the data sets that the features were made of.",
        )
    width, patches = (shape.embedding, 0) if kind == VIEWS else (shape.patch_width, shape.patches)
    return SceneSetup(numbers, shape.views, width, patches, stored.encoder)


def seen_scenes(
    scene: SceneTokensConfig,
    encoder: EncoderConfig | None,
    setup: SceneSetup,
    lr: float,
    micro_batch_size: int,
    options: StorageOptions,
    trained_with: str,
) -> SeenScenes:
    """Scenes as a stage sees them, with the encoder that is trained.

    Args:
        lr: peak learning rate of what the encoder is trained with.
        micro_batch_size: samples that are seen at once.

    Raises:
        ConfigError: the encoder has other weights now.
        CheckpointError: no encoder there.
    """
    seen = SeenScenes(scene, None, setup.views, setup.width, setup.patches)
    if encoder is not None:
        assert setup.numbers.scenes is not None
        seen = replace(
            seen,
            encoder=_trained(scene, encoder, setup, options, trained_with),
            samples=setup.numbers.scenes.shape,
            encoder_lr_scale=1.0 if encoder.lr is None else encoder.lr / lr,
        )
    if scene.tokens != NONE:
        seen.scenes = NumberedScenes(setup.numbers, kept_scenes(encoder, micro_batch_size))
    return seen


def kept_scenes(encoder: EncoderConfig | None, batch_size: int) -> int:
    """Scenes that are kept decoded in memory."""
    return BATCHES_KEPT * batch_size if encoder is None else encoder.cached_scenes


def _trained(
    scene: SceneTokensConfig,
    given: EncoderConfig,
    setup: SceneSetup,
    options: StorageOptions,
    trained_with: str,
) -> PointMapEncoder:
    first, record = first_encoder(given, options, trained_with)
    begun = None if setup.encoder is None else setup.encoder["digest"]
    vit = to_be_trained(given, first, record["digest"], begun)
    if scene.tokens != VIEWS:  # what makes a view's feature is not looked at
        vit.head.requires_grad_(False)
        if first.vit.shape.pooling == "class":
            vit.norm.requires_grad_(False)
    return PointMapEncoder(vit)
