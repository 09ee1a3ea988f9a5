"""Tiny language models that are handed on, and what our own code answers with them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from jobs.finetune.llm.answers import read_batch
from poma3d.auto.language.folder import Trained
from poma3d.export import Provenance, SceneEncoder
from poma3d.inputs import Batch, point_maps
from poma3d.llm.chat import Chat
from poma3d.llm.conversations import ConversationRow, encode, shape_of
from poma3d.llm.stage import ConversationStage
from poma3d.seen.scenes import WHOLE_SCENE
from tests.helpers.downstream import llm

MAX_TOKENS = 8
QUESTIONS = ("how many chairs are there?", "what is behind me?", "four")


def trained(stage: ConversationStage, kind: str) -> Trained:
    """The parts of a stage; its weights are shared."""
    encoder = None
    if stage.encoder is not None:
        encoder = SceneEncoder(stage.encoder.vit, Provenance("tiny", run="/home/me/runs/rooms/main step 3"))
    chat = llm.chat(max_answer_tokens=MAX_TOKENS)
    origin = {"run": "rooms step 3"}
    return Trained(
        stage.llm, llm.MODEL_OF[kind], stage.projector, encoder, stage.seen.config, chat, "float32", origin
    )


def lively(stage: ConversationStage) -> ConversationStage:
    """The same with weights so large that the answers depend on scene, question and adapters; new ones repeat
    a token whatever they are asked."""
    g = torch.Generator().manual_seed(0)
    for name, parameter in stage.llm.named_parameters():
        if parameter.ndim == 2 and "embed_tokens" not in name:
            parameter.data = torch.randn(parameter.shape, generator=g) * (0.3 if "lora" in name else 0.5)
    for name, parameter in stage.named_parameters():
        if name.startswith("projector") and parameter.ndim == 2:
            parameter.data *= 4
    return stage.eval()


def published(stage: ConversationStage, kind: str) -> Any:
    """The whole model that a stage was tuned from, without its adapters."""
    made = llm.network(kind)
    own = {n.replace(".base_layer", ""): p for n, p in stage.llm.named_parameters() if "lora" not in n}
    assert not made.load_state_dict(own, strict=False).unexpected_keys
    return made


def points_of(stage: ConversationStage, scenes: Sequence[int]) -> torch.Tensor:
    """The point maps [B, V, H, W, 3] of scenes in memory, 0 in views that are not there."""
    assert stage.seen.scenes is not None
    found: Any = stage.seen.scenes.read(scenes)
    points = point_maps({name: torch.from_numpy(values) for name, values in found.items()})
    return points * torch.from_numpy(found["view_valid"].astype(bool))[:, :, None, None, None]


def batch_of(
    chat: Chat,
    questions: Sequence[str],
    scenes: Sequence[int],
    agents: Sequence[np.ndarray] | None = None,
    views: Sequence[int] | None = None,
    answers: Sequence[str] | None = None,
) -> Batch:
    """Questions as rows of a data set are read."""
    prompts, _ = chat.prompts(questions)
    learned = [(0,)] * len(prompts) if answers is None else chat.answers(answers)[0]
    rows = [
        ConversationRow(
            f"x/{scene}/{i}", str(scene), (prompt.ids,), prompt.scene_at, (learned[i],),
            WHOLE_SCENE if views is None else views[i],
            **({} if agents is None else {"agent": agents[i]}),
        )
        for i, (prompt, scene) in enumerate(zip(prompts, scenes, strict=True))
    ]  # fmt: skip
    numbers = {str(scene): scene for scene in scenes}
    return read_batch(encode(rows, numbers, shape_of(rows)))
