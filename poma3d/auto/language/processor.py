"""What turns a scan and a question into tensors, as a processor of transformers.

Legend: n questions, B scenes, V views, H W of the encoder's grid, T tokens of the longest question.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from operator import index
from typing import Any

import torch
from torch import Tensor
from transformers import BatchFeature, ProcessorMixin

from poma3d.auto.processor import Poma3dProcessor
from poma3d.export.arrays import Array, as_tensor
from poma3d.export.fields import FORMAT_VERSION, OTHER_FORMAT
from poma3d.llm.chat import Chat
from poma3d.llm.config import ChatConfig
from poma3d.llm.model import IGNORED

CHAT_KEYS = ("system", "text_joiner", "thinking", "max_text_tokens", "max_answer_tokens")
"""Fields of `ChatConfig` that say what text a question becomes."""


class Poma3dLlmProcessor(ProcessorMixin):
    """A scan (as `Poma3dProcessor` takes it) and questions -> tensors of `Poma3dLlm`.

    Args:
        tokenizer: with its chat template.
        image_size: (H, W) of the encoder's grid; None where no scene is looked at.
        chat: fields of `ChatConfig`, `CHAT_KEYS`.
        format_version: of the folder.
    """

    def __init__(
        self,
        tokenizer: Any = None,
        image_size: Sequence[int] | None = None,
        chat: dict[str, Any] | None = None,
        format_version: int = FORMAT_VERSION,
        chat_template: str | None = None,
    ) -> None:
        if format_version != FORMAT_VERSION:
            raise ValueError(
                f"processor_config.json has format_version {format_version!r}, this package reads "
                f"{FORMAT_VERSION}: {OTHER_FORMAT}"
            )
        if chat is None or set(chat) != set(CHAT_KEYS):
            raise ValueError(
                f"processor_config.json: chat is {chat!r}, expected an object of {', '.join(CHAT_KEYS)}: "
                f"{OTHER_FORMAT}"
            )
        super().__init__(tokenizer, chat_template=chat_template or tokenizer.chat_template)
        self.image_size = None if image_size is None else list(image_size)
        self.chat = dict(chat)
        self.format_version = format_version

    def __call__(
        self,
        text: str | Sequence[str] | None = None,
        *scan: Any,
        situation: str | Sequence[str] = "",
        agent: Array | None = None,
        view: int | Sequence[int] | None = None,
        answer: str | Sequence[str] | None = None,
        **of_scan: Any,
    ) -> BatchFeature:
        """Questions about one scan, or each about its own.

        Args:
            text: a question, or n of them.
            scan: depth, intrinsics, poses; see `Poma3dProcessor.__call__`, as for `of_scan` (xyz, up, ...).
            situation: said before the question, for all of them or for each.
            agent: of points `xyz` that are z-up: float [3, 4] or [n, 3, 4], world -> agent (x ahead, y left,
                z up), in metres. Without it the scene is in its own frame.
            view: number of the one view that is asked about, or of each question's; the others of the scan
                say which way is up, and are not seen. Without it the whole scan is.
            answer: of each question, to learn from: it stands behind the question, with its end. One that
                is longer than in training is cut, and has no end.

        Returns:
            `input_ids` and `attention_mask` int64 [n, T], padded in front; `scene_at` int64 [n]; `point_maps`
            float32 [B, V, H, W, 3] and `rgb` where given; `agent` float32 [n, 3, 4]; with answers `labels`
            int64 [n, T], -100 where no answer stands.

        Raises:
            ValueError: no question, an empty one, answers to another number of questions, a scan that cannot
                be used, a view that it does not have, or an agent in a world that is turned.
        """
        given = list(text) if isinstance(text, Iterable) and not isinstance(text, str) else [text]
        texts = [each for each in given if isinstance(each, str)]
        if len(texts) != len(given):
            raise ValueError(
                "text is missing or no text: give the question first, then the scan, as in "
                'processor("how many chairs are there?", depth, intrinsics, poses)'
            )
        said = [situation] * len(texts) if isinstance(situation, str) else list(situation)
        if len(said) != len(texts):
            raise ValueError(f"{len(said)} situations for {len(texts)} questions: give one, or one for each")
        if not texts or not all(each.strip() for each in texts):
            raise ValueError("a question is empty: say what is asked")
        joined = [
            self.chat["text_joiner"].join(part for part in pair if part.strip())
            for pair in zip(said, texts, strict=True)
        ]
        prompts, _ = self._words.prompts(joined)
        learned = self._learned(answer, len(texts))
        longest = max(len(prompt.ids) + len(ids) for prompt, ids in zip(prompts, learned, strict=True))
        ids = torch.zeros(len(prompts), longest, dtype=torch.long)
        mask, labels = torch.zeros_like(ids), torch.full_like(ids, IGNORED)
        for i, (prompt, behind) in enumerate(zip(prompts, learned, strict=True)):
            row = torch.tensor((*prompt.ids, *behind))
            ids[i, longest - len(row) :] = row
            mask[i, longest - len(row) :] = 1
            labels[i, longest - len(behind) :] = row[len(prompt.ids) :]
        at = torch.tensor([prompt.scene_at for prompt in prompts])
        made: dict[str, Tensor] = {"input_ids": ids, "attention_mask": mask, "scene_at": at}
        if answer is not None:
            made["labels"] = labels
        return BatchFeature({**made, **self._scene(len(texts), scan, agent, view, of_scan)})

    def _learned(self, answer: str | Sequence[str] | None, n: int) -> list[tuple[int, ...]]:
        """The token ids of each answer with its end; none without answers."""
        if answer is None:
            return [()] * n
        given = [answer] if isinstance(answer, str) else list(answer)
        if len(given) != n or not all(isinstance(each, str) and each.strip() for each in given):
            raise ValueError(
                f"answer has {len(given)} texts for {n} questions: give each its own, none empty"
            )
        return self._words.answers(given)[0]

    def answers(self, ids: Tensor | Sequence[Sequence[int]]) -> list[str]:
        """The texts of generated ids, each up to its end."""
        words = self._words
        return [words.read(row) for row in (ids.tolist() if isinstance(ids, Tensor) else ids)]

    def _scene(
        self,
        n: int,
        scan: Sequence[Any],
        agent: Array | None,
        view: int | Sequence[int] | None,
        of_scan: dict[str, Any],
    ) -> dict[str, Tensor]:
        if self.image_size is None:
            if scan or of_scan or agent is not None or view is not None:
                raise ValueError("this model looks at no scene (scene.tokens is none): give questions alone")
            return {}
        made: dict[str, Tensor] = dict(Poma3dProcessor(self.image_size)(*scan, **of_scan))
        if len(made["point_maps"]) not in (1, n):
            raise ValueError(f"{len(made['point_maps'])} scenes for {n} questions: give one, or one for each")
        if view is not None:
            made = _of_views(made, n, view)
        if agent is None:
            return made
        if of_scan.get("xyz") is None or of_scan.get("up") is not None:
            raise ValueError("agent is in a world that is turned z-up here: give z-up points xyz, without up")
        poses = as_tensor("agent", agent).float()
        if poses.shape not in ((3, 4), (n, 3, 4)):
            raise ValueError(f"agent is {list(poses.shape)}, expected [3, 4] or [{n}, 3, 4]")
        return made | {"agent": poses.expand(n, 3, 4)}

    @property
    def _words(self) -> Chat:
        return Chat(self.tokenizer, ChatConfig(**self.chat))

    @property
    def model_input_names(self) -> list[str]:
        """What it returns."""
        return ["input_ids", "attention_mask", "scene_at", "point_maps", "rgb", "agent", "labels"]


def _of_views(scans: Mapping[str, Tensor], n: int, view: int | Sequence[int]) -> dict[str, Tensor]:
    """Of tensors [B, V, ...] one view each, [B or n, 1, ...].

    Raises:
        ValueError: another number of views than of questions, one that is not there, or one without points.
    """
    views = [index(one) for one in view] if isinstance(view, Iterable) else [index(view)]
    scenes, there = scans["point_maps"].shape[:2]
    if len(views) not in (1, n):
        raise ValueError(f"{len(views)} views for {n} questions: give one, or one for each")
    for one in views:
        if not 0 <= one < there:
            raise ValueError(f"view is {one}, the scan has the views 0 to {there - 1}")
    rows = max(scenes, len(views))
    of_scene = torch.arange(rows) if scenes == rows else torch.zeros(rows, dtype=torch.long)
    of_view = torch.tensor(views if len(views) == rows else views * rows)
    made = {name: tensor[of_scene, of_view][:, None] for name, tensor in scans.items()}
    empty = (made["point_maps"] == 0).flatten(1).all(dim=1)
    if empty.any():
        raise ValueError(f"view {int(of_view[empty][0])} holds no point: ask about another")
    return made
