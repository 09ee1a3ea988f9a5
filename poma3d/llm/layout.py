"""Where the tokens of a micro-batch stand: text and scene in rows, what is learned, who sees whom.

    one a row     | text  scene scene  text  answer . . |          padded to the longest of the micro-batch
    packed        | text scene text answer | text scene text answer | . . |          rows of a fixed length

All of it is decided on the host by the lengths alone. A position predicts the token after it, so the labels
of an answer stand one place before its tokens.

Legend: R rows, L places of a row, n samples, Q places of scene tokens, K places with a label.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

PREFIX = "layout/"


@dataclass(frozen=True)
class Text:
    """The token ids of a sample."""

    prompt: np.ndarray
    """int [T], without the scene."""
    scene_at: int
    """Before which of them the scene stands."""
    scene: int
    """How many scene tokens there are."""
    answer: np.ndarray
    """int [A]; empty where it is to be found."""

    @property
    def length(self) -> int:
        """Places that it takes."""
        return len(self.prompt) + self.scene + len(self.answer)


def lay_out(texts: Sequence[Text], scene_stride: int, row_tokens: int | None = None) -> dict[str, Tensor]:
    """The layout of a micro-batch, by name:

        layout/ids           int64 [R, L]   token ids; 0 where the scene or nothing stands
        layout/positions     int64 [R, L]   from 0 in each sample
        layout/sample        int64 [R, L]   whose place it is, -1 nobody's
        layout/scene_at      int64 [Q]      places of scene tokens in the flattened rows
        layout/scene_from    int64 [Q]      which of the flattened [n, scene_stride] tokens stands there
        layout/label_at      int64 [K]      places whose next token is learned
        layout/labels        int64 [K]      these tokens
        layout/label_sample  int64 [K]      whose they are

    Args:
        scene_stride: scene tokens of the sample that has most.
        row_tokens: pack samples in rows of this length; else each has a row.

    Raises:
        ValueError: a sample is longer than `row_tokens`.
    """
    rows = [[i] for i in range(len(texts))] if row_tokens is None else _packed(texts, row_tokens)
    length = row_tokens or max(text.length for text in texts)
    ids = np.zeros((len(rows), length), np.int64)
    positions, sample = np.zeros_like(ids), np.full_like(ids, -1)
    scene_at, scene_from, label_at, labels, label_sample = ([] for _ in range(5))
    for r, members in enumerate(rows):
        start = 0
        for i in members:
            text = texts[i]
            end, scene = start + text.length, start + text.scene_at
            after, answer = scene + text.scene, end - len(text.answer)
            ids[r, start:scene] = text.prompt[: text.scene_at]
            ids[r, after:answer] = text.prompt[text.scene_at :]
            ids[r, answer:end] = text.answer
            positions[r, start:end] = np.arange(text.length)
            sample[r, start:end] = i
            scene_at.append(r * length + np.arange(scene, after))
            scene_from.append(i * scene_stride + np.arange(text.scene))
            label_at.append(r * length + np.arange(answer, end) - 1)
            labels.append(np.asarray(text.answer, np.int64))
            label_sample.append(np.full(len(text.answer), i, np.int64))
            start = end
    made = {"ids": ids, "positions": positions, "sample": sample}
    joined = {
        "scene_at": scene_at, "scene_from": scene_from, "label_at": label_at, "labels": labels,
        "label_sample": label_sample,
    }  # fmt: skip
    made |= {name: np.concatenate(parts).astype(np.int64) for name, parts in joined.items()}
    return {PREFIX + name: torch.from_numpy(array) for name, array in made.items()}


def attention(sample_RL: Tensor, packed: bool) -> Tensor:
    """Who sees whom, for a model of transformers: int64 [R, L], where something stands, or, packed, bool
    [R, 1, L, L], where a place of the same sample comes no later."""
    if not packed:
        return (sample_RL >= 0).long()
    same = sample_RL[:, :, None] == sample_RL[:, None, :]
    length = sample_RL.shape[1]
    causal = torch.ones(length, length, dtype=torch.bool, device=sample_RL.device).tril()
    return (same & causal)[:, None]


def ending_together(embeds_nLW: Tensor, mask_nL: Tensor) -> tuple[Tensor, Tensor]:
    """Rows that are padded behind -> the same padded in front, as generation takes them, and where something
    stands: int64 [n, L]."""
    length = mask_nL.shape[1]
    empty_n1 = length - mask_nL.sum(dim=1, keepdim=True)
    from_nL = torch.arange(length, device=mask_nL.device)[None] - empty_n1
    there_nL = from_nL >= 0
    index_nLW = from_nL.clamp(min=0)[..., None].expand(-1, -1, embeds_nLW.shape[-1])
    return embeds_nLW.gather(1, index_nLW) * there_nL[..., None].to(embeds_nLW.dtype), there_nL.long()


def _packed(texts: Sequence[Text], row_tokens: int) -> list[list[int]]:
    """First fit, in the order of the micro-batch."""
    rows: list[list[int]] = []
    room: list[int] = []
    for i, text in enumerate(texts):
        if text.length > row_tokens:
            raise ValueError(f"a conversation of {text.length} tokens does not fit in rows of {row_tokens}")
        found = next((r for r, left in enumerate(room) if left >= text.length), None)
        if found is None:
            found = len(rows)
            rows.append([])
            room.append(row_tokens)
        rows[found].append(i)
        room[found] -= text.length
    return rows


def placed(embeds_RLW: Tensor, scene_QW: Tensor, scene_at: Tensor) -> Tensor:
    """The rows with scene tokens at their places of the flattened rows, int64 [Q]."""
    return embeds_RLW.flatten(0, 1).index_copy(0, scene_at, scene_QW).view(embeds_RLW.shape)
