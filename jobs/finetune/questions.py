"""Questions joined with their scenes, or the features of these, as data sets that the platform reads like any
other.

    output/name/questions/SPLIT-<recipe>/     the recipe is a hash of all that decides the rows

So a resume finds its questions as they were, and a changed job makes others beside them. `output/name` is the
folder of a run, or of a sweep whose trials share their questions.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from jobs.common.datasets import made_before
from jobs.common.objects import digest
from jobs.features.sets import FeatureSets
from jobs.finetune.config import FinetuneJob
from jobs.finetune.readers import agents_of
from jobs.finetune.scenes import SceneSets
from jobs.finetune.set_up import SceneSetup
from plinth.data import manifest as manifests
from plinth.data.manifest import Manifest, ShardEntry
from plinth.data.shards import write_shard
from plinth.data.sources import OpenSource
from plinth.digests import text_digest
from plinth.errors import DataError
from plinth.storage import Storage
from poma3d.annotations.rows import Question
from poma3d.heads.answers import Answers
from poma3d.heads.questions import SCHEMA_VERSION, QuestionRow, QuestionShape, SceneViews, encode, shape_of
from poma3d.heads.text import Words
from poma3d.seen.config import VOXELS

FOLDER = "questions"
SHARD_ROWS = 1024
SHOWN = 3


@dataclass(frozen=True)
class Joined:
    """A split that is there as a data set."""

    source: OpenSource
    asked: dict[str, Question]
    """By sample id, those whose scene is there."""
    counts: dict[str, int]
    """rows, scenes, without_scene, without_answer, unknown_answer, cut_texts."""
    setup: SceneSetup | None = None
    """Where rows name scenes: what is seen of these."""


@dataclass(frozen=True)
class Seen:
    """What a head sees of a split."""

    sets: FeatureSets | SceneSets
    """Features of its scenes, or, where the encoder is trained, the scenes."""
    encoder: dict[str, Any]
    """What the result says of the encoder: digest, weights, run, teacher, teacher_revision."""
    embedding: int
    """Width of what is seen of a view or a cell."""
    setup: SceneSetup | None = None
    """Where rows name scenes; None where they hold features."""

    @property
    def key(self) -> str:
        """Of the split in the job."""
        return "features" if isinstance(self.sets, FeatureSets) else "scenes"

    @property
    def scene_ids(self) -> list[str]:
        """All scenes that are there."""
        return self.sets.scene_ids() if self.setup is None else list(self.setup.numbers.ids)

    @property
    def recipe(self) -> dict[str, Any]:
        """What decides the rows."""
        found: dict[str, Any] = {self.key: self.sets.hashes}
        if self.setup is None:
            return found
        places = self.setup.numbers.scenes
        if places is not None:
            found["scenes"] = places.hashes
        return {**found, "encoder": self.encoder["digest"]}

    def shown(self) -> Iterator[tuple[str, SceneViews | int]]:
        """Each scene with its features, or its number."""
        if self.setup is None:
            assert isinstance(self.sets, FeatureSets)
            return self.sets.scenes()
        return ((scene_id, number) for number, scene_id in enumerate(self.setup.numbers.ids))


def join(
    job: FinetuneJob,
    run: Storage,
    split: str,
    questions: Sequence[Question],
    seen: Seen,
    answers: Answers,
    words: Words,
    tower: str,
) -> Joined:
    """The data set of a split; built where it is not there.

    Args:
        run: the run's folder, or that of a sweep whose trials share their questions.
        tower: revision of the text tower, whose tokenizer made the tokens.

    Raises:
        DataError: no question about a scene that is there, or scenes or features that cannot be used.
    """
    order = seen.scene_ids
    present = set(order)
    kept = [question for question in questions if question.scene_id in present]
    missing = sorted({question.scene_id for question in questions} - present)
    if not kept:
        raise DataError(
            f"{split}: none of the {len(missing)} scenes of the questions is in {seen.sets.names}: questions "
            f"ask about {missing[0]}, there are such as {order[0] if order else 'none'}.",
            f"Give the {seen.key} of these scenes.",
        )
    is_posed = job.scene.tokens == VOXELS
    agents = agents_of(kept, job.qa.scans, "qa.scans", split) if is_posed else [None] * len(kept)
    rows, cut = _rows(job, kept, agents, answers, words)
    shape = shape_of(rows, seen.sets.shape.views, seen.embedding, seen.setup is not None, is_posed)
    counts = {
        "rows": len(rows),
        "scenes": len({row.scene_id for row in rows}),
        "without_scene": len(questions) - len(kept),
        "without_answer": sum(not question.answers for question in kept),
        "unknown_answer": sum(bool(q.answers) and not answers.knows(q.answers) for q in kept),
        "cut_texts": cut,
    }
    _say(split, counts, missing, words.limit, seen.key)
    attributes = {
        "schema_version": SCHEMA_VERSION,
        "kind": FOLDER,
        "teacher": None,
        "shape": shape.to_dict(),
        "encoder": seen.encoder,
        "counts": counts,
        "recipe": {
            **seen.recipe,
            "tower": tower,
            "tokens": words.limit,
            "rows": digest([_content(row, is_posed) for row in rows]),
            "shuffled": job.seed if job.shuffle_scenes else None,
        },
    }
    storage = run.child(f"{FOLDER}/{split}-{digest(attributes['recipe'])}")
    manifest = made_before(storage)
    if manifest is None:
        entries = _write(job, storage, rows, shape, seen, order)
        manifest = Manifest(entries, attributes)
        manifests.commit(storage, manifest)
    asked = {row.sample_id: question for row, question in zip(rows, kept, strict=True)}
    return Joined(OpenSource(storage, manifest), asked, counts, seen.setup)


def _rows(
    job: FinetuneJob,
    questions: Sequence[Question],
    agents: Sequence[np.ndarray | None],
    answers: Answers,
    words: Words,
) -> tuple[list[QuestionRow], int]:
    texts = [question.asked(job.qa.text_joiner) for question in questions]
    tokens, cut = words.encode([text for each in texts for text in each])
    rows, at = [], 0
    for question, each, agent in zip(questions, texts, agents, strict=True):
        own = tuple(tokens[at : at + len(each)])
        at += len(each)
        rows.append(
            QuestionRow(
                question.scene_id, question.question_id, own, answers.targets(question.answers), agent
            )
        )
    return rows, cut


def _content(row: QuestionRow, is_posed: bool) -> list[Any]:
    pose = [None if row.agent is None else row.agent.tolist()] if is_posed else []
    return [row.sample_id, row.texts, row.answers, *pose]


def _say(split: str, counts: dict[str, int], missing: Sequence[str], limit: int, key: str) -> None:
    print(f"{split}: {counts['rows']} questions about {counts['scenes']} scenes")
    if missing:
        named = ", ".join(missing[:SHOWN])
        print(
            f"{split}: {counts['without_scene']} questions are about {len(missing)} scenes without "
            f"{key}: {named}"
        )
    if counts["unknown_answer"]:
        print(f"{split}: {counts['unknown_answer']} questions have no answer in the vocabulary")
    if counts["without_answer"]:
        print(f"{split}: {counts['without_answer']} questions have no answer at all")
    if counts["cut_texts"]:
        print(f"{split}: {counts['cut_texts']} texts are longer than {limit} tokens and were cut")


def _write(
    job: FinetuneJob,
    storage: Storage,
    rows: Sequence[QuestionRow],
    shape: QuestionShape,
    seen: Seen,
    order: Sequence[str],
) -> list[ShardEntry]:
    """Shards of rows sorted by scene; the features of a few scenes are in memory at a time."""
    of_scene: dict[str, list[QuestionRow]] = {}
    for row in rows:
        of_scene.setdefault(row.scene_id, []).append(row)
    asked_of = _shown_for(job, order)
    entries: list[ShardEntry] = []
    held: list[QuestionRow] = []
    views: dict[str, SceneViews | int] = {}
    for shown, scene in seen.shown():
        own = of_scene.get(asked_of[shown], [])
        if not own:
            continue
        held += own
        views[asked_of[shown]] = scene
        if len(held) >= SHARD_ROWS:
            entries += _shards(job, storage, held, views, shape, len(entries))
            held, views = [], {}
    if held:
        entries += _shards(job, storage, held, views, shape, len(entries))
    return entries


def _shards(
    job: FinetuneJob,
    storage: Storage,
    rows: Sequence[QuestionRow],
    views: dict[str, SceneViews | int],
    shape: QuestionShape,
    first: int,
) -> Iterator[ShardEntry]:
    for number, start in enumerate(range(0, len(rows), SHARD_ROWS)):
        table = encode(rows[start : start + SHARD_ROWS], views, shape)
        yield write_shard(storage, f"{first + number:06d}", table, job.shards)


def _shown_for(job: FinetuneJob, order: Sequence[str]) -> dict[str, str]:
    """Scene whose views are shown -> scene whose questions they are shown for: itself, or, shuffled, the next
    in an order by lot."""
    if not job.shuffle_scenes:
        return {scene: scene for scene in order}
    seed = int(text_digest(f"shuffled {job.seed}", 4), 16)
    lot = [order[i] for i in np.random.default_rng(seed).permutation(len(order))]
    return dict(zip(lot, lot[1:] + lot[:1], strict=True))


def describe(joined: dict[str, Joined]) -> dict[str, Any]:
    """Counts of all splits, for the result."""
    return {name: split.counts for name, split in joined.items()}
