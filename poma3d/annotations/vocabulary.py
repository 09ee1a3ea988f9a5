"""Answer vocabularies: which answers a classifier has classes for, and in which order.

    ScanQA   8,864  the distinct answers of its training file, sorted; an answer that occurs once counts
    SQA3D      706  `answer_dict.json`, [{answer: number}, {"number": answer}]
    Hypo3D     637  the same form
    MSNN      4, 8  directions, counter-clockwise

The order of a checkpoint's classes is a property of the code that trained it, not of the file: 3D-VisTA and
its descendants number SQA3D's and Hypo3D's answers alphabetically and ignore the numbers of the file. So a
head is exported with the list.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import Enum
from functools import cached_property
from pathlib import Path
from typing import Any

from poma3d.annotations.directions import TEXTS
from poma3d.annotations.formats.files import load_json
from poma3d.annotations.formats.parts import Part, open_part
from poma3d.annotations.formats.scanqa import read_scanqa
from poma3d.annotations.rows import Question

CLASS_U = "u"
"""A class of SQA3D's list that is the answer of no validation or test row."""


class UnknownAnswers(Enum):
    """What becomes of answers that the vocabulary lacks: 95 of SQA3D's 3,519 test rows have one."""

    wrong = "wrong"
    """They are dropped; a row without a known answer stays, and no prediction is right (ScanQA in 3D-VisTA's
    line; SQA3D's figures then cannot pass 97.3 %)."""
    class_u = "class_u"
    """They are the class `u`, so that predicting `u` is right (SQA3D in 3D-VisTA's line)."""
    impossible = "impossible"
    """They are a class that no head has, one after the last (SQA3D's MCAN); scored like `wrong`, but a
    training target."""


class ClassOrder(Enum):
    """In which order the answers of a dictionary are classes."""

    alphabetical = "alphabetical"
    """Sorted, whatever the file's numbers say: as 3D-VisTA's line, and POMA-3D's, has it."""
    file = "file"
    """By the file's numbers: as SQA3D's own code has it."""


@dataclass(frozen=True)
class Vocabulary:
    """The answers of a classifier, in the order of its classes."""

    answers: tuple[str, ...]

    @cached_property
    def classes(self) -> dict[str, int]:
        """Answer -> class."""
        return {answer: index for index, answer in enumerate(self.answers)}

    def __len__(self) -> int:
        return len(self.answers)

    def __contains__(self, answer: object) -> bool:
        return answer in self.classes

    def targets(self, answers: Iterable[str], unknown: UnknownAnswers) -> tuple[int, ...]:
        """The classes of a row's answers, each once, in their order; none where none is known and `unknown`
        is `wrong`. `len(self)` is the impossible class.

        Raises:
            ValueError: `class_u` without the class u.
        """
        found: dict[int, None] = {}
        for answer in answers:
            index = self.classes.get(answer)
            if index is None and unknown is not UnknownAnswers.wrong:
                index = self.class_u() if unknown is UnknownAnswers.class_u else len(self)
            if index is not None:
                found[index] = None
        return tuple(found)

    def best(self, k: int) -> int:
        """`k`, but not more than there are classes: top 10 of 4 classes raises in PyTorch."""
        return min(k, len(self))

    def class_u(self) -> int:
        """The class of `CLASS_U`.

        Raises:
            ValueError: there is none.
        """
        if CLASS_U not in self.classes:
            raise ValueError(f"unknown answers cannot be class_u: the vocabulary has no answer {CLASS_U!r}")
        return self.classes[CLASS_U]


def of_training(questions: Iterable[Question]) -> Vocabulary:
    """The distinct answers of a training split, sorted by code point; one occurrence is enough."""
    return Vocabulary(tuple(sorted({answer for question in questions for answer in question.answers})))


def of_directions(directions: int) -> Vocabulary:
    """MSNN's 4 or 8 directions, in the published spelling."""
    return Vocabulary(TEXTS[directions])


def of_dictionary(content: Sequence[dict[str, Any]], order: ClassOrder, where: str) -> Vocabulary:
    """SQA3D's and Hypo3D's two-part dictionary.

    Raises:
        ValueError: the two parts contradict each other, or numbers are missing.
    """
    numbers, answers = content
    in_order = []
    for index in range(len(numbers)):
        answer = answers.get(str(index))
        number = numbers.get(answer) if isinstance(answer, str) else None
        if type(number) is not int or number != index:  # true is an int, too
            raise ValueError(
                f"{where}: not a two-part answer dictionary: number {index} is {answer!r} in one part, whose "
                f"number is {number!r} in the other"
            )
        in_order.append(str(answer))
    if len(answers) != len(numbers):
        raise ValueError(f"{where}: {len(numbers)} answers in one part, {len(answers)} in the other")
    alphabetical = order is ClassOrder.alphabetical
    return Vocabulary(tuple(sorted(numbers) if alphabetical else in_order))


def read_vocabulary(path: Path, order: ClassOrder = ClassOrder.alphabetical) -> Vocabulary:
    """A vocabulary from a file: a two-part dictionary, ScanQA's training file, or a JSON list of answers in
    the order of the classes, as it is exported with a head.

    Raises:
        ValueError: none of these, or a list with an answer twice.
    """
    if path.suffix.lower() == ".json":
        content = load_json(path)
        if isinstance(content, list) and content and all(isinstance(each, str) for each in content):
            if twice := [answer for answer, count in Counter(content).items() if count > 1]:
                raise ValueError(f"{path}: the answer {twice[0]!r} stands there twice")
            return Vocabulary(tuple(content))
    opened = open_part(path)
    if opened.part is Part.VOCABULARY:
        return of_dictionary(opened.content, order, str(path))
    if opened.part is Part.SCANQA:
        rows = read_scanqa([opened])
        if rows.problems:
            raise ValueError(f"{path}: {len(rows.problems)} bad rows; the first is {rows.problems[0]}")
        found = of_training(rows.questions)
        if not found.answers:
            raise ValueError(
                f"{path}: a ScanQA file without answers; its vocabulary is that of the training file"
            )
        return found
    raise ValueError(
        f"{path}: {opened.part.value}; a vocabulary is an answer dictionary, a list, or ScanQA's training "
        "file"
    )
