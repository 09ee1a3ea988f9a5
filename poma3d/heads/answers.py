"""The closed list of answers of a head: classes, targets, and what counts as right under a protocol."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass

from poma3d.annotations.question_types import OTHER, TypeRule, scanqa_type, sqa3d_type
from poma3d.annotations.vocabulary import UnknownAnswers, Vocabulary
from poma3d.heads.config import GIVEN, SCANQA

DIGEST_LENGTH = 24


@dataclass(frozen=True)
class Answers:
    """A vocabulary under a treatment of answers outside it."""

    vocabulary: Vocabulary
    unknown: UnknownAnswers

    def __post_init__(self) -> None:
        """Raise ValueError for a list that cannot be one of classes."""
        if len(self.vocabulary) < 2:
            raise ValueError(f"the vocabulary lists {len(self.vocabulary)}, expected at least 2 answers")
        self.targets([""])  # refuses a treatment that this vocabulary does not allow

    @property
    def texts(self) -> tuple[str, ...]:
        """Class i is `texts[i]`."""
        return self.vocabulary.answers

    @property
    def classes(self) -> int:
        """How many classes the head has: one more where unknown answers are a class of their own."""
        return len(self.vocabulary) + (self.unknown is UnknownAnswers.impossible)

    @property
    def digest(self) -> str:
        """Hash of list and treatment: heads with the same may be compared and resumed."""
        content = json.dumps([self.texts, self.unknown is UnknownAnswers.impossible])
        return hashlib.sha256(content.encode()).hexdigest()[:DIGEST_LENGTH]

    def targets(self, answers: Sequence[str]) -> tuple[int, ...]:
        """Classes that a question's answers train, each once."""
        return self.vocabulary.targets(answers, self.unknown)

    def right(self, answers: Sequence[str]) -> tuple[int, ...]:
        """Classes that count as right; none where all answers are outside the vocabulary, but for
        `class_u`."""
        return tuple(found for found in self.targets(answers) if found < len(self.vocabulary))

    def knows(self, answers: Sequence[str]) -> bool:
        """Whether any of them is in the vocabulary."""
        return any(answer in self.vocabulary for answer in answers)


def question_type(question: str, rule: str, given: str = "") -> str:
    """A question's type, of the question alone, never of the joined text.

    Args:
        rule: of `heads.config.ProtocolConfig.question_types`.
        given: what the annotations say; several words there are one type, as written.
    """
    if rule == GIVEN:
        return given or OTHER
    return scanqa_type(question) if rule == SCANQA else sqa3d_type(question, TypeRule(rule))
