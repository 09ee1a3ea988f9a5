"""Captions from a vision-language model: several for each view, and a summary of a scene's.

Any image-text-to-text model of transformers will do (InternVL, LLaVA, Qwen-VL and their like). Several
captions are drawn for every view, because a single answer is often vague; a teacher then keeps those that fit
the picture best (`keep_best`).

Legend: n pictures, h w their pixels, m captions, E the teacher's joint space.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from poma3d.pretrained.config import PLACE, CaptionerConfig
from poma3d.pretrained.folder import PREPROCESSOR, TOKENIZER, check_parts, hub_commit, weights_revision
from poma3d.pretrained.loading import load_transformers, reported

NEEDED = (TOKENIZER, PREPROCESSOR)
"""Parts that a captioner cannot do without."""


class Captioner:
    """A loaded model with its processor; `load_captioner` makes one.

    Args:
        model: of `AutoModelForImageTextToText`.
        processor: its `AutoProcessor`.
        revision: which weights it has.
    """

    def __init__(
        self, model: torch.nn.Module, processor: Any, config: CaptionerConfig, revision: str
    ) -> None:
        self.revision = revision
        self.batch_size = config.batch_size
        self._model: Any = model.eval().requires_grad_(False)
        self._processor = processor
        self._config = config
        tokenizer = getattr(processor, "tokenizer", processor)
        tokenizer.padding_side = "left"  # answers begin where the prompt ends: padding must not lie between
        if tokenizer.pad_token is None:
            tokenizer.pad_token = tokenizer.eos_token

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        return next(self._model.parameters()).device

    def describe(self, pictures: Sequence[np.ndarray], key: str) -> list[list[str]]:
        """Captions of each picture, each once; none where the model has no words for it.

        Args:
            pictures: uint8 [h, w, 3].
            key: names these pictures; with the seed, the source of their draws.

        Raises:
            ValueError: one picture alone does not fit into the device's memory.
        """
        said: list[list[str]] = [[] for _ in pictures]
        for number, prompt in enumerate(self._config.prompts):
            text, done = self._prompt(prompt, with_picture=True), 0
            while done < len(pictures):
                batch = list(pictures[done : done + self.batch_size])
                answers = self._within_memory([text] * len(batch), batch, (key, number, done))
                if answers is None:
                    continue
                for place, answer in enumerate(answers, start=done):
                    said[place] += answer
                done += len(batch)
        return [list(dict.fromkeys(captions)) for captions in said]

    def summarise(self, captions: Sequence[str], key: str) -> list[str]:
        """Captions of a scene from its views' captions.

        Args:
            key: names the scene; with the seed, the source of its draws.
        """
        prompt = self._config.summary_prompt.replace(PLACE, " ".join(dict.fromkeys(captions)))
        text = self._prompt(prompt, with_picture=False)
        config = self._config
        answers = self._generate([text], [], config.summaries, config.summary_max_new_tokens, (key, "scene"))
        return list(dict.fromkeys(answers[0]))

    def _within_memory(
        self, texts: list[str], pictures: list[np.ndarray], draw: tuple[object, ...]
    ) -> list[list[str]] | None:
        """Answers, or None where the batch was too large and the next one will be half of it."""
        try:
            return self._generate(texts, pictures, self._config.candidates, self._config.max_new_tokens, draw)
        except torch.OutOfMemoryError as error:
            if len(pictures) == 1:
                raise ValueError(
                    "captioner: one picture does not fit into the device's memory; lower "
                    "captioner.candidates, or give it a larger device"
                ) from error
            self.batch_size = len(pictures) // 2
            torch.cuda.empty_cache()  # does nothing where CUDA was never used
            return None

    @torch.inference_mode()
    def _generate(
        self, texts: list[str], pictures: list[np.ndarray], count: int, length: int, draw: tuple[object, ...]
    ) -> list[list[str]]:
        """`count` answers to each text."""
        given = {"images": pictures} if pictures else {}
        inputs = self._processor(text=texts, return_tensors="pt", padding=True, **given).to(self.device)
        inputs = {k: v.to(self._model.dtype) if torch.is_floating_point(v) else v for k, v in inputs.items()}
        draws: dict[str, Any] = {"do_sample": False}
        if self._config.temperature > 0:
            draws = {
                "do_sample": True, "temperature": self._config.temperature, "top_p": self._config.top_p,
                "num_return_sequences": count,
            }  # fmt: skip
        devices = [self.device] if self.device.type == "cuda" else []
        with torch.random.fork_rng(devices=devices):
            torch.manual_seed(_seed(self._config.seed, *draw))
            made = self._model.generate(**inputs, **draws, max_new_tokens=length)
        prompt = inputs["input_ids"]
        each = len(made) // len(texts)
        repeated = prompt.repeat_interleave(each, 0)
        # Models of one tower give the prompt back, models with an encoder of their own do not.
        if made.shape[1] >= prompt.shape[1] and torch.equal(made[:, : prompt.shape[1]], repeated):
            made = made[:, prompt.shape[1] :]
        answers = [_clean(text) for text in self._processor.batch_decode(made, skip_special_tokens=True)]
        return [[a for a in answers[i * each : (i + 1) * each] if a] for i in range(len(texts))]

    def _prompt(self, words: str, with_picture: bool) -> str:
        """A user's turn in the model's own form; the words alone for models that have none."""
        if not getattr(self._processor, "chat_template", None):
            return words
        content = [{"type": "image"}] if with_picture else []
        message = {"role": "user", "content": [*content, {"type": "text", "text": words}]}
        made: str = self._processor.apply_chat_template([message], add_generation_prompt=True, tokenize=False)
        return made


def keep_best(captions: Sequence[str], scores: np.ndarray, keep: int) -> list[str]:
    """The `keep` captions of the highest scores [m], the best first; of equals the earlier."""
    order = np.argsort(-scores.astype(np.float64), kind="stable")
    return [captions[i] for i in order[:keep].tolist()]


def load_captioner(config: CaptionerConfig, device: str | torch.device = "cpu") -> Captioner:
    """Load model and processor.

    Raises:
        ValueError: no such model, no safetensors weights, other weights than expected or not whole, no
            tokenizer or preprocessor, a class that is no image-text-to-text model, or remote code
            without a pinned revision.
    """
    from transformers import AutoModelForImageTextToText, AutoProcessor

    config.validate()
    source = config.source
    actual = weights_revision(source, config.revision, "captioner", NEEDED)
    commit = hub_commit(source, config.revision)
    where: dict[str, Any] = {"revision": commit, "trust_remote_code": config.trust_remote_code}
    with reported(source, "captioner"):
        if commit is not None:
            check_parts(source, commit, "captioner", NEEDED)
        processor = AutoProcessor.from_pretrained(source, **where)
    model = load_transformers(
        AutoModelForImageTextToText, source, "captioner", config.allow_tensors, getattr(torch, config.dtype),
        **where,
    )  # fmt: skip
    return Captioner(model.to(device), processor, config, actual)


def _seed(*parts: object) -> int:
    """31 bits that depend on the parts alone, in every process."""
    return int.from_bytes(hashlib.blake2b(repr(parts).encode(), digest_size=4).digest(), "little") >> 1


def _clean(text: str) -> str:
    """One line without quotes around it; nothing where there is no letter."""
    line = " ".join(text.split()).strip("\"'` ")
    return line if any(c.isalpha() for c in line) else ""
