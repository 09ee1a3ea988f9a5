"""`poma plan` of a language model: what it is made of and what a step of it costs, without its weights.

What the data say (how long conversations are, how many there are) is read where it is there; else the limits
of the job count, and the page says so.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from jobs.common import models
from jobs.common.run_layout import TRAINING
from jobs.finetune.llm.build import Setup, assembled, local
from jobs.finetune.llm.config import FinetuneLlmJob
from jobs.finetune.llm.resolve import check_settings, look
from jobs.finetune.numbered import number_scenes
from jobs.ingest.config import ShapeConfig
from jobs.plan import tuning
from jobs.plan.data import Assumptions, parse_assumptions, reason
from jobs.plan.estimate import PAPERS_TOWER, JobPlan
from jobs.plan.machines import Cluster
from jobs.plan.memory import dtype_of
from plinth.errors import ConfigError, PlinthError
from plinth.locations import absolute
from plinth.schema import MISSING
from poma3d.cost.step import size_of, step_cost
from poma3d.llm.config import LlmConfig
from poma3d.llm.conversations import ConversationShape
from poma3d.llm.model import blocks_of, config_of, outline_llm
from poma3d.seen.config import NONE, VIEWS

CHECKPOINTING = "llm.gradient_checkpointing"
TEXT_FACTORS = (0.5, 1.0, 2.0)
"""Lengths of the text for which activations are shown, over the job's longest."""
QWEN3_VL_2B = {
    "text_config": {
        "hidden_size": 2048, "intermediate_size": 6144, "num_hidden_layers": 28, "num_attention_heads": 16,
        "num_key_value_heads": 8, "head_dim": 128, "vocab_size": 151936, "tie_word_embeddings": True,
        "rope_parameters": {"rope_type": "default", "rope_theta": 5e6, "mrope_section": [24, 20, 20]},
    },
    "tie_word_embeddings": True,
}  # fmt: skip
KNOWN = {"Qwen/Qwen3-VL-2B-Instruct": ("qwen3_vl", QWEN3_VL_2B)}
"""Language models of the shipped jobs by hub id: class and sizes, so that a plan needs no download. The image
tower, which is dropped, has any size."""


@dataclass(frozen=True)
class ConversationFacts:
    """What the job's conversations are like."""

    setup: Setup
    text: int
    """Tokens of the longest question."""
    answer: int
    """Tokens of the longest answer."""
    samples: float | None
    origin: str


def plan(
    job: FinetuneLlmJob, cluster: Cluster | None, mfu: float, assume: list[str]
) -> JobPlan[tuning.TuningPlan]:
    """The plan of a job.

    Raises:
        PlinthError: a job that cannot be, a model whose configuration cannot be read, an encoder that is to
            be trained and is not there, or an option out of range.
    """
    assumed = parse_assumptions(assume, (TRAINING,), tuning.SAMPLES)
    check_settings(job)
    models.quiet_transformers()
    facts = _facts(absolute(job), assumed)
    outlined = _Outlined(job, facts)
    measured = outlined.measure(facts.text)
    scene, longest = outlined.scene_tokens, outlined.length_of(facts.text)
    packed = job.chat.packed_tokens
    rows = "" if packed is None else f", {measured.samples} of the longest in a row of {packed:,}"
    seen = (
        "; the encoder is frozen: its features are read"
        if job.encoder is None and job.scene.tokens != NONE
        else ""
    )
    told = tuning.Told(
        "conversation",
        facts.samples,
        f"of at most {longest:,} tokens ({facts.text:,} of text, {scene:,} of the scene, {facts.answer:,} of "
        f"the answer){rows}",
        f"{facts.origin}{seen}",
    )
    lengths = [outlined.length(max(1, round(facts.text * f)), is_jobs=f == 1) for f in TEXT_FACTORS]
    return tuning.of_one_stage(
        job, TRAINING, job.training, measured, told, cluster, mfu, lengths, again_key=CHECKPOINTING
    )


class _Outlined:
    """The stage of a job without the weights of its language model."""

    def __init__(self, job: FinetuneLlmJob, facts: ConversationFacts) -> None:
        self._facts, self._packed = facts, job.chat.packed_tokens
        asked = {
            tuning.LANGUAGE_MODEL: job.llm.gradient_checkpointing,
            tuning.ENCODER: job.encoder is not None and job.encoder.gradient_checkpointing,
        }
        self._recomputed = {name for name, is_asked in asked.items() if is_asked}
        llm = _without_open(local(job.llm, job.storage))
        theirs = (
            None if llm.new is not None else tuning.their_config(llm.source, KNOWN, lambda: config_of(llm))
        )
        try:
            outlined = outline_llm(llm, theirs, facts.setup.vocabulary)
        except ValueError as error:
            raise ConfigError(f"{error}.") from None
        shape = ConversationShape(1, facts.text, 1, facts.answer)
        stage = assembled(tuning.keeps_blocks(job), facts.setup, shape, outlined)
        self._stage = stage.to(dtype_of(job.zero)).train()
        self.scene_tokens = stage.seen.most_tokens

    def measure(self, text: int) -> tuning.Measured:
        """A step with questions of so many tokens."""
        stage, answer = self._stage, self._facts.answer
        whole = self.length_of(text)
        samples = 1 if self._packed is None else max(1, self._packed // whole)
        row = None if self._packed is None else max(self._packed, whole)
        stage.chat = replace(stage.chat, packed_tokens=row)
        stage.shape = ConversationShape(1, text, 1, answer)
        batch = stage.fake_batch(samples)
        batch["prompt_count"][:], batch["answer_count"][:] = text, answer
        blocks = {tuning.LANGUAGE_MODEL: blocks_of(stage.llm), **tuning.encoder_blocks(stage)}
        cost = step_cost(stage, stage.prepare(batch), blocks)
        return tuning.Measured(cost, samples, size_of(stage), self._recomputed & blocks.keys())

    def length_of(self, text: int) -> int:
        """Tokens of a conversation with so many of text."""
        return text + self.scene_tokens + self._facts.answer

    def length(self, text: int, is_jobs: bool) -> tuning.LengthPlan:
        """Activations of conversations with so many tokens of text."""
        found = self.measure(text)
        kept, again = (
            {*found.recomputed} - {tuning.LANGUAGE_MODEL},
            {*found.recomputed, tuning.LANGUAGE_MODEL},
        )
        return tuning.LengthPlan(
            self.length_of(text),
            found.cost.activations(found.samples, kept),
            found.cost.activations(found.samples, again),
            is_jobs,
        )


def _facts(job: FinetuneLlmJob, assumed: Assumptions) -> ConversationFacts:
    """From the files, or from the limits of the job where they are not there.

    Raises:
        PlinthError: the encoder that is to be trained, or its scenes, are not there.
    """
    samples = assumed.get((TRAINING, "samples"))
    try:
        named = [uri for each in job.train.conversations for uri in each.annotations]
        if tuning.is_open([*job.train.features, *job.train.scenes, *named]):
            raise ConfigError("the job does not name its data yet")
        found = look(job)
    except PlinthError as error:
        if job.encoder is not None:
            raise
        why = reason(error)
    else:
        rows = sum(len(each.rows) * each.weight for each in found.tokenised)
        return ConversationFacts(
            found.setup, found.shape.prompt_tokens, found.shape.answer_tokens, rows, "from the files"
        )
    chat, kind = job.chat, job.scene.tokens
    vit, views = PAPERS_TOWER, ShapeConfig().views
    patches = vit.patches if job.scene.needs_patches else 0
    width = 0 if kind == NONE else vit.joint if kind == VIEWS else vit.width
    vocabulary = None if job.llm.new is None else job.llm.new.vocabulary
    setup = Setup(number_scenes(None, None, "", 0), views, width, patches, vocabulary=vocabulary)
    of_scene = f"; scenes of {views} views of ViT-B/16" if kind != NONE else ""
    origin = f"limits of chat and scene{of_scene} ({why})"
    return ConversationFacts(setup, chat.max_text_tokens, chat.max_answer_tokens + 1, samples, origin)


def _without_open(llm: LlmConfig) -> LlmConfig:
    """The configuration of a model does without a commit that is still to be said."""
    return replace(llm, revision=None) if llm.revision == MISSING else llm
