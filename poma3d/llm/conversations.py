"""A question about a scene and its answer as a row of Parquet: the sample of a language model.

    column        dtype    shape    meaning
    sample_id     string            source/scene_id/question_id; the key of all randomness
    scene_id      string
    prompt        int32    [S,T]    the question after each of its situations, the main one first, in the
                                    words of the chat template, without the scene
    prompt_count  int32    [S]      how many of the T tokens there are
    prompts       int32    []       how many of the S prompts there are
    scene_at      int32    []       before which token of the prompt the scene stands
    answer        int32    [A,N]    each answer with its end
    answer_count  int32    [A]      how many of the N tokens there are
    answers       int32    []       how many of the A answers there are
    scene         int32    []       which of the data sets' scenes, in the order of their shards
    view          int32    []       the view that the conversation is about, -1 for the whole scene
    agent         float32  [3,4]    world -> the agent: x ahead, y left, z up; unit where there is no pose

Rows are sorted by scene. Text is cut into tokens here, once: the recipe of the data set names the tokenizer.

Legend: S situations, T tokens of a prompt, A answers, N tokens of an answer.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from poma3d.seen.scenes import WHOLE_SCENE

if TYPE_CHECKING:
    import pyarrow as pa  # imported where rows are made: a model that was handed on runs where there is none

SCHEMA_VERSION = 1
COLUMNS = (
    "prompt", "prompt_count", "prompts", "scene_at", "answer", "answer_count", "answers", "scene", "view",
    "agent",
)  # fmt: skip


@dataclass(frozen=True)
class Conversation:
    """One in words."""

    source: str
    scene_id: str
    question_id: str
    texts: tuple[str, ...]
    """The question after each of its situations, the main one first."""
    answers: tuple[str, ...]
    view: int = WHOLE_SCENE
    agent: np.ndarray | None = None
    """float32 [3, 4], world -> agent."""

    @property
    def sample_id(self) -> str:
        """The key of its randomness."""
        return f"{self.source}/{self.scene_id}/{self.question_id}"


@dataclass(frozen=True)
class ConversationShape:
    """The sizes that all rows of a data set share (see the module's legend)."""

    prompts: int
    prompt_tokens: int
    answers: int
    answer_tokens: int

    def to_dict(self) -> dict[str, int]:
        """For a manifest."""
        return asdict(self)


@dataclass(frozen=True)
class ConversationRow:
    """One in tokens."""

    sample_id: str
    scene_id: str
    prompts: tuple[tuple[int, ...], ...]
    scene_at: int
    answers: tuple[tuple[int, ...], ...]
    view: int = WHOLE_SCENE
    agent: np.ndarray = field(default_factory=lambda: np.eye(3, 4, dtype=np.float32))


def shape_of(rows: Sequence[ConversationRow]) -> ConversationShape:
    """The smallest sizes that hold all rows."""
    return ConversationShape(
        max(len(row.prompts) for row in rows),
        max(len(prompt) for row in rows for prompt in row.prompts),
        max(1, max(len(row.answers) for row in rows)),
        max([len(answer) for row in rows for answer in row.answers], default=1),
    )


def _tensors(shape: ConversationShape) -> dict[str, tuple[str, tuple[int, ...], str]]:
    return {
        "prompt": ("int32", (shape.prompts, shape.prompt_tokens), "token ids"),
        "prompt_count": ("int32", (shape.prompts,), "tokens"),
        "prompts": ("int32", (), "prompts"),
        "scene_at": ("int32", (), "tokens before the scene"),
        "answer": ("int32", (shape.answers, shape.answer_tokens), "token ids"),
        "answer_count": ("int32", (shape.answers,), "tokens"),
        "answers": ("int32", (), "answers"),
        "scene": ("int32", (), "number in the data sets of scenes"),
        "view": ("int32", (), "-1 = the whole scene"),
        "agent": ("float32", (3, 4), "world -> agent, metres"),
    }


def schema(shape: ConversationShape) -> pa.Schema:
    """The Arrow schema of rows of `shape`."""
    import pyarrow as pa

    fields = [pa.field(name, pa.string(), nullable=False) for name in ("sample_id", "scene_id")]
    for name, (dtype, dims, unit) in _tensors(shape).items():
        size = int(np.prod(dims, dtype=np.int64)) * np.dtype(dtype).itemsize
        metadata = {"dtype": dtype, "shape": json.dumps(dims), "unit": unit}
        fields.append(pa.field(name, pa.binary(size), nullable=False, metadata=metadata))
    return pa.schema(fields, metadata={"poma3d_conversation_schema_version": str(SCHEMA_VERSION)})


def encode(rows: Sequence[ConversationRow], numbers: dict[str, int], shape: ConversationShape) -> pa.Table:
    """Rows for a shard.

    Args:
        numbers: of the scenes.
    """
    import pyarrow as pa

    target = schema(shape)
    made = [_arrays(row, numbers[row.scene_id], shape) for row in rows]
    columns = [
        pa.array([getattr(row, f.name) for row in rows], f.type)
        if f.name not in COLUMNS
        else pa.array([arrays[f.name].tobytes() for arrays in made], f.type)
        for f in target
    ]
    return pa.Table.from_arrays(columns, schema=target)


def _arrays(row: ConversationRow, number: int, shape: ConversationShape) -> dict[str, np.ndarray]:
    prompt, prompt_count = _padded(row.prompts, shape.prompts, shape.prompt_tokens)
    answer, answer_count = _padded(row.answers, shape.answers, shape.answer_tokens)
    numbers = {
        "prompts": len(row.prompts), "scene_at": row.scene_at, "answers": len(row.answers), "scene": number,
        "view": row.view,
    }  # fmt: skip
    return {
        "prompt": prompt,
        "prompt_count": prompt_count,
        "answer": answer,
        "answer_count": answer_count,
        "agent": np.ascontiguousarray(row.agent, np.float32),
        **{name: np.array(value, np.int32) for name, value in numbers.items()},
    }


def _padded(texts: Sequence[Sequence[int]], count: int, length: int) -> tuple[np.ndarray, np.ndarray]:
    ids, counts = np.zeros((count, length), np.int32), np.zeros(count, np.int32)
    for i, text in enumerate(texts):
        ids[i, : len(text)] = text
        counts[i] = len(text)
    return ids, counts
