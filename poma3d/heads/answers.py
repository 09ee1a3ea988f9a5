"""The closed list of answers of a head: classes, targets, and what counts as right under a protocol."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

from poma3d.heads.config import CLASS_U, IMPOSSIBLE, PREFIX, TOKEN

CLASS_OF_UNKNOWN = "u"
DIGEST_LENGTH = 24
OTHER = "other"
TYPES = ("what", "is", "how", "can", "which")


def listed(answers: Iterable[Sequence[str]], min_frequency: int = 1) -> list[str]:
    """The vocabulary of training annotations: what occurs often enough, sorted as the public code does.

    Args:
        answers: of each question; an answer that a question lists twice counts twice, as there.
    """
    counts = Counter(answer for of_question in answers for answer in of_question)
    return sorted(answer for answer, count in counts.items() if count >= min_frequency)


@dataclass(frozen=True)
class Answers:
    """A vocabulary under a treatment of answers outside it (`heads.config.ProtocolConfig`)."""

    texts: tuple[str, ...]
    """Class i is `texts[i]`."""
    unknown: str

    def __post_init__(self) -> None:
        """Raise ValueError for a list that cannot be one of classes."""
        if len(set(self.texts)) != len(self.texts):
            twice = next(text for text, count in Counter(self.texts).items() if count > 1)
            raise ValueError(f"the vocabulary lists '{twice}' twice")
        if len(self.texts) < 2:
            raise ValueError(f"the vocabulary has {len(self.texts)} answer(s), expected at least 2")
        if self.unknown == CLASS_U and CLASS_OF_UNKNOWN not in self._index:
            raise ValueError(
                f"qa.unknown_answers is {CLASS_U}, and the vocabulary has no class '{CLASS_OF_UNKNOWN}': "
                "give one that has it in qa.vocabulary, or choose another treatment"
            )

    @property
    def classes(self) -> int:
        """How many classes the head has: one more where unknown answers are a class of their own."""
        return len(self.texts) + (self.unknown == IMPOSSIBLE)

    @property
    def digest(self) -> str:
        """Hash of list and treatment: heads with the same may be compared and resumed."""
        content = json.dumps([self.texts, self.unknown == IMPOSSIBLE])
        return hashlib.sha256(content.encode()).hexdigest()[:DIGEST_LENGTH]

    def targets(self, answers: Sequence[str]) -> tuple[int, ...]:
        """Classes that a question's answers train, each once."""
        right = self.right(answers)
        if self.unknown == IMPOSSIBLE and not right:
            return (len(self.texts),)
        return right

    def right(self, answers: Sequence[str]) -> tuple[int, ...]:
        """Classes that count as right, ascending; none where all answers are outside the vocabulary."""
        found = {self._index[answer] for answer in answers if answer in self._index}
        if self.unknown == CLASS_U and any(answer not in self._index for answer in answers):
            found.add(self._index[CLASS_OF_UNKNOWN])
        return tuple(sorted(found))

    @cached_property
    def _index(self) -> dict[str, int]:
        return {text: i for i, text in enumerate(self.texts)}


def question_type(question: str, rule: str, given: str = "") -> str:
    """A question's type, of the question alone, never of the joined text.

    Args:
        rule: prefix, token or given.
        given: what the annotations say; several words there are one type, as written.
    """
    text = question.lstrip().lower()
    if rule == PREFIX:
        return next((kind for kind in TYPES if text.startswith(kind)), OTHER)
    if rule == TOKEN:
        for mark in ",.?":
            text = text.replace(mark, "")
        first = text.replace("'s", " 's").split()[:1]
        return next((kind for kind in TYPES if first == [kind]), OTHER)
    return given or OTHER
