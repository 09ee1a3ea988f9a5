"""A causal language model of transformers, by name or with new weights, and what of it is trained.

Whatever class it is, three of its parts are used: the embedding of token ids, the blocks (`get_decoder`), the
head that scores the next token. Image towers of vision-language classes are dropped.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from poma3d.llm.chat import SECTION
from poma3d.llm.config import CAUSAL, FULL, LORA, AdapterConfig, LlmConfig, NewModelConfig
from poma3d.pretrained.folder import TOKENIZER, UnusableModel, hub_commit, listed, weights_revision
from poma3d.pretrained.loading import load_transformers, reported

NEEDED = (TOKENIZER,)
IGNORED = -100
"""Label of a place that transformers leaves out of the loss."""
ATTENTION = "sdpa"
"""Of the implementations in transformers the one that takes the masks of packed rows, on any device."""


def revision_of(config: LlmConfig) -> str:
    """A hash of the weights of a folder, or the pinned commit of a hub id. Loads nothing.

    Raises:
        UnusableModel: nothing to load, or a hub id that is not pinned.
    """
    return weights_revision(config.source, config.revision, SECTION, NEEDED)


def load_llm(
    config: LlmConfig, vocabulary: int | None, seed: int, dtype: torch.dtype = torch.float32
) -> nn.Module:
    """The model, with adapters where it is tuned by them; `requires_grad` says what is trained.

    Args:
        vocabulary: tokens of a model with new weights.
        seed: of new weights.
        dtype: of weights that are not trained; the others are in float32.

    Raises:
        UnusableModel: it cannot be loaded whole, or has no layer of a name that is to be adapted.
    """
    with _seeded(seed):
        if config.new is not None:
            assert vocabulary is not None
            return prepared(_new(config.new, vocabulary), config)
        return prepared(_loaded(config, torch.float32 if config.tune == FULL else dtype), config)


def outline_llm(config: LlmConfig, theirs: Any, vocabulary: int | None) -> nn.Module:
    """The model of `load_llm` without its weights, on torch's meta device; its blocks are not recomputed.

    Args:
        theirs: configuration of `config_of`; None of a model with new weights.
        vocabulary: tokens of a model with new weights.

    Raises:
        UnusableModel: its class is not known, or it has no layer of a name that is to be adapted.
    """
    plain = replace(config, gradient_checkpointing=False)
    with torch.device("meta"):
        if config.new is not None:
            assert vocabulary is not None
            return prepared(_new(config.new, vocabulary), plain)
        with reported(config.source, SECTION):
            made: nn.Module = _class(config).from_config(
                theirs, trust_remote_code=config.trust_remote_code, attn_implementation=ATTENTION
            )
        return prepared(made, plain)


def config_of(config: LlmConfig) -> Any:
    """Their configuration of the model that is named.

    Raises:
        UnusableModel: it cannot be read.
    """
    from transformers import AutoConfig

    with reported(config.source, SECTION):
        return AutoConfig.from_pretrained(
            config.source,
            revision=hub_commit(config.source, config.revision),
            trust_remote_code=config.trust_remote_code,
        )


def blocks_of(llm: nn.Module) -> list[nn.Module]:
    """The blocks that `llm.gradient_checkpointing` computes again."""
    from transformers.modeling_layers import GradientCheckpointingLayer

    return [each for each in decoder_of(llm).modules() if isinstance(each, GradientCheckpointingLayer)]


def decoder_of(llm: nn.Module) -> nn.Module:
    """The blocks: token embeddings -> features."""
    found: nn.Module = llm.get_decoder()  # type: ignore[operator]
    return found


def width_of(llm: nn.Module) -> int:
    """Width of a token."""
    return int(llm.get_input_embeddings().weight.shape[1])  # type: ignore[operator]


def new_projector(width: int, hidden: int, out: int) -> nn.Sequential:
    """Scene tokens -> the width of the language model; new weights from torch's global generator."""
    return nn.Sequential(nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, out))


def longest_row(config: LlmConfig) -> int | None:
    """Positions that a model has; None where its config names none.

    Raises:
        UnusableModel: its config cannot be read.
    """
    if config.new is not None:
        return config.new.max_tokens
    found = getattr(config_of(config).get_text_config(), "max_position_embeddings", None)
    return None if found is None else int(found)


def _class(config: LlmConfig) -> Any:
    from transformers import AutoModelForCausalLM, AutoModelForImageTextToText

    return AutoModelForCausalLM if config.model == CAUSAL else AutoModelForImageTextToText


def _loaded(config: LlmConfig, dtype: torch.dtype) -> nn.Module:
    commit = hub_commit(config.source, config.revision)
    return load_transformers(
        _class(config), config.source, SECTION, config.allow_tensors, dtype, revision=commit,
        trust_remote_code=config.trust_remote_code, attn_implementation=ATTENTION,
    )  # fmt: skip


def _new(config: NewModelConfig, vocabulary: int) -> nn.Module:
    from transformers import Qwen3Config, Qwen3ForCausalLM

    return Qwen3ForCausalLM(
        Qwen3Config(
            vocab_size=vocabulary,
            hidden_size=config.width,
            intermediate_size=config.mlp_width,
            num_hidden_layers=config.layers,
            num_attention_heads=config.heads,
            num_key_value_heads=config.heads,
            head_dim=config.width // config.heads,
            max_position_embeddings=config.max_tokens,
            tie_word_embeddings=True,
            attn_implementation=ATTENTION,
        )
    )


def prepared(model: nn.Module, config: LlmConfig) -> nn.Module:
    """Drop image towers, freeze what is not trained, add adapters; new ones draw from torch's global
    generator."""
    drop_towers(model)
    if config.tune != FULL:
        model.requires_grad_(False)
    if config.tune == LORA:
        _add_adapters(decoder_of(model), config.lora)
    if config.gradient_checkpointing:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # of a new name, which older versions lack
            model.gradient_checkpointing_enable({"use_reentrant": False})  # type: ignore[operator]
    return model


def drop_towers(model: nn.Module) -> None:
    """Drop what turns pictures into tokens."""
    base, decoder = getattr(model, "model", None), decoder_of(model)
    if isinstance(base, nn.Module) and base is not decoder:
        for name, child in list(base.named_children()):
            if child is not decoder:  # an image tower and its projector
                setattr(base, name, None)
        for name, _ in list(base.named_parameters(recurse=False)):
            setattr(base, name, None)


def _add_adapters(decoder: nn.Module, config: AdapterConfig) -> None:
    from peft import LoraConfig, inject_adapter_in_model

    there = sorted({n.split(".")[-1] for n, m in decoder.named_modules() if isinstance(m, nn.Linear)})
    unknown = sorted(set(config.targets) - set(there))
    if unknown:
        raise UnusableModel(f"llm.lora.targets: the model has no layer {listed(unknown)}; it has {there}")
    adapters = LoraConfig(
        r=config.rank, lora_alpha=config.alpha, lora_dropout=config.dropout, target_modules=config.targets
    )
    inject_adapter_in_model(adapters, decoder)  # freezes everything else
    for parameter in decoder.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


def frozen_names(model: nn.Module, prefix: str) -> Sequence[str]:
    """Names of the parameters below `prefix` that stay as they were loaded."""
    return [n for n, p in model.named_parameters() if n.startswith(prefix) and not p.requires_grad]
