"""A tiny LLaVA of the real classes with random weights, saved as a folder that a caption job can name."""

from __future__ import annotations

from pathlib import Path

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    CLIPImageProcessor,
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    PreTrainedTokenizerFast,
)

SIDE, PATCH = 32, 8
PAD, START, END, UNKNOWN, IMAGE = "<pad>", "<s>", "</s>", "<unk>", "<image>"
WORDS = (
    "a",
    "the",
    "of",
    "room",
    "chair",
    "table",
    "with",
    "and",
    "small",
    "large",
    "red",
    "blue",
    "floor",
    "wall",
)
TEMPLATE = (
    "{% for message in messages %}{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<image> {% else %}{{ part['text'] }} {% endif %}"
    "{% endfor %}{% endfor %}"
)
_TOWER = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}


def save_captioner(folder: Path, seed: int = 0) -> None:
    """Write config.json, model.safetensors, and the processor's files."""
    vocabulary = {word: i for i, word in enumerate([PAD, START, END, UNKNOWN, IMAGE, *WORDS])}
    words = Tokenizer(models.WordLevel(vocabulary, unk_token=UNKNOWN))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=words, bos_token=START, eos_token=END, unk_token=UNKNOWN, pad_token=PAD,
        additional_special_tokens=[IMAGE],
    )  # fmt: skip
    pictures = CLIPImageProcessor(size={"shortest_edge": SIDE}, crop_size={"height": SIDE, "width": SIDE})
    processor = LlavaProcessor(
        image_processor=pictures, tokenizer=tokenizer, patch_size=PATCH, num_additional_image_tokens=1,
        vision_feature_select_strategy="default", chat_template=TEMPLATE, image_token=IMAGE,
    )  # fmt: skip
    config = LlavaConfig(
        vision_config=CLIPVisionConfig(**_TOWER, image_size=SIDE, patch_size=PATCH, projection_dim=16),
        text_config=LlamaConfig(
            **_TOWER, num_key_value_heads=2, vocab_size=len(vocabulary), max_position_embeddings=512,
            bos_token_id=vocabulary[START], eos_token_id=vocabulary[END], pad_token_id=vocabulary[PAD],
        ),
        image_token_index=vocabulary[IMAGE],
        vision_feature_layer=-1,
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = LlavaForConditionalGeneration(config)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
