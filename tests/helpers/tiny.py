"""Tiny models with random weights, for tests everywhere."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import (
    CLIPConfig,
    CLIPImageProcessor,
    CLIPModel,
    PreTrainedTokenizerFast,
    SiglipConfig,
    SiglipModel,
)

from poma3d.network.config import EncoderConfig, ModelConfig, PredictorConfig, TuningConfig
from poma3d.network.vit import ImageTower
from poma3d.pretrained.towers import image_tower
from poma3d.sample import SampleShape

IMAGE_SIZE, PATCH, WIDTH, JOINT, VOCABULARY = 48, 8, 32, 16, 64
TOKENS = (IMAGE_SIZE // PATCH) ** 2
TEXT_TOKENS = 16
PAD, START, END = 0, 1, 3
WORDS = ["<pad>", "<start>", "<unk>", "<end>", "a", "chair", "table", "red", "by", "the"]
_TEXT = {
    "hidden_size": 24, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2,
    "vocab_size": VOCABULARY, "max_position_embeddings": TEXT_TOKENS,
    "bos_token_id": START, "eos_token_id": END, "pad_token_id": PAD,
}  # fmt: skip
_VISION = {
    "hidden_size": WIDTH, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2,
    "image_size": IMAGE_SIZE, "patch_size": PATCH,
}  # fmt: skip


def clip_model(seed: int = 0) -> CLIPModel:
    """A CLIP whose weights are all away from their initial zeros and ones."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        config = CLIPConfig(text_config=dict(_TEXT), vision_config=dict(_VISION), projection_dim=JOINT)
        return _shaken(CLIPModel(config)).eval()


def siglip_model(seed: int = 0) -> SiglipModel:
    """A SigLIP, likewise; its joint space is as wide as its image tower."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        config = SiglipConfig(
            text_config={**_TEXT, "projection_size": WIDTH}, vision_config={**_VISION, "hidden_size": WIDTH}
        )
        return _shaken(SiglipModel(config)).eval()


def _tokenizer() -> PreTrainedTokenizerFast:
    words = Tokenizer(models.WordLevel({w: i for i, w in enumerate(WORDS)}, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    words.post_processor = processors.TemplateProcessing(
        single="<start> $A <end>", special_tokens=[("<start>", START), ("<end>", END)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=words, pad_token="<pad>", bos_token="<start>", eos_token="<end>", unk_token="<unk>",
        model_max_length=TEXT_TOKENS,
    )  # fmt: skip


def save_teacher(folder: Path, model: Any) -> Path:
    """The folder of a teacher whose tokenizer knows `WORDS`."""
    model.save_pretrained(folder)
    _tokenizer().save_pretrained(folder)
    CLIPImageProcessor(image_mean=[0.4] * 3, image_std=[0.3] * 3).save_pretrained(folder)
    return folder


def tower(kind: str = "clip") -> ImageTower:
    """The image tower of one of the two."""
    return image_tower(clip_model() if kind == "clip" else siglip_model())


def shape(views: int = 3, joint: int = JOINT) -> SampleShape:
    """Samples that fit the towers, with patch tokens."""
    return SampleShape(
        views, IMAGE_SIZE, IMAGE_SIZE, captions=3, scene_captions=2, embedding=joint,
        image_tokens=TOKENS, token_width=WIDTH,
    )  # fmt: skip


def model_config(mode: str = "full", dropout: float = 0.0) -> ModelConfig:
    """A model config of the towers' size."""
    return ModelConfig(
        encoder=EncoderConfig(tuning=TuningConfig(mode=mode, rank=4, alpha=8.0, dropout=dropout)),
        predictor=PredictorConfig(layers=2, width=16, heads=2),
    )


def _shaken(model: torch.nn.Module) -> torch.nn.Module:
    with torch.no_grad():
        for p in model.parameters():
            p.add_(torch.randn_like(p) * 0.05)
    return model
