"""A trained language model, opened from its run, and its answers to conversations about scenes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from jobs.common.devices import own_device
from jobs.common.run_layout import CONFIG_KEY, TRAINING
from jobs.finetune.llm.build import Setup, build_stage, load_weights
from jobs.finetune.llm.config import FinetuneLlmJob, SeenConfig
from jobs.finetune.llm.resolve import chat_of, scenes_of, set_up
from plinth import config
from plinth.checkpoint import store
from plinth.errors import ConfigError, DataError
from plinth.storage import Storage, StorageOptions
from poma3d.llm.chat import Chat
from poma3d.llm.config import NONE
from poma3d.llm.conversations import COLUMNS, Conversation, ConversationRow, encode, shape_of
from poma3d.llm.generate import ask, generate
from poma3d.llm.stage import ConversationStage
from poma3d.sample import decode

NO_ANSWER = ((0,),)
"""Of conversations whose answers are to be found: nothing reads it."""


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


def open_run(
    uri: str, options: StorageOptions, seen: SeenConfig, key: str, step: int | None = None
) -> LlmRun:
    """The model of a run with the weights of a checkpoint, and the scenes that it is to be asked about.

    Args:
        seen: the scenes; its conversations are not read.
        key: of `seen` where it is given, for messages.
        step: the newest checkpoint when None.

    Raises:
        ConfigError: no run of a language model, or its model is not where it was.
        CheckpointError: no such checkpoint.
        DataError: features of another encoder, or scenes of other sizes.
    """
    storage = Storage.from_uri(uri, options)
    job = replace(read_job(uri, options), storage=options)
    checkpoints = storage.child(TRAINING).child("checkpoints")
    state = store.read_state(checkpoints, step)
    setup = set_up(job, seen, scenes_of(job, seen, key), key)
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
    run: LlmRun, asked: Sequence[Conversation], batch_size: int, max_tokens: int
) -> Iterator[tuple[Conversation, str]]:
    """Each conversation with its answer, in their order; greedy.

    Raises:
        DataError: a conversation about a scene that is not there.
    """
    numbers = run.setup.numbers.numbers
    if run.job.scene.tokens == NONE:
        numbers = dict.fromkeys((each.scene_id for each in asked), 0)
    missing = [each.scene_id for each in asked if each.scene_id not in numbers]
    if missing:
        raise DataError(f"scene {missing[0]} is not there.", "Give the features or scenes of all questions.")
    for start in range(0, len(asked), batch_size):
        own = asked[start : start + batch_size]
        rows = _rows(run.chat, own)
        table = encode(rows, numbers, shape_of(rows))
        arrays = decode(table, COLUMNS)
        batch = {name: torch.from_numpy(np.array(values)) for name, values in arrays.items()}
        found = generate(run.stage, ask(run.stage, batch), run.chat.stop_ids, max_tokens)
        yield from zip(own, [run.chat.read(ids) for ids in found], strict=True)


def _rows(chat: Chat, asked: Sequence[Conversation]) -> list[ConversationRow]:
    """Prompts of the first situation of each."""
    prompts, _ = chat.prompts([each.texts[0] for each in asked])
    return [
        ConversationRow(
            each.sample_id, each.scene_id, (prompt.ids,), prompt.scene_at, NO_ANSWER, each.view,
            **({} if each.agent is None else {"agent": each.agent}),
        )
        for each, prompt in zip(asked, prompts, strict=True)
    ]  # fmt: skip
