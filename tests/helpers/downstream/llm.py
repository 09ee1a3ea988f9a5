"""Tiny language models of real classes, and stages that train them on scenes in memory."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import (
    LlavaOnevisionConfig,
    LlavaOnevisionForConditionalGeneration,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen3Config,
    Qwen3ForCausalLM,
    Qwen3VLConfig,
    Qwen3VLForConditionalGeneration,
    SiglipVisionConfig,
)

from poma3d.llm.chat import END, PAD, TEMPLATE, Chat, train_tokenizer
from poma3d.llm.config import (
    CAUSAL,
    FULL,
    LORA,
    VISION_LANGUAGE,
    AdapterConfig,
    ChatConfig,
    LlmConfig,
    LlmSceneConfig,
    NewModelConfig,
)
from poma3d.llm.conversations import ConversationShape
from poma3d.llm.model import load_llm
from poma3d.llm.stage import ConversationStage, Projection
from poma3d.network.encoder import PointMapEncoder
from poma3d.seen.scenes import SeenScenes
from tests.helpers import tiny
from tests.helpers.downstream.scenes import MemoryPoints

SHAPE = ConversationShape(prompts=2, prompt_tokens=5, answers=2, answer_tokens=3)
VOCABULARY = 300
QWEN3, QWEN3_VL, ONEVISION = "qwen3", "qwen3_vl", "llava_onevision"
MODEL_OF = {QWEN3: CAUSAL, QWEN3_VL: VISION_LANGUAGE, ONEVISION: VISION_LANGUAGE}
LIST_TEMPLATE = (
    "{% for m in messages %}{{ '<|' + m['role'] + '|>' }}"
    "{% for c in m['content'] | selectattr('type', 'equalto', 'text') %}{{ c['text'] }}{% endfor %}"
    "{{ '<|end|>' }}\n{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)
"""A template that takes contents as lists of parts, as LLaVA-OneVision's."""


def network(kind: str, seed: int = 0) -> Any:
    """Two layers of width 32 of a real class."""
    text = {
        "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
        "intermediate_size": 48, "vocab_size": VOCABULARY, "max_position_embeddings": 512,
    }  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if kind == QWEN3:
            return Qwen3ForCausalLM(Qwen3Config(**text, head_dim=8, tie_word_embeddings=True))
        if kind == QWEN3_VL:
            rope = {"rope_type": "default", "mrope_section": [2, 1, 1], "rope_theta": 10000.0}
            vision = {
                "depth": 1, "hidden_size": 16, "num_heads": 2, "intermediate_size": 32,
                "out_hidden_size": 32, "deepstack_visual_indexes": [0], "patch_size": 4,
                "num_position_embeddings": 16,
            }  # fmt: skip
            of_text = {**text, "head_dim": 8, "rope_parameters": rope}
            return Qwen3VLForConditionalGeneration(Qwen3VLConfig(text_config=of_text, vision_config=vision))
        tower = SiglipVisionConfig(
            hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32, image_size=16,
            patch_size=8,
        )  # fmt: skip
        return LlavaOnevisionForConditionalGeneration(
            LlavaOnevisionConfig(text_config=Qwen2Config(**text), vision_config=tower)
        )


def tokenizer(template: str = TEMPLATE) -> PreTrainedTokenizerFast:
    """Pieces of bytes, as a tokenizer of transformers."""
    content = train_tokenizer(
        ["how many chairs are there?", "four", "what is behind me?"], NewModelConfig(VOCABULARY)
    )
    from tokenizers import Tokenizer

    made = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(json.dumps(json.loads(content))), pad_token=PAD, eos_token=END
    )
    made.chat_template = template
    return made


def write_model(folder: Path, kind: str) -> Path:
    """A saved model with its tokenizer."""
    network(kind).save_pretrained(folder)
    tokenizer(TEMPLATE if kind == QWEN3 else LIST_TEMPLATE).save_pretrained(folder)
    return folder


def chat(**changes: Any) -> Chat:
    """Of the tiny tokenizer."""
    return Chat(tokenizer(), ChatConfig(**changes))


def seen(tokens: str = "voxels", trained: bool = False, scenes: int = 3, **changes: Any) -> SeenScenes:
    """Scenes in memory, with features or with an encoder that is trained."""
    tower = tiny.tower()
    patches = tower.shape.patches
    encoder = PointMapEncoder(tower.build()) if trained else None
    if encoder is not None and tokens != "views":
        encoder.vit.head.requires_grad_(False)
        encoder.vit.norm.requires_grad_(False)
    store = MemoryPoints(scenes, patches, 0 if trained else 12)
    width = 12 if not trained else tiny.JOINT if tokens == "views" else tower.shape.width
    shape = store.inner.shape
    config = LlmSceneConfig(tokens=tokens, cell_m=0.5, max_voxels=6, **changes)
    return SeenScenes(
        config, store, shape.views, width, patches, encoder, shape if trained else None,
        encoder_lr_scale=0.5,
    )  # fmt: skip


def stage(
    kind: str = QWEN3, tune: str = LORA, tokens: str = "voxels", trained: bool = False, loss: str = "tokens",
    dropout: float = 0.0, checkpointing: bool = False, **chat_changes: Any,
) -> ConversationStage:  # fmt: skip
    """A tiny stage of a real class."""
    from poma3d.llm import model

    config = LlmConfig(
        "x", tune=tune, lora=AdapterConfig(rank=2, alpha=4.0, dropout=dropout), loss=loss,
        gradient_checkpointing=checkpointing,
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        made = model.prepared(network(kind), config)
    for name, parameter in made.named_parameters():
        if "lora_B" in name:  # zero at first: dropout would have no effect
            torch.nn.init.constant_(parameter, 0.01)
    return ConversationStage(
        made,
        ChatConfig(**chat_changes),
        seen(tokens, trained),
        SHAPE,
        seed=3,
        loss=loss,
        projection=Projection(lr_scale=2.0),
    )


def new_model(seed: int = 0) -> nn.Module:
    """A small model with new weights."""
    config = NewModelConfig(VOCABULARY, width=16, layers=1, heads=2, mlp_width=24, max_tokens=128)
    return load_llm(LlmConfig(new=config, tune=FULL), VOCABULARY, seed)
