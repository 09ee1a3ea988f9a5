"""A question with its scene's features as a row of Parquet: the sample of the heads.

    column        dtype    shape    meaning
    sample_id     string            scene_id/question_id; the key of all randomness
    scene_id      string
    question_id   string            as in the annotations
    views         float16  [V,E]    projected features of the scene's views, not normalised
    view_valid    uint8    [V]      0 where a view is a repeat that fills a short scene
    tokens        int32    [S,T]    the question after each of its situations, the main one first
    token_count   int32    [S]      how many of the T tokens are words
    text_count    int32    []       how many of the S texts there are
    answers       int32    [K]      classes of the listed answers, -1 where there are no more
    scene         int32    []       in place of `views` and `view_valid` where the encoder is trained or
                                    cells are seen: which of the data sets' scenes, in the order of their
                                    shards
    agent         float32  [3,4]    where cells are seen: world -> whoever asks, x ahead, y left, z up; unit
                                    where the question has no pose

Rows are sorted by scene, so that a row group holds a scene's features once for the compression, and an
encoder that is trained meets a scene's questions together. Text is cut into tokens here, once: the recipe of
the data set names the tower.

Legend: V views, E width of a feature, S texts, T tokens, K answers.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np
import pyarrow as pa

from poma3d.seen.scenes import AGENT

SCHEMA_VERSION = 1
NO_ANSWER = -1
SCENE = "scene"
VIEWS = ("views", "view_valid")
ASKED = ("tokens", "token_count", "text_count", "answers")
COLUMNS = (*VIEWS, *ASKED)
"""Columns of rows with features."""


@dataclass(frozen=True)
class QuestionShape:
    """The sizes that all rows of a data set share (see the module's legend)."""

    views: int
    embedding: int
    texts: int
    tokens: int
    answers: int
    by_scene: bool = False
    """Whether rows name their scene rather than hold its features."""
    posed: bool = False
    """Whether they say where the question is asked from."""

    @property
    def columns(self) -> tuple[str, ...]:
        """The tensor columns."""
        if not self.by_scene:
            return COLUMNS
        return (SCENE, AGENT, *ASKED) if self.posed else (SCENE, *ASKED)

    def to_dict(self) -> dict[str, int]:
        """For a manifest; without what is False, as in older ones."""
        return {name: value for name, value in asdict(self).items() if value is not False}


@dataclass(frozen=True)
class QuestionRow:
    """One row in memory, without its scene."""

    scene_id: str
    question_id: str
    texts: tuple[tuple[int, ...], ...]
    """Token ids of each text, the main one first."""
    answers: tuple[int, ...]
    """Classes of the listed answers, each once."""
    agent: np.ndarray | None = None
    """float32 [3, 4], world -> whoever asks; None where the question has no pose."""

    @property
    def sample_id(self) -> str:
        """The key of its randomness."""
        return f"{self.scene_id}/{self.question_id}"


@dataclass(frozen=True)
class SceneViews:
    """The features of a scene."""

    views: np.ndarray
    """float16 [V, E]."""
    view_valid: np.ndarray
    """uint8 [V]."""


def shape_of(
    rows: Sequence[QuestionRow], views: int, embedding: int, by_scene: bool = False, posed: bool = False
) -> QuestionShape:
    """The smallest sizes that hold all rows."""
    return QuestionShape(
        views,
        embedding,
        max((len(row.texts) for row in rows), default=1),
        max((len(text) for row in rows for text in row.texts), default=1),
        max(1, max((len(row.answers) for row in rows), default=1)),
        by_scene,
        posed,
    )


def schema(shape: QuestionShape) -> pa.Schema:
    """The Arrow schema of rows of `shape`."""
    tensors = {
        "views": ("float16", (shape.views, shape.embedding), "projected features, not normalised"),
        "view_valid": ("uint8", (shape.views,), "0 = repeat"),
        "tokens": ("int32", (shape.texts, shape.tokens), "token ids"),
        "token_count": ("int32", (shape.texts,), "tokens"),
        "text_count": ("int32", (), "texts"),
        "answers": ("int32", (shape.answers,), "classes, -1 = none"),
        SCENE: ("int32", (), "number in the data sets of scenes"),
        AGENT: ("float32", (3, 4), "world -> agent, metres"),
    }
    fields = [pa.field(n, pa.string(), nullable=False) for n in ("sample_id", "scene_id", "question_id")]
    for name in shape.columns:
        dtype, dims, unit = tensors[name]
        size = int(np.prod(dims, dtype=np.int64)) * np.dtype(dtype).itemsize
        metadata = {"dtype": dtype, "shape": json.dumps(dims), "unit": unit}
        fields.append(pa.field(name, pa.binary(size), nullable=False, metadata=metadata))
    return pa.schema(fields, metadata={"poma3d_question_schema_version": str(SCHEMA_VERSION)})


def encode(
    rows: Sequence[QuestionRow], scenes: Mapping[str, SceneViews | int], shape: QuestionShape
) -> pa.Table:
    """Rows for a shard.

    Args:
        scenes: at least those of the rows: their features, or, of rows by scene, their numbers.
    """
    target = schema(shape)
    made = [_arrays(row, scenes[row.scene_id], shape) for row in rows]
    columns = [
        pa.array([getattr(row, f.name) for row in rows], f.type)
        if f.name not in shape.columns
        else pa.array([arrays[f.name].tobytes() for arrays in made], f.type)
        for f in target
    ]
    return pa.Table.from_arrays(columns, schema=target)


def _arrays(row: QuestionRow, scene: SceneViews | int, shape: QuestionShape) -> dict[str, np.ndarray]:
    tokens = np.zeros((shape.texts, shape.tokens), np.int32)
    counts = np.zeros(shape.texts, np.int32)
    for i, text in enumerate(row.texts):
        tokens[i, : len(text)] = text
        counts[i] = len(text)
    answers = np.full(shape.answers, NO_ANSWER, np.int32)
    answers[: len(row.answers)] = row.answers
    if isinstance(scene, SceneViews):
        seen: dict[str, np.ndarray] = {
            "views": np.ascontiguousarray(scene.views, np.float16),
            "view_valid": np.ascontiguousarray(scene.view_valid, np.uint8),
        }
    else:
        agent = np.eye(3, 4) if row.agent is None else row.agent
        seen = {SCENE: np.array(scene, np.int32), AGENT: np.ascontiguousarray(agent, np.float32)}
    return {
        **seen,
        "tokens": tokens,
        "token_count": counts,
        "text_count": np.array(len(row.texts), np.int32),
        "answers": answers,
    }
