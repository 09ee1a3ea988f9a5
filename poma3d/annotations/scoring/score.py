"""Scores over all rows and per type, in percent.

A missing prediction counts as wrong. A row without an answer cannot be scored and is left out of the rows,
and said. A mean is over rows, never over types.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from poma3d.annotations.directions import TEXTS, direction_of
from poma3d.annotations.names import ROOMS
from poma3d.annotations.question_types import OTHER, TypeRule, sqa3d_type
from poma3d.annotations.rows import CameraText, Question
from poma3d.annotations.scoring import hypo3d, localisation, matching
from poma3d.annotations.scoring.predictions import Answered, Located
from poma3d.annotations.vocabulary import CLASS_U, UnknownAnswers, Vocabulary

PERCENT = 100.0
PROTOCOLS = {
    "raw": "first answer equal to a listed one, nothing cleaned (ScanQA's EM@1; classifiers)",
    "strict": "equal after cleaning (MSR3D's EM)",
    "leo": "LEO's EM: ended by the first listed answer that agrees in any way",
    "refined": "EM-R: one text holds the other (takes an empty answer; never a headline)",
    "hypo3d_em": "Hypo3D's metric_compute: equal after its normaliser",
    "hypo3d_pm": "Hypo3D's metric_compute: shared words over the words of the answer",
    "accuracy": "MSNN: the direction itself, spelt with the published typo or without",
    "invalid": "MSNN: answers that are no direction, and missing ones",
    "position": "SQA3D's localisation: the best of up to three guesses, in x and y",
    "rotation": "SQA3D's localisation: the best of up to three guesses, about z",
    "em": "one of the first answers equal to a listed one, nothing cleaned (classifiers)",
}
"""Figure, without the numbers at its end -> the protocol."""
FIGURES: dict[str, tuple[str, ...]] = {
    "scanqa": ("raw", "strict", "leo", "refined"),
    "sqa3d": ("raw", "strict", "leo", "refined"),
    "hypo3d": ("raw", "hypo3d_em", "hypo3d_pm"),
    ROOMS: ("raw", "strict"),
}
RULES: dict[str, Callable[[str, Sequence[str]], bool]] = {
    "strict": matching.strict,
    "leo": matching.leo,
    "refined": matching.refined,
}


@dataclass(frozen=True)
class Part:
    """The figures of some rows, in percent and not rounded."""

    rows: int
    missing: int
    figures: dict[str, float]


@dataclass(frozen=True)
class Score(Part):
    """The figures of all rows, and of each type."""

    by_type: dict[str, Part] = field(default_factory=dict)
    protocols: dict[str, str] = field(default_factory=dict)
    """Figure -> its protocol in words."""
    remarks: list[str] = field(default_factory=list)
    """What a reader of the figures has to know."""

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


@dataclass(frozen=True)
class Options:
    """How answers are scored."""

    k: int = 10
    """How many answers of a list count for em; not more than there are classes."""
    vocabulary: Vocabulary | None = None
    """The classifier's; `raw` and `em` are then of classes. None compares texts."""
    unknown: UnknownAnswers = UnknownAnswers.wrong
    """What becomes of listed answers that the vocabulary lacks."""
    rule: TypeRule = TypeRule.prefix
    """How SQA3D's questions are told apart."""
    directions: int = 4
    """MSNN: 4 or 8."""


def score_answers(
    task: str, questions: Sequence[Question], predictions: Mapping[str, Answered], options: Options
) -> Score:
    """Score predicted answers.

    Args:
        task: `scanqa`, `sqa3d`, `hypo3d`, `msnn` or `rooms`.

    Raises:
        ValueError: no question has an answer, or a prediction is not in the vocabulary.
    """
    asked = [question for question in questions if question.answers]
    if not asked:
        raise ValueError(
            "the annotations have no answers: a test set without them is scored by its server; give the "
            "annotation file, too, if there is one"
        )
    remarks = []
    if len(asked) < len(questions):
        remarks.append(f"{len(questions) - len(asked)} rows without an answer are left out")
    if task == "msnn":
        options = _with_directions(options)
    k, remark = _best(predictions, options)
    remarks += remark
    if options.vocabulary is not None and task != "msnn":
        _refuse_other_vocabulary(predictions, options.vocabulary)
        remarks += _ceiling(asked, options.vocabulary, options.unknown)
    scores = [_of_row(task, row, predictions.get(row.question_id), k, options) for row in asked]
    types = [_types(task, row, options.rule) for row in asked]
    missing = [row.question_id not in predictions for row in asked]
    return _collect(scores, types, missing, remarks)


def score_locations(rows: Sequence[CameraText], predictions: Mapping[str, Located]) -> Score:
    """Score predicted cameras by SQA3D's localisation metric.

    Raises:
        ValueError: a row is none of SQA3D's.
    """
    scores = []
    for row in rows:
        if row.orientation is None:
            raise ValueError(f"{row.text_id}: no pose of SQA3D's localisation task, whose metric this is")
        guess = predictions.get(row.text_id, Located((), ()))
        scores.append(localisation.score(row.position, row.orientation, guess.positions, guess.rotations))
    missing = [row.text_id not in predictions for row in rows]
    return _collect(scores, [() for _ in rows], missing, [])


def protocol_of(figure: str) -> str:
    """The protocol of a figure, `em10` among them."""
    return next(text for name, text in PROTOCOLS.items() if figure.startswith(name))


def _with_directions(options: Options) -> Options:
    return Options(options.k, Vocabulary(TEXTS[options.directions]), directions=options.directions)


def _best(predictions: Mapping[str, Answered], options: Options) -> tuple[int, list[str]]:
    """How many answers count for em, 0 where there are no lists, and what to say about it."""
    single = sum(not each.listed for each in predictions.values())
    if single == len(predictions):
        return 0, []
    if single:
        return 0, [f"no em: {single} of {len(predictions)} predictions are a single answer, no list"]
    k = options.k if options.vocabulary is None else options.vocabulary.best(options.k)
    remarks = [f"the best {options.k} are cut to the {k} classes that there are"] if k < options.k else []
    shortest = min(len(each.answers) for each in predictions.values())
    if shortest < k:
        remarks.append(f"em{k}: some lists are shorter, the shortest has {shortest} answers")
    return k, remarks


def _refuse_other_vocabulary(predictions: Mapping[str, Answered], vocabulary: Vocabulary) -> None:
    for key, each in predictions.items():
        for answer in each.answers:
            if answer not in vocabulary:
                raise ValueError(
                    f"{each.where} (id {key}): the answer {answer!r} is not in the "
                    f"vocabulary of {len(vocabulary)}: the head was trained with another one. Leave "
                    "--vocabulary out for generated answers"
                )


def _ceiling(asked: Sequence[Question], vocabulary: Vocabulary, unknown: UnknownAnswers) -> list[str]:
    """What a classifier can reach at most."""
    lost = sum(not any(answer in vocabulary for answer in row.answers) for row in asked)
    if unknown is UnknownAnswers.class_u:
        vocabulary.class_u()
        return [
            f"{lost} rows have no answer in the vocabulary: predicting {CLASS_U!r} is right there (class_u)"
        ]
    most = PERCENT * (len(asked) - lost) / len(asked)
    return [
        f"{lost} rows have no answer in the vocabulary and are wrong: at most {most:.2f} % ({unknown.value})"
    ]


def _of_row(
    task: str, row: Question, predicted: Answered | None, k: int, options: Options
) -> dict[str, float]:
    if task == "msnn":
        return _direction(row, predicted, k, options.directions)
    names = FIGURES[task] + ((f"em{k}",) if k else ())
    if predicted is None:
        return dict.fromkeys(names, 0.0)
    first = predicted.answers[0]
    classes = _classes(row, options)
    found = {
        "raw": float(matching.raw(first, classes)),
        f"em{k}": float(matching.among(predicted.answers, classes, k)),
        "hypo3d_em": hypo3d.exact(first, row.answers[0]) if task == "hypo3d" else 0.0,
        "hypo3d_pm": hypo3d.partial(first, row.answers[0]) if task == "hypo3d" else 0.0,
    }
    found |= {name: float(RULES[name](first, row.answers)) for name in names if name in RULES}
    return {name: found[name] for name in names}


def _classes(row: Question, options: Options) -> Sequence[str]:
    """The answers that count as right for a classifier; all of them where there is no vocabulary."""
    if options.vocabulary is None:
        return row.answers
    known = [answer for answer in row.answers if answer in options.vocabulary]
    unknown = len(known) < len(row.answers)
    return [*known, CLASS_U] if unknown and options.unknown is UnknownAnswers.class_u else known


def _direction(row: Question, predicted: Answered | None, k: int, directions: int) -> dict[str, float]:
    guesses = [direction_of(each, directions) for each in predicted.answers] if predicted else [None]
    found = {
        f"accuracy{directions}": float(guesses[0] == row.choice),
        "invalid": float(guesses[0] is None),
    }
    return {**found, f"em{k}": float(row.choice in guesses[:k])} if k else found


def _types(task: str, row: Question, rule: TypeRule) -> tuple[str, ...]:
    """The types that a row counts in."""
    if task == "sqa3d":
        return (sqa3d_type(row.question, rule),)
    if task == "hypo3d":
        found = [*row.question_type.split(), row.change_type]
        return tuple(dict.fromkeys(each for each in found if each))
    return (row.question_type or OTHER,)


def _collect(
    scores: Sequence[dict[str, float]],
    types: Sequence[Iterable[str]],
    missing: Sequence[bool],
    remarks: list[str],
) -> Score:
    by_type: defaultdict[str, list[int]] = defaultdict(list)
    for index, names in enumerate(types):
        for name in names:
            by_type[name].append(index)
    whole = _mean(range(len(scores)), scores, missing)
    parts = {name: _mean(rows, scores, missing) for name, rows in sorted(by_type.items())}
    protocols = {name: protocol_of(name) for name in whole.figures}
    return Score(whole.rows, whole.missing, whole.figures, parts, protocols, remarks)


def _mean(rows: Sequence[int], scores: Sequence[dict[str, float]], missing: Sequence[bool]) -> Part:
    names = scores[0]
    figures = {name: PERCENT * sum(scores[row][name] for row in rows) / len(rows) for name in names}
    return Part(len(rows), sum(missing[row] for row in rows), figures)
