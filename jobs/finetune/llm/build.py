"""What a training worker unpickles, and what everything after training builds on: the model from the job
alone.

    build_stage     with new weights, or as it was published
    load_weights    with those of a checkpoint
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import nn

from jobs.common import models
from jobs.common.run_layout import TRAINING
from jobs.finetune.llm.config import FinetuneLlmJob
from jobs.finetune.set_up import SceneSetup, largest_batch, seen_scenes
from jobs.pretrain.stage_spec import optim_of
from plinth.checkpoint import save_load as checkpoint
from plinth.data.sources import OpenSource
from plinth.engine.config import Precision
from plinth.errors import CheckpointError, ConfigError
from plinth.storage import Storage, StorageOptions
from poma3d.llm.config import LlmConfig
from poma3d.llm.conversations import ConversationShape
from poma3d.llm.model import load_llm
from poma3d.llm.stage import ConversationStage, Projection

WITH = "the language model"
"""What an encoder is trained with, as its record says."""


@dataclass(frozen=True)
class Setup(SceneSetup):
    """What a model is built from beside the job; picklable."""

    vocabulary: int | None = None
    """Tokens of a tokenizer that was trained here."""


def build_from_sources(job: FinetuneLlmJob, setup: Setup, sources: Sequence[OpenSource]) -> ConversationStage:
    return build_stage(job, setup, ConversationShape(**sources[0].manifest.attributes["shape"]))


def build_stage(job: FinetuneLlmJob, setup: Setup, shape: ConversationShape) -> ConversationStage:
    """The model of a job before training; on any worker, from the job alone.

    Raises:
        ConfigError: the language model cannot be loaded, or the encoder has other weights now.
        CheckpointError: no encoder there.
    """
    models.quiet_transformers()
    dtype = torch.bfloat16 if job.zero.precision is Precision.bf16 else torch.float32
    try:
        llm = load_llm(local(job.llm, job.storage), setup.vocabulary, job.seed, dtype)
    except ValueError as error:
        raise ConfigError(f"{error}.") from None
    return assembled(job, setup, shape, llm)


def assembled(
    job: FinetuneLlmJob, setup: Setup, shape: ConversationShape, llm: nn.Module
) -> ConversationStage:
    """The same of a language model that is there.

    Raises:
        ConfigError: the encoder has other weights now.
        CheckpointError: no encoder there.
    """
    lr = optim_of(job, job.training, TRAINING).lr
    batch_size = largest_batch(job.training, job.fit.workers)
    seen = seen_scenes(job.scene, job.encoder, setup, lr, batch_size, job.storage, WITH)
    projector_lr = job.scene.projector_lr
    projection = Projection(job.scene.projector_width, 1.0 if projector_lr is None else projector_lr / lr)
    return ConversationStage(llm, job.chat, seen, shape, job.seed, job.llm.loss, projection)


def load_weights(
    stage: ConversationStage, checkpoints: Storage, step: int | None = None
) -> ConversationStage:
    """The same model with the weights of a checkpoint, in evaluation mode; what no checkpoint holds stays as
    it was published.

    Args:
        step: the newest when None.

    Raises:
        CheckpointError: no such checkpoint, or one of another model.
    """
    with tempfile.TemporaryDirectory() as scratch:
        weights = checkpoint.read_full(checkpoints, Path(scratch), step)
    found = stage.load_state_dict(weights, strict=False)
    # A head that shares the embedding's weights has a second name in the state, not among the parameters.
    own = {name for name, _ in stage.named_parameters()} - set(stage.unsaved())
    missing = sorted(own & set(found.missing_keys))
    if missing or found.unexpected_keys:
        name = (missing or found.unexpected_keys)[0]
        raise CheckpointError(
            f"{checkpoints.uri}: its weights are of another model: {name} is in one of the two.",
            "Give the job that wrote them.",
        )
    stage.eval()
    return stage


def local(llm: LlmConfig, options: StorageOptions) -> LlmConfig:
    """The same with a model in storage fetched to this node."""
    if not llm.source:
        return llm
    return replace(llm, source=models.fetch(llm.source, options, "llm.source"))
