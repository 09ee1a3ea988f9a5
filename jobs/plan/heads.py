"""`poma plan` of a head: its text tower, the encoder where it is trained, and what a step of them costs."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from jobs.common import models
from jobs.common.run_layout import HEADS
from jobs.finetune.build import local, seen_of
from jobs.finetune.config import TRAIN, FinetuneJob
from jobs.finetune.numbered import number_scenes
from jobs.finetune.resolve import check_settings, look
from jobs.finetune.set_up import SceneSetup
from jobs.ingest.config import ShapeConfig
from jobs.plan import tuning
from jobs.plan.data import parse_assumptions, reason
from jobs.plan.estimate import PAPERS_TOWER, JobPlan
from jobs.plan.machines import Cluster
from jobs.plan.memory import dtype_of
from plinth.errors import ConfigError, PlinthError
from plinth.locations import absolute
from plinth.schema import MISSING
from poma3d.cost.step import size_of, step_cost
from poma3d.heads.questions import QuestionShape
from poma3d.heads.stage import QuestionStage
from poma3d.heads.text import config_of, outline_tower, positions_of
from poma3d.seen.config import VOXELS

ASSUMED_ANSWERS = 1000
"""Classes of a head whose annotations are not there yet: public lists have 706 (SQA3D) to a few thousand."""
LISTED_ANSWERS = 10
"""Answers of a question at most, as ScanQA lists them; they cost next to nothing."""
KNOWN: dict[str, tuple[str, dict[str, Any]]] = {"google-bert/bert-base-uncased": ("bert", {})}
"""Text towers of the shipped jobs by hub id: class and sizes, so that a plan needs no download."""


@dataclass(frozen=True)
class _QuestionFacts:
    views: int
    embedding: int
    tokens: int
    answers: int
    samples: float | None
    setup: SceneSetup | None
    origin: str


def plan(
    job: FinetuneJob, cluster: Cluster | None, mfu: float, assume: list[str]
) -> JobPlan[tuning.TuningPlan]:
    """The plan of a job.

    Raises:
        PlinthError: a job that cannot be, a tower whose configuration cannot be read, an encoder that is to
            be trained and is not there, or an option out of range.
    """
    assumed = parse_assumptions(assume, (HEADS,), tuning.SAMPLES)
    check_settings(job)
    models.quiet_transformers()
    facts = _facts(absolute(job), assumed.get((HEADS, "samples")))
    open_commit = job.text.revision == MISSING  # a configuration does without
    text = local(replace(job.text, revision=None) if open_commit else job.text, job.storage)
    theirs = tuning.their_config(text.source, KNOWN, lambda: config_of(text))
    tokens = min(facts.tokens, positions_of(theirs))
    by_scene = facts.setup is not None
    is_posed = by_scene and job.scene.tokens == VOXELS
    shape = QuestionShape(facts.views, facts.embedding, 1, tokens, LISTED_ANSWERS, by_scene, is_posed)
    try:
        tower = outline_tower(text, theirs)
    except ValueError as error:
        raise ConfigError(f"{error}.") from None
    seen = seen_of(tuning.keeps_blocks(job), facts.setup)
    stage = QuestionStage(job.head, job.qa, tower, shape, facts.answers, job.seed, seen)
    stage = stage.to(dtype_of(job.zero)).train()
    batch = stage.fake_batch(1)
    batch["token_count"][:] = tokens
    again = {tuning.ENCODER} if job.encoder is not None and job.encoder.gradient_checkpointing else set()
    cost = step_cost(stage, stage.prepare(batch), tuning.encoder_blocks(stage))
    told = tuning.Told(
        "question", facts.samples,
        f"of at most {tokens:,} tokens about a scene of {facts.views} views, {facts.answers:,} answers",
        facts.origin,
    )  # fmt: skip
    measured = tuning.Measured(cost, 1, size_of(stage, cost.unused), again)
    return tuning.of_one_stage(job, HEADS, job.heads, measured, told, cluster, mfu, [])


def _facts(job: FinetuneJob, samples: float | None) -> _QuestionFacts:
    """From the files, or assumed where they are not there.

    Raises:
        PlinthError: the encoder that is to be trained, or its scenes, are not there.
    """
    try:
        splits = job.splits.values()
        if tuning.is_open(
            [uri for each in splits for uri in (*each.annotations, *each.features, *each.scenes)]
        ):
            raise ConfigError("the job does not name its data yet")
        found = look(job)
    except PlinthError as error:
        if job.encoder is not None:
            raise
        vit, views = PAPERS_TOWER, ShapeConfig().views
        why = f"assumed, for ViT-B/16 ({reason(error)})"
        setup = None
        if job.scene.tokens == VOXELS:
            setup = SceneSetup(number_scenes(None, None, "", 0), views, vit.width, vit.patches)
        width = vit.joint if setup is None else setup.width
        return _QuestionFacts(views, width, job.text.max_tokens, ASSUMED_ANSWERS, samples, setup, why)
    seen, asked = found.seen[TRAIN], found.asked[TRAIN]
    texts, _ = found.words.encode([text for each in asked for text in each.asked(job.qa.text_joiner)])
    origin = "from the files"
    if job.encoder is None:
        origin += "; the encoder is frozen: its features are read"
    return _QuestionFacts(
        seen.sets.shape.views, seen.embedding, max(map(len, texts)), found.answers.classes, len(asked),
        seen.setup, origin,
    )  # fmt: skip
