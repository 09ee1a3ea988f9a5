"""A trained language model, opened from its run, and its answers to conversations about scenes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from jobs.common.devices import own_device
from jobs.common.run_layout import CONFIG_KEY, TRAINING
from jobs.finetune.llm.build import Setup, build_stage, load_weights
from jobs.finetune.llm.config import FinetuneLlmJob, SeenConfig
from jobs.finetune.llm.resolve import chat_of, scenes_of, set_up
from jobs.finetune.llm.rows import NO_ANSWER, tokenise
from plinth import config
from plinth.checkpoint import store
from plinth.errors import ConfigError, DataError
from plinth.storage import Storage, StorageOptions
from poma3d.inputs import Batch
from poma3d.llm.chat import Chat
from poma3d.llm.conversations import COLUMNS, Conversation, ConversationRow, encode, shape_of
from poma3d.llm.generate import ask, generate
from poma3d.llm.stage import ConversationStage
from poma3d.sample import decode
from poma3d.seen.config import NONE


@dataclass(frozen=True)
class LlmRun:
    """A run of a language model, ready to be asked about the scenes of a split."""

    storage: Storage
    job: FinetuneLlmJob
    step: int
    chat: Chat
    setup: Setup
    stage: ConversationStage
    """In evaluation mode, on the device of this process."""


def read_job(uri: str, options: StorageOptions) -> FinetuneLlmJob:
    """The job of a run.

    Raises:
        ConfigError: no run of a language model.
    """
    storage = Storage.from_uri(uri, options)
    storage.check()
    give = "Give output/name of a job of the kind finetune_llm."
    if not storage.exists(CONFIG_KEY):
        raise ConfigError(f"{storage.uri} is no run: it has no {CONFIG_KEY}.", give)
    origin = f"{storage.uri}/{CONFIG_KEY}"
    raw = config.parse(storage.read(CONFIG_KEY).decode(), origin)
    if raw.get("kind") != FinetuneLlmJob.kind:
        raise ConfigError(f"{storage.uri} is no run of a language model.", give)
    return config.build(FinetuneLlmJob, [(origin, raw)])


def is_language_model(uri: str, options: StorageOptions) -> bool:
    """Whether there is a run of a language model."""
    storage = Storage.from_uri(uri, options)
    if not storage.exists(CONFIG_KEY):
        return False
    return config.parse(storage.read(CONFIG_KEY).decode(), CONFIG_KEY).get("kind") == FinetuneLlmJob.kind


def open_run(
    uri: str,
    options: StorageOptions,
    seen: SeenConfig,
    key: str,
    step: int | None = None,
    only: str | None = None,
) -> LlmRun:
    """The model of a run with the weights of a checkpoint, and the scenes that it is to be asked about.

    Args:
        seen: the scenes; its conversations are not read.
        key: of `seen` where it is given, for messages.
        step: the newest checkpoint when None.
        only: the one scene that is asked about; any when None.

    Raises:
        ConfigError: no run of a language model, or its model is not where it was.
        CheckpointError: no such checkpoint.
        DataError: features of another encoder, or scenes of other sizes.
    """
    storage = Storage.from_uri(uri, options)
    job = replace(read_job(uri, options), storage=options)
    checkpoints = storage.child(TRAINING).child("checkpoints")
    state = store.read_state(checkpoints, step)
    setup = set_up(job, seen, scenes_of(job, seen, key), key, only)
    trained_on = state["notes"]["config"]["encoder"]
    if setup.encoder is not None and setup.encoder["digest"] != trained_on:
        raise DataError(
            f"{key}.features are of the encoder {setup.encoder['digest']}, {storage.uri} was trained on "
            f"those of {trained_on}.",
            "Run `poma features` with that encoder.",
        )
    chat = chat_of(job, storage)
    setup = replace(setup, vocabulary=chat.vocabulary if job.llm.new is not None else None)
    shape = shape_of([ConversationRow("", "", ((0,),), 0, NO_ANSWER)])
    stage = load_weights(build_stage(job, setup, shape), checkpoints, state["step"])
    return LlmRun(storage, job, state["step"], chat, setup, stage.to(own_device()))


def answers(
    run: LlmRun, asked: Sequence[Conversation], batch_size: int, max_tokens: int, streamer: Any = None
) -> Iterator[tuple[Conversation, str]]:
    """Each conversation with its answer, sorted by scene; greedy.

    Args:
        streamer: of `Chat.streamer`, of a single conversation.

    Raises:
        DataError: no conversation is about a scene that is there.
    """
    numbers = None if run.job.scene.tokens == NONE else run.setup.numbers.numbers
    tokenised = tokenise("asked", 1.0, asked, numbers, run.chat, "asked", with_answers=False)
    of_id = {each.sample_id: each for each in asked}
    of_rows = numbers or dict.fromkeys((row.scene_id for row in tokenised.rows), 0)
    for start in range(0, len(tokenised.rows), batch_size):
        rows = tokenised.rows[start : start + batch_size]
        batch = read_batch(encode(rows, of_rows, shape_of(rows)))
        yield from zip(
            [of_id[row.sample_id] for row in rows], said(run, batch, max_tokens, streamer), strict=True
        )


def read_batch(table: pa.Table) -> Batch:
    """Rows of `poma3d.llm.conversations` as a batch that may be written to."""
    arrays = decode(table, COLUMNS)
    return {name: torch.from_numpy(np.array(values)) for name, values in arrays.items()}


def said(run: LlmRun, batch: Batch, max_tokens: int, streamer: Any = None) -> list[str]:
    """The answer to each conversation of a batch of `poma3d.llm.conversations`; greedy."""
    found = generate(run.stage, ask(run.stage, batch), run.chat.stop_ids, max_tokens, streamer)
    return [run.chat.read(ids) for ids in found]
