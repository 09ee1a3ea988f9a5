"""Answers of a language model to a batch of conversations: the most likely token after the other.

`ask` gives what any way of generating starts from: `inputs_embeds` and `attention_mask` of prompts that end
together. `generate` is transformers' own.

Legend: n conversations, L places of the longest prompt, W width of the language model.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from poma3d.inputs import Batch
from poma3d.llm.layout import PREFIX, ending_together
from poma3d.llm.stage import ConversationStage


class Asked(NamedTuple):
    """Prompts with their scenes, padded in front."""

    inputs_embeds: Tensor
    """[n, L, W]."""
    attention_mask: Tensor
    """int64 [n, L], 0 where nothing stands."""


@torch.no_grad()
def ask(stage: ConversationStage, batch: Batch) -> Asked:
    """What the language model is given of conversations whose answers are to be found.

    Args:
        stage: in evaluation mode: of several situations the first is asked. batch: columns of
        `poma3d.llm.conversations`, without regard to their answers, or what `stage.prepare_prompts`
            made of them; moved to the stage's device here.
    """
    prepared = stage.prepare_prompts(batch)
    device = next(stage.parameters()).device
    moved = {k: v.to(device) if isinstance(v, Tensor) else v for k, v in prepared.items()}
    embeds_nLW, mask_nL = stage.embeds(moved), (moved[f"{PREFIX}sample"] >= 0).long()
    return Asked(*ending_together(embeds_nLW, mask_nL))


@torch.no_grad()
def generate(
    stage: ConversationStage, asked: Asked, stop_ids: Sequence[int], max_tokens: int, streamer: Any = None
) -> list[list[int]]:
    """Token ids of the answer to each prompt, the end included where it came; greedy.

    Args:
        stop_ids: tokens that end an answer.
        max_tokens: longest answer.
        streamer: of transformers, of one prompt: gets tokens as they are made.
    """
    from transformers import GenerationConfig

    config = GenerationConfig(
        do_sample=False, max_new_tokens=max_tokens, eos_token_id=list(stop_ids), pad_token_id=stop_ids[0]
    )
    llm: Any = stage.llm
    found = llm.generate(
        inputs_embeds=asked.inputs_embeds, attention_mask=asked.attention_mask, generation_config=config,
        streamer=streamer,
    )  # fmt: skip
    ids: list[list[int]] = found.tolist()
    return ids
