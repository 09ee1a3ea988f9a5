"""The text tower of a head: any text model of transformers, or the text half of a CLIP-family teacher.

Legend: n texts, T tokens, D width of a word.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from poma3d.heads.config import TextConfig
from poma3d.pretrained.folder import TOKENIZER, check_parts, hub_commit, weights_revision
from poma3d.pretrained.loading import load_transformers, reported

SECTION = "text"
NEEDED = (TOKENIZER,)
UNLIMITED = 1_000_000
"""transformers gives tokenizers without a limit a huge one."""


class TextTower(nn.Module):
    """Token ids -> a feature for each token."""

    def __init__(self, model: nn.Module, train: bool, dropout: bool) -> None:
        super().__init__()
        self.model = model
        self.trained, self.dropout = train, dropout
        theirs: Any = model.config
        self.width, self.vocabulary = int(theirs.hidden_size), int(theirs.vocab_size)
        model.requires_grad_(train)
        if train:
            freeze_unused(model)
        self.train(self.training)

    def train(self, mode: bool = True) -> TextTower:
        """A tower without dropout stays in evaluation mode."""
        super().train(mode)
        self.model.train(mode and self.trained and self.dropout)
        return self

    def forward(self, tokens_nT: Tensor, valid_nT: Tensor) -> Tensor:
        """[n, T, D]; `valid` says which tokens are words."""
        with torch.set_grad_enabled(self.trained and torch.is_grad_enabled()):
            output = self.model(input_ids=tokens_nT, attention_mask=valid_nT.long())
        features: Tensor = output.last_hidden_state
        return features


def freeze_unused(model: nn.Module) -> None:
    """Freeze parameters that word features do not depend on, such as a pooler's: the optimizer would decay
    them for nothing, and ranks would wait for gradients that never come."""
    was, found = model.training, {}
    model.eval()
    ids = torch.zeros(1, 2, dtype=torch.long)
    with torch.enable_grad():
        output: Any = model(input_ids=ids, attention_mask=torch.ones_like(ids))
        output.last_hidden_state.square().sum().backward()
    for name, p in model.named_parameters():
        found[name] = p.grad is not None
        p.grad = None
        p.requires_grad_(found[name])
    model.train(was)


def revision_of(config: TextConfig) -> str:
    """The revision of a tower's folder, or the pinned commit of a hub id. Loads nothing.

    Raises:
        UnusableModel: nothing to load, or a hub id that is not pinned.
    """
    return weights_revision(config.source, config.revision, SECTION, NEEDED)


def config_of(config: TextConfig) -> Any:
    """Their configuration of the model that is named.

    Raises:
        UnusableModel: it cannot be read.
    """
    from transformers import AutoConfig

    with reported(config.source, SECTION):
        return AutoConfig.from_pretrained(config.source, **_where(config))


def load_tower(config: TextConfig) -> TextTower:
    """Load a tower, in float32.

    Raises:
        UnusableModel: it cannot be loaded whole; one line with the likely cause.
    """
    from transformers import AutoModel

    where = _where(config)
    theirs = config_of(config)
    model: Any = load_transformers(AutoModel, config.source, SECTION, config.allow_tensors, **where)
    return TextTower(_text_half(model, theirs), config.train, config.dropout)


def outline_tower(config: TextConfig, theirs: Any) -> TextTower:
    """The tower of `load_tower` without its weights, on torch's meta device. Of a trained one all parameters
    are, also those that word features do not depend on.

    Args:
        theirs: configuration of the model, of transformers.

    Raises:
        UnusableModel: its class is not known.
    """
    from transformers import AutoModel

    with torch.device("meta"), reported(config.source, SECTION):
        model = AutoModel.from_config(theirs, trust_remote_code=config.trust_remote_code)
    tower = TextTower(_text_half(model, theirs), train=False, dropout=config.dropout)
    tower.trained = config.train
    tower.model.requires_grad_(config.train)
    return tower


class Words:
    """Texts -> token ids, by the tower's own tokenizer."""

    def __init__(self, config: TextConfig) -> None:
        """Raise UnusableModel for a tower without tokenizer."""
        from transformers import AutoTokenizer

        where = _where(config)
        if not Path(config.source).is_dir():
            check_parts(config.source, where["revision"], SECTION, NEEDED)
        with reported(config.source, SECTION):
            self._tokenizer = AutoTokenizer.from_pretrained(config.source, **where)
        of_tokenizer = self._tokenizer.model_max_length or UNLIMITED
        self.limit = min(config.max_tokens, positions_of(config_of(config)), of_tokenizer)

    def encode(self, texts: Sequence[str]) -> tuple[list[tuple[int, ...]], int]:
        """Token ids of each text with the tokenizer's own marks, and how many texts were cut."""
        if not texts:
            return [], 0
        found = self._tokenizer(list(texts), verbose=False)["input_ids"]
        long = [at for at, ids in enumerate(found) if len(ids) > self.limit]
        if long:
            cut = self._tokenizer([texts[at] for at in long], truncation=True, max_length=self.limit)
            for at, ids in zip(long, cut["input_ids"], strict=True):
                found[at] = ids
        return [tuple(ids) for ids in found], len(long)

    def unknown(self, tokens: Sequence[int]) -> int:
        """How many of the tokens stand for words that the tower has none for. Always 0 for a tokenizer that
        cuts any word into pieces: CLIP's has its end as the mark of the unknown."""
        theirs = self._tokenizer
        mark = theirs.unk_token_id
        if mark in (theirs.bos_token_id, theirs.eos_token_id, theirs.pad_token_id):
            return 0
        return sum(token == mark for token in tokens)


def _text_half(model: Any, theirs: Any) -> nn.Module:
    """The part of a model that reads text."""
    if hasattr(theirs, "text_config"):
        model = model.text_model
    elif getattr(theirs, "is_encoder_decoder", False):
        model = model.get_encoder()
    found: nn.Module = model
    return found


def positions_of(theirs: Any) -> int:
    """The longest text that a model of this configuration has positions for."""
    text = theirs.get_text_config()
    positions = getattr(text, "max_position_embeddings", None) or UNLIMITED
    if "roberta" in str(text.model_type):  # positions count from the padding's number on
        positions -= int(text.pad_token_id) + 1
    return int(min(positions, UNLIMITED))


def _where(config: TextConfig) -> dict[str, Any]:
    commit = hub_commit(config.source, config.revision)
    return {"revision": commit, "trust_remote_code": config.trust_remote_code}
