"""What a head or a language model is built from to see scenes by their numbers, and the scenes so seen."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

from jobs.features.sets import FeatureSets
from jobs.finetune.config import EncoderConfig
from jobs.finetune.encoder import check_size, first_encoder, to_be_trained
from jobs.finetune.numbered import NumberedScenes, SceneNumbers, number_scenes
from jobs.finetune.scenes import SceneSets
from jobs.pretrain.config import StageLength
from plinth.errors import DataError
from plinth.launch.config import Workers
from plinth.storage import StorageOptions
from poma3d.export import SceneEncoder
from poma3d.network.encoder import PointMapEncoder
from poma3d.seen.config import NONE, VIEWS, VOXELS, SceneTokensConfig
from poma3d.seen.scenes import SeenScenes
from poma3d.seen.voxels import patch_side

FEWEST_KEPT = 64
BATCHES_KEPT = 4
"""Batches whose scenes a worker keeps decoded in memory where no encoder is trained: the one that is
trained on and those that are read ahead."""


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
        key: of the split in the job, for messages; empty where no job names the scenes.

    Raises:
        DataError: scenes of another size than it takes.
    """
    check_size(first, scenes, f"{key}.scenes" if key else scenes.names)
    shape, kind = first.vit.shape, scene.tokens
    patches = 0 if kind == VIEWS else shape.patches
    numbers = number_scenes(None, scenes, "", patches if kind == VOXELS else 0)
    width = shape.joint if kind == VIEWS else shape.width
    return SceneSetup(numbers, scenes.shape.views, width, patches, record)


def of_features(
    scene: SceneTokensConfig,
    stored: FeatureSets,
    scenes: SceneSets | None,
    key: str,
    only: str | None = None,
) -> SceneSetup:
    """What is seen of scenes whose features are stored.

    Args:
        scenes: that they were made of, where the places of patches are needed.
        key: of the split in the job, for messages; empty where no job names them.
        only: the one scene that is going to be read; any when None.

    Raises:
        DataError: features without patch tokens, of scenes that are not there, or of different sizes.
    """
    if scene.needs_patches and not stored.shape.patches:
        raise DataError(
            f"{_at(key, 'features')}{stored.names} hold no patch tokens, and scene.tokens is {scene.tokens}.",
            "Run `poma features` with patches=true, or use scene.tokens=views.",
        )
    shape, kind = stored.shape, scene.tokens
    of_places = scenes if kind == VOXELS else None
    column = "views" if kind == VIEWS else "patches"
    if of_places is not None:
        _check_places(of_places, stored, _at(key, "scenes"))
    numbers = number_scenes(stored, of_places, column, shape.patches if kind == VOXELS else 0, only)
    width, patches = (shape.embedding, 0) if kind == VIEWS else (shape.patch_width, shape.patches)
    return SceneSetup(numbers, shape.views, width, patches, stored.encoder)


def _at(key: str, name: str) -> str:
    return f"{key}.{name}: " if key else ""


def _check_places(scenes: SceneSets, stored: FeatureSets, where: str) -> None:
    """Refuse scenes that features cannot have been made of.

    Raises:
        DataError: of another number of views, or whose views do not fall into the features' patches.
    """
    own, theirs = scenes.shape, stored.shape
    differs = ""
    if own.views != theirs.views:
        differs = f"{own.views} views, their features {theirs.views}"
    elif not patch_side(own.height, own.width, theirs.patches):
        differs = (
            f"views of {own.height} x {own.width} pixels, their features {theirs.patches} square patches"
        )
    if differs:
        raise DataError(
            f"{where}scenes of {scenes.names} have {differs} in {stored.names}.",
            "Name the data sets that the features were made of.",
        )


def seen_scenes(
    scene: SceneTokensConfig,
    encoder: EncoderConfig | None,
    setup: SceneSetup,
    lr: float,
    batch_size: int,
    options: StorageOptions,
    trained_with: str,
) -> SeenScenes:
    """Scenes as a stage sees them, with the encoder that is trained.

    Args:
        lr: peak learning rate of what the encoder is trained with.
        batch_size: most samples of a worker's batch (`largest_batch`).

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
        seen.scenes = NumberedScenes(setup.numbers, kept_scenes(encoder, batch_size))
    return seen


def largest_batch(stage: StageLength, workers: Workers) -> int:
    """Most samples of a worker's batch, all its micro-batches together: it is read ahead as a whole."""
    return math.ceil(stage.global_batch_size / max(1, workers.min))


def kept_scenes(encoder: EncoderConfig | None, batch_size: int) -> int:
    """Scenes that are kept decoded in memory."""
    if encoder is not None:
        return encoder.cached_scenes
    return max(FEWEST_KEPT, BATCHES_KEPT * batch_size)


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
