"""The settings of a head, of its text tower and of the protocol that it is trained and scored by."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from poma3d.annotations.question_types import TypeRule
from poma3d.annotations.vocabulary import UnknownAnswers
from poma3d.counts import Count
from poma3d.locations import ModelLocation
from poma3d.seen.config import VIEWS as VIEW_FEATURES
from poma3d.seen.config import VOXELS, SceneTokensConfig

TRANSFORMERS, TEACHER = "transformers", "teacher"
BOTH, QUESTION, VIEWS = "both", "question", "views"
SCANQA, GIVEN = "scanqa", "given"
DRAWN, MAIN = "drawn", "main"
SEPARATE, GUIDED = "separate", "guided"


@dataclass
class TextConfig:
    """The text tower of a head."""

    KINDS = (TRANSFORMERS, TEACHER)

    kind: str = TRANSFORMERS
    """transformers: any of its text models. teacher: the text tower of the teacher whose space the features
    are in; another teacher is refused."""
    source: ModelLocation = ""
    """Folder with config.json, tokenizer and *.safetensors, or a hub id."""
    revision: str | None = None
    """Commit of a hub id, or the expected revision of a folder. Needed with trust_remote_code."""
    trust_remote_code: bool = False
    """Run the Python that comes with the weights, for models that transformers does not know."""
    allow_tensors: list[str] = field(default_factory=list)
    """Patterns (* for anything) of tensors that may be missing in the weights, unexpected, or of another
    shape; any other such tensor is an error. What is missing is drawn at random, for all workers alike."""
    train: bool = True
    """Whether the tower is trained with the head, as the public code does; else it stays as it is."""
    dropout: bool = False
    """Whether a trained tower's own dropout is on. It is drawn per micro-batch, the head's per sample."""
    max_tokens: Count = 256
    """Longest text; the tower's own limit counts where it is lower. Longer texts are cut, and counted."""

    def validate(self) -> None:
        """Refuse values that cannot be.

        Raises:
            ValueError: naming the field and what to do.
        """
        if self.kind not in self.KINDS:
            raise ValueError(f"text.kind is '{self.kind}'; use one of {', '.join(self.KINDS)}")
        if not self.source:
            raise ValueError("text.source is empty: give a folder with safetensors weights or a hub id")
        if self.trust_remote_code and not self.revision:
            raise ValueError(
                "text.trust_remote_code runs code that comes with the weights: pin it with text.revision "
                "(the commit that you have read)"
            )
        if self.dropout and not self.train:
            raise ValueError(
                "text.dropout is on and text.train off: a tower that stays as it is has no dropout"
            )


@dataclass
class HeadConfig:
    """Sizes of a head; the defaults are those of the authors' follow-up."""

    INPUTS = (BOTH, QUESTION, VIEWS)
    ATTENTIONS = (SEPARATE, GUIDED)

    pool_hidden: Count = 256
    """Width of the MLP that weighs views, and words."""
    pool_width: Count = 512
    """Width of what is pooled of views and of words, which are added."""
    hidden: Count = 768
    """Width of the layer before the answers."""
    dropout: float = 0.3
    """Dropout before the answers, drawn per sample and epoch: it is the same at any number of workers."""
    inputs: str = BOTH
    """What the head sees: both, or, as a control, question or views alone."""
    attention: str = SEPARATE
    """How views are weighed. separate: by themselves, the same for every question, as the follow-up does.
    guided: by what is asked, whose pooled words are added where the weights are made (the additive attention
    of Bahdanau et al., arXiv 1409.0473)."""

    def validate(self) -> None:
        """Refuse values that cannot be.

        Raises:
            ValueError: naming the field and what to do.
        """
        if not 0 <= self.dropout < 1:
            raise ValueError(f"head.dropout is {self.dropout}, expected 0 or more and less than 1")
        if self.inputs not in self.INPUTS:
            raise ValueError(f"head.inputs is '{self.inputs}'; use one of {', '.join(self.INPUTS)}")
        if self.attention not in self.ATTENTIONS:
            raise ValueError(f"head.attention is '{self.attention}'; use one of {', '.join(self.ATTENTIONS)}")
        if self.attention == GUIDED and self.inputs != BOTH:
            raise ValueError(
                f"head.attention is {GUIDED} and head.inputs is {self.inputs}: a question guides what is "
                f"looked at where both are seen"
            )


@dataclass
class HeadSceneConfig(SceneTokensConfig):
    """What a head gets of a scene."""

    KINDS: ClassVar[tuple[str, ...]] = (VIEW_FEATURES, VOXELS)

    tokens: str = VIEW_FEATURES
    """views: the feature of each view, as the follow-up does. voxels: the mean of the patch tokens whose
    points lie in a cell, beside the cell's position as whoever asks sees it: what a head needs that is to
    tell directions."""


@dataclass
class ProtocolConfig:
    """What public implementations do differently, by name: each of these moves the score."""

    UNKNOWN = tuple(each.value for each in UnknownAnswers)
    TYPES = (*(each.value for each in TypeRule), SCANQA, GIVEN)
    SITUATIONS = (DRAWN, MAIN)

    unknown_answers: str = UnknownAnswers.wrong.value
    """An answer outside the vocabulary. wrong: no target, and wrong whatever is predicted. class_u: the class
    `u` of SQA3D's list, so that predicting `u` is right (3D-VisTA, the authors' follow-up). impossible: a
    class of its own, trained for, which is never predicted (SQA3D's MCAN)."""
    text_joiner: str = " "
    """What stands between situation and question; the public code has nothing there."""
    situations: str = DRAWN
    """Of a question with several: drawn takes one per epoch in training, main the first. Evaluation always
    takes the first."""
    question_types: str = TypeRule.prefix.value
    """How a question's type is told: prefix (what, is, how, can, which, other: 3D-VisTA), token (SQA3D's
    MCAN), word (SQA3D's ClipBERT), scanqa (ScanQA's six), given (as the annotations say)."""
    best: list[int] = field(default_factory=lambda: [1, 10])
    """k of EM@k, clipped to the number of classes."""

    def validate(self) -> None:
        """Refuse values that cannot be.

        Raises:
            ValueError: naming the field and what to do.
        """
        for name, known in (
            ("unknown_answers", self.UNKNOWN),
            ("question_types", self.TYPES),
            ("situations", self.SITUATIONS),
        ):
            if getattr(self, name) not in known:
                raise ValueError(f"qa.{name} is '{getattr(self, name)}'; use one of {', '.join(known)}")
        if not self.best or min(self.best) < 1:
            raise ValueError(f"qa.best is {self.best}, expected numbers from 1 on")
