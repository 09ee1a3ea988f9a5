"""A job of a language model with nothing left to find out: tokenizer, conversations, scenes, order, length.

Everything is opened once, here in the driver. Workers get the result.
"""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any

from jobs.common import models
from jobs.common.run_layout import TRAINING, run_storage
from jobs.features.sets import open_features
from jobs.finetune.encoder import first_encoder
from jobs.finetune.llm import conversations, rows
from jobs.finetune.llm.build import WITH, Setup, build_from_sources, local
from jobs.finetune.llm.config import FinetuneLlmJob, SeenConfig, needs_scenes
from jobs.finetune.numbered import number_scenes
from jobs.finetune.scenes import SceneSets, open_scenes
from jobs.finetune.set_up import of_encoder, of_features
from jobs.pretrain.resume import KeyNames
from jobs.pretrain.stage_spec import checks, in_steps, optim_of, stage_spec
from plinth import config
from plinth.data.config import SourceConfig
from plinth.errors import ConfigError, raise_together
from plinth.locations import absolute
from plinth.storage import Storage
from plinth.train import resolve as stages
from plinth.train.resolve import ResolvedStage
from poma3d.llm.chat import Chat, load_chat, train_tokenizer, trained_chat
from poma3d.llm.conversations import Conversation, ConversationShape, shape_of
from poma3d.llm.model import longest_row, revision_of
from poma3d.seen.config import NONE
from poma3d.seen.scenes import SeenScenes

TOKENIZER_KEY = "tokenizer.json"
"""Of a tokenizer that was trained from the conversations."""
DIGEST_LENGTH = 16


@dataclass(frozen=True)
class ResolvedLlm:
    """The stage, and what is kept with the run beside it."""

    stage: ResolvedStage
    setup: Setup
    chat: Chat
    shape: ConversationShape
    tokenizer: str | None
    """Content of a tokenizer that was trained here."""


@dataclass(frozen=True)
class Looked:
    """What a job reads, opened."""

    setup: Setup
    chat: Chat
    revision: str
    """Of the language model's weights."""
    tokenizer: str | None
    """Content of a tokenizer that was trained here."""
    numbers: dict[str, int] | None
    """Of the scenes; None where no scene is looked at."""
    tokenised: list[rows.Tokenised]
    """The conversations of each kind."""
    shape: ConversationShape


def resolve(job: FinetuneLlmJob, accept_changes: bool = False) -> ResolvedLlm:
    """The stage of the job; conversations, scenes, encoder and language model fit each other.

    The conversations are written under names of their own: nothing that is there changes.

    Args:
        accept_changes: resume although the job differs from the one that wrote the last checkpoint.

    Raises:
        ConfigError: a value that cannot be, or a model that cannot be used.
        DataError: annotations, features or scenes that cannot be used.
        CheckpointError: no encoder where one is to be trained.
    """
    check_settings(job)
    there, run = absolute(job), run_storage(job)
    found = look(there)
    setup, shape, tokenizer = found.setup, found.shape, found.tokenizer
    for i, each_kind in enumerate(found.tokenised):
        each_kind.say(f"train.conversations[{i}]")
    run.check(write=True)
    recipe = _recipe(setup, found.revision, tokenizer)
    sources = [
        rows.write(run, each, shape, found.numbers, recipe, setup.encoder, job.shards)
        for each in found.tokenised
    ]
    data = replace(there.training.data, sources=[SourceConfig(s.uri, s.weight) for s in sources])
    spec = stage_spec(
        job,
        replace(there.training, data=data),
        TRAINING,
        partial(build_from_sources, there, setup),
        _identity(job, setup, found.revision, tokenizer),
        accept_changes,
        _names_in_job(job),
    )
    return ResolvedLlm(stages.resolve(spec, sources), setup, found.chat, shape, tokenizer)


def look(job: FinetuneLlmJob) -> Looked:
    """Open everything that the job reads; nothing is written.

    Args:
        job: with absolute paths.

    Raises:
        PlinthError: as `resolve`.
    """
    models.quiet_transformers()
    scenes = scenes_of(job, job.train, "train")
    setup = set_up(job, job.train, scenes, "train")
    said = read_all(job, job.train, scenes, "train")
    revision, tokenizer, chat = _chat(job, said)
    if tokenizer is not None:
        setup = replace(setup, vocabulary=chat.vocabulary)
    numbers = None if job.scene.tokens == NONE else setup.numbers.numbers
    tokenised = [
        rows.tokenise(each.kind, each.weight, found, numbers, chat, f"train.conversations[{i}]")
        for i, (each, found) in enumerate(zip(job.train.conversations, said, strict=True))
    ]
    shape = shape_of([row for each in tokenised for row in each.rows])
    check_length(job, setup, shape)
    return Looked(setup, chat, revision, tokenizer, numbers, tokenised, shape)


def check_settings(job: FinetuneLlmJob) -> None:
    """What can be said without opening anything.

    Raises:
        PlinthError: the value that is out of range, or all of them together.
    """
    raise_together([job.validate, *checks(job, [(TRAINING, job.training)])])


def set_up(
    job: FinetuneLlmJob, seen: SeenConfig, scenes: SceneSets | None, key: str, only: str | None = None
) -> Setup:
    """What the model sees of a split.

    Args:
        job: with absolute paths.
        scenes: data sets of scenes, where the split has any.
        key: of the split in the job, for messages.
        only: the one scene that is going to be read; any when None.

    Raises:
        DataError: features without patch tokens, of scenes that are not there, or of different sizes.
    """
    if job.scene.tokens == NONE:
        return Setup(number_scenes(None, None, "", 0), 0, 0, 0)
    if job.encoder is None:
        features = open_features(seen.features, job.storage, f"{key}.features: ")
        return Setup(**vars(of_features(job.scene, features, scenes, key, only)))
    assert scenes is not None
    first, record = first_encoder(job.encoder, job.storage, WITH)
    return Setup(**vars(of_encoder(job.scene, first, record, scenes, key)))


def read_all(
    job: FinetuneLlmJob, seen: SeenConfig, scenes: SceneSets | None, key: str
) -> list[list[Conversation]]:
    """The conversations of a split, of each of its kinds."""
    return [
        conversations.read(each, job.chat.text_joiner, scenes, job.storage, f"{key}.conversations[{i}]")
        for i, each in enumerate(seen.conversations)
    ]


def check_length(job: FinetuneLlmJob, setup: Setup, shape: ConversationShape) -> None:
    """Refuse rows that are longer than the language model has positions for, or than rows that are packed.

    Raises:
        ConfigError: naming the sizes.
    """
    seen = SeenScenes(job.scene, None, setup.views, setup.width, setup.patches)
    longest = shape.prompt_tokens + seen.most_tokens + shape.answer_tokens
    of_parts = (
        f"{shape.prompt_tokens} of text, {seen.most_tokens} of the scene, {shape.answer_tokens} of answer"
    )
    try:
        most = longest_row(local(job.llm, job.storage))
    except ValueError as error:
        raise ConfigError(f"{error}.") from None
    for name, limit in (("the language model", most), ("chat.packed_tokens", job.chat.packed_tokens)):
        if limit is not None and longest > limit:
            raise ConfigError(
                f"A conversation may have {longest} tokens ({of_parts}), {name} has {limit}.",
                "Use scene.tokens=voxels with a lower scene.max_voxels, or a lower chat.max_text_tokens.",
            )


def chat_of(job: FinetuneLlmJob, run: Storage) -> Chat:
    """The chat of a run that was begun.

    Raises:
        ConfigError: its tokenizer cannot be used.
    """
    try:
        if job.llm.new is not None:
            return trained_chat(run.read(TOKENIZER_KEY).decode(), job.chat)
        return load_chat(local(job.llm, job.storage), job.chat)
    except ValueError as error:
        raise ConfigError(f"{error}.") from None


def write_tokenizer(run: Storage, resolved: ResolvedLlm) -> None:
    """Keep a tokenizer that was trained here with the run."""
    if resolved.tokenizer is not None:
        run.write(TOKENIZER_KEY, resolved.tokenizer.encode())


def scenes_of(job: FinetuneLlmJob, seen: SeenConfig, key: str) -> SceneSets | None:
    """The data sets of scenes of a split, where something reads them."""
    return open_scenes(seen.scenes, job.storage, f"{key}.scenes: ") if needs_scenes(job, seen) else None


def _chat(job: FinetuneLlmJob, said: list[list[Conversation]]) -> tuple[str, str | None, Chat]:
    """The revision of the model, the content of a tokenizer that is trained, and the chat."""
    try:
        if job.llm.new is not None:
            texts = [t for found in said for each in found for t in (*each.texts, *each.answers)]
            content = train_tokenizer(texts, job.llm.new)
            return "new", content, trained_chat(content, job.chat)
        there = local(job.llm, job.storage)
        return revision_of(there), None, load_chat(there, job.chat)
    except ValueError as error:
        raise ConfigError(f"{error}.") from None


def _recipe(setup: Setup, revision: str, tokenizer: str | None) -> dict[str, Any]:
    of = setup.numbers
    return {
        "features": of.stored.hashes if of.stored is not None else None,
        "scenes": of.scenes.hashes if of.scenes is not None else None,
        "model": revision,
        "tokenizer": _digest(tokenizer),
        "encoder": setup.encoder["digest"] if setup.encoder is not None else None,
    }


def _digest(content: str | None) -> str | None:
    return None if content is None else hashlib.sha256(content.encode()).hexdigest()[:DIGEST_LENGTH]


SPEED_ONLY = {
    "llm": ("source", "revision", "trust_remote_code", "allow_tensors", "gradient_checkpointing"),
    "encoder": ("source", "teacher", "cached_scenes", "gradient_checkpointing"),
}
"""Keys that change speed and memory alone, or name weights that are identified otherwise."""


def _names_in_job(job: FinetuneLlmJob) -> KeyNames:
    """Keys of the job for those of `_identity`."""
    encoder = "train.features (their encoder)" if job.encoder is None else "encoder.source (its weights)"
    if job.llm.new is not None:
        weights = "llm.new"
    else:
        weights = "llm.source (its weights)" if job.llm.revision is None else "llm.revision"
    return KeyNames(
        {"encoder_training": "encoder"},
        {"encoder": encoder, "weights": weights, "tokenizer": "train.conversations (their words)"},
    )


def _identity(job: FinetuneLlmJob, setup: Setup, revision: str, tokenizer: str | None) -> dict[str, Any]:
    """What decides the result: a run that resumes must agree in all of it. What the conversations hold is in
    the plan's fingerprint."""
    full, stage = config.to_dict(job), job.training

    def section(name: str) -> dict[str, Any]:
        return {k: v for k, v in (full[name] or {}).items() if k not in SPEED_ONLY.get(name, ())}

    trained = {} if job.encoder is None else {"encoder_training": section("encoder")}
    return {
        **trained,
        "seed": job.seed,
        "weights": revision,
        "tokenizer": _digest(tokenizer),
        "encoder": None if setup.encoder is None else setup.encoder["digest"],
        "llm": section("llm"),
        "scene": section("scene"),
        "chat": section("chat"),
        "zero": job.zero.identity,
        "optim": asdict(optim_of(job, stage, TRAINING)),
        "data": {key: getattr(stage.data, key) for key in ("lanes", "window_row_groups")},
        "global_batch_size": stage.global_batch_size,
        "micro_batch_size": stage.micro_batch_size,
        "epochs": stage.epochs,
        "steps": in_steps(stage, TRAINING, 0)[0],
    }
