"""Texts -> token ids, in the words of the model's own chat template.

The template is rendered once with marks for scene, text and answer, and cut at them:

    before | scene | between  text  after | answer  end

so every conversation is the template's, and labels are the answer and its end alone.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from poma3d.llm.config import ChatConfig, LlmConfig, NewModelConfig
from poma3d.pretrained.folder import TOKENIZER, UnusableModel, check_parts, hub_commit
from poma3d.pretrained.loading import reported

SECTION = "llm"
SCENE_MARK, TEXT_MARK, ANSWER_MARK = "[[[scene]]]", "[[[text]]]", "[[[answer]]]"
PAD, END, USER, ASSISTANT, SYSTEM = "<|pad|>", "<|end|>", "<|user|>", "<|assistant|>", "<|system|>"
TEMPLATE = (
    "{% for m in messages %}{{ '<|' + m['role'] + '|>' + m['content'] + '" + END + "' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '" + ASSISTANT + "' }}{% endif %}"
)
"""Of a tokenizer that is trained here."""


@dataclass(frozen=True)
class Prompt:
    """What a model is asked, without the scene."""

    ids: tuple[int, ...]
    scene_at: int
    """Before which of the ids the scene stands."""


class Chat:
    """A tokenizer with its template.

    Raises:
        UnusableModel: it has no template, or one that does not take a question and an answer.
    """

    def __init__(self, tokenizer: Any, config: ChatConfig) -> None:
        self._tokenizer, self._config = tokenizer, config
        if not getattr(tokenizer, "chat_template", None):
            raise UnusableModel(
                "the tokenizer of llm.source has no chat template: give a model that was tuned to chat"
            )
        asked = self._rendered([], prompt=True)
        whole = self._rendered([{"role": "assistant", "content": ANSWER_MARK}], prompt=False)
        self._before, rest = asked.split(SCENE_MARK, 1)
        self._between, self._after = rest.split(TEXT_MARK, 1)
        own_end = tokenizer.eos_token or ""
        if ANSWER_MARK not in whole:
            raise UnusableModel("the chat template of llm.source drops the answer")
        end = whole.split(ANSWER_MARK, 1)[1]
        self._end = end.strip() or own_end
        if not self._end:
            raise UnusableModel("neither chat template nor tokenizer of llm.source says how an answer ends")
        self._before_ids = self._encode([self._before])[0]
        marks = {*tokenizer.all_special_tokens, *tokenizer.get_added_vocab(), SCENE_MARK, TEXT_MARK}
        self._marks = sorted(marks, key=len, reverse=True)
        self.end_ids = tuple(self._encode([self._end])[0])
        self.stop_ids = tuple(
            sorted({self.end_ids[-1], *([] if tokenizer.eos_token_id is None else [tokenizer.eos_token_id])})
        )

    @property
    def tokenizer(self) -> Any:
        """The tokenizer of transformers, with its template."""
        return self._tokenizer

    @property
    def config(self) -> ChatConfig:
        """The settings."""
        return self._config

    @property
    def vocabulary(self) -> int:
        """How many token ids there are."""
        return len(self._tokenizer)

    @property
    def identity(self) -> list[str]:
        """What decides the ids beside the tokenizer's own files."""
        return [self._before, self._between, self._after, self._end]

    def prompts(self, texts: Sequence[str]) -> tuple[list[Prompt], int]:
        """The prompt of each text, and how many texts were cut: of those the beginning is gone."""
        cleaned = [self._clean(text) for text in texts]
        limit, cut = self._config.max_text_tokens, 0
        for i, ids in enumerate(self._encode(cleaned)):
            if len(ids) > limit:
                cleaned[i] = self._tokenizer.decode(ids[-limit:]).strip()
                cut += 1
        rest = self._encode([self._between + text + self._after for text in cleaned])
        at = len(self._before_ids)
        return [Prompt((*self._before_ids, *ids), at) for ids in rest], cut

    def answers(self, texts: Sequence[str]) -> tuple[list[tuple[int, ...]], int]:
        """Each answer with its end, and how many were cut: those have no end."""
        limit, found, cut = self._config.max_answer_tokens, [], 0
        for ids in self._encode([self._clean(text) for text in texts]):
            if len(ids) > limit:
                found.append(tuple(ids[:limit]))
                cut += 1
            else:
                found.append((*ids, *self.end_ids))
        return found, cut

    def read(self, ids: Sequence[int]) -> str:
        """The text of generated ids, up to the first end."""
        kept: list[int] = []
        for token in ids:
            if token in self.stop_ids:
                break
            kept.append(token)
        text: str = self._tokenizer.decode(kept, skip_special_tokens=True)
        return text.strip()

    def streamer(self, write: Callable[[str], None]) -> Any:
        """What `generate` gives tokens to as they are made; `write` gets their text, in pieces."""
        from transformers import TextStreamer

        class Pieces(TextStreamer):
            def on_finalized_text(self, text: str, stream_end: bool = False) -> None:
                write(text)

        return Pieces(self._tokenizer, skip_prompt=True, skip_special_tokens=True)

    def _clean(self, text: str) -> str:
        """Without what the tokenizer would take for its own marks."""
        for mark in self._marks:
            text = text.replace(mark, "")
        return text.strip()

    def _encode(self, texts: Sequence[str]) -> list[list[int]]:
        if not texts:
            return []
        found: list[list[int]] = self._tokenizer(list(texts), add_special_tokens=False, verbose=False)[
            "input_ids"
        ]
        return found

    def _rendered(self, said: list[dict[str, Any]], prompt: bool) -> str:
        """The template's text; some take contents as texts, some as lists of parts."""
        text = f"{SCENE_MARK}\n{TEXT_MARK}"
        system = [] if self._config.system is None else [{"role": "system", "content": self._config.system}]
        messages = [*system, {"role": "user", "content": text}, *said]
        in_parts = [{**m, "content": [{"type": "text", "text": m["content"]}]} for m in messages]
        for each in (messages, in_parts):
            with reported("chat template", SECTION):
                found: str = self._tokenizer.apply_chat_template(
                    each, tokenize=False, add_generation_prompt=prompt,
                    enable_thinking=self._config.thinking,
                )  # fmt: skip
            if text in found:
                return found
        raise UnusableModel("the chat template of llm.source drops the question")


def load_chat(llm: LlmConfig, config: ChatConfig) -> Chat:
    """The chat of a model that is there.

    Raises:
        UnusableModel: it has no tokenizer or no template.
    """
    from transformers import AutoTokenizer

    commit = hub_commit(llm.source, llm.revision)
    if not Path(llm.source).is_dir():
        check_parts(llm.source, commit, SECTION, (TOKENIZER,))
    with reported(llm.source, SECTION):
        tokenizer = AutoTokenizer.from_pretrained(
            llm.source, revision=commit, trust_remote_code=llm.trust_remote_code
        )
    return Chat(tokenizer, config)


def train_tokenizer(texts: Sequence[str], config: NewModelConfig) -> str:
    """A tokenizer of pieces of bytes for these texts, as the content of a tokenizer.json: the same for the
    same texts in any order."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=config.vocabulary,
        special_tokens=[PAD, END, USER, ASSISTANT, SYSTEM],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(sorted(set(texts)), trainer)
    return json.dumps(json.loads(tokenizer.to_str()), ensure_ascii=False)


def trained_chat(content: str, config: ChatConfig) -> Chat:
    """The chat of a tokenizer of `train_tokenizer`."""
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(content), pad_token=PAD, eos_token=END
    )
    tokenizer.chat_template = TEMPLATE
    return Chat(tokenizer, config)
