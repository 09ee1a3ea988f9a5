"""`poma score`: predictions against annotations, each figure with its protocol."""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path

from jobs.display.text import aligned
from plinth.errors import ConfigError, DataError
from plinth.redaction import printable
from poma3d.annotations import rooms
from poma3d.annotations.question_types import TypeRule
from poma3d.annotations.read import read
from poma3d.annotations.rows import Annotations
from poma3d.annotations.scoring.predictions import read_answers, read_locations, refuse_strangers
from poma3d.annotations.scoring.score import Options, Part, Score, score_answers, score_locations
from poma3d.annotations.vocabulary import UnknownAnswers, read_vocabulary


def run(arguments: argparse.Namespace) -> int:
    """Score, print, write."""
    check(arguments)
    try:
        found = annotations_of(arguments)
        score = score_of(arguments, found)
    except ValueError as error:
        raise DataError(str(error)) from None
    score.remarks.extend(remarks_on(found))
    print("\n".join(lines(arguments.task, score)))
    if arguments.json is not None:
        write(arguments.json, {"task": arguments.task, "options": options_of(arguments), **score.to_dict()})
    return 0


def check(arguments: argparse.Namespace) -> None:
    """Refuse flags that contradict each other, before anything is read.

    Raises:
        ConfigError: says which.
    """
    if arguments.k < 1:
        raise ConfigError(f"--k is {arguments.k}: it counts answers.", "Give 1 or more.")
    if arguments.vocabulary is not None and arguments.unknown_answers is None:
        raise ConfigError(
            "--vocabulary without --unknown-answers: public code treats answers outside it in three ways, "
            "with three scores.",
            "Say wrong, class_u or impossible.",
        )
    if arguments.vocabulary is None and arguments.unknown_answers is not None:
        raise ConfigError("--unknown-answers without --vocabulary: there is nothing to be outside of.")
    if arguments.vocabulary is not None and arguments.task in ("msnn", "localisation"):
        raise ConfigError(f"{arguments.task} has no vocabulary of its own.", "Leave --vocabulary out.")
    if arguments.json is not None and not arguments.json.parent.is_dir():
        raise ConfigError(f"--json {arguments.json}: there is no folder {arguments.json.parent}.")


def annotations_of(arguments: argparse.Namespace) -> Annotations:
    """The rows of the annotation files.

    Raises:
        ValueError: a file that cannot be used.
    """
    if arguments.task == rooms.KIND:
        return rooms.read(arguments.annotations)
    return read(arguments.task, arguments.annotations, directions=arguments.directions)


def score_of(arguments: argparse.Namespace, found: Annotations) -> Score:
    """The score of the predictions.

    Raises:
        ValueError: a file that cannot be used, or ids that do not match.
    """
    path: Path = arguments.predictions
    if arguments.task == "localisation":
        located = read_locations(path)
        refuse_strangers(path, located, [row.text_id for row in found.camera_texts])
        return score_locations(found.camera_texts, located)
    answered = read_answers(path)
    refuse_strangers(path, answered, [row.question_id for row in found.questions])
    options = Options(
        k=arguments.k,
        vocabulary=None if arguments.vocabulary is None else read_vocabulary(arguments.vocabulary),
        unknown=UnknownAnswers(arguments.unknown_answers or UnknownAnswers.wrong.value),
        rule=TypeRule(arguments.question_types),
        directions=arguments.directions,
    )
    return score_answers(arguments.task, found.questions, answered, options)


def remarks_on(found: Annotations) -> list[str]:
    """What is wrong with the annotations."""
    lost = sum(not problem.kept for problem in found.problems)
    see = "" if found.kind == rooms.KIND else ": see `poma annotations check`"
    remarks = [f"{lost} bad rows of the annotations are left out{see}"] if lost else []
    return remarks + [f"{problem.file}: {problem.reason}" for problem in found.problems if not problem.row]


def options_of(arguments: argparse.Namespace) -> dict[str, object]:
    """The choices that decide the figures."""
    names = {
        "sqa3d": ("k", "question_types", "unknown_answers"),
        "msnn": ("k", "directions"),
        "localisation": (),
    }
    chosen = names.get(arguments.task, ("k", "unknown_answers"))
    return {name: getattr(arguments, name) for name in chosen}


def lines(task: str, score: Score) -> list[str]:
    """For a terminal: each figure with its protocol, then the figures of each type."""
    missing = f", {score.missing} missing: they count as wrong" if score.missing else ""
    table = [(name, f"{value:.2f} %", score.protocols[name]) for name, value in score.figures.items()]
    out = [f"{task}: {score.rows} rows{missing}", *(f"  {line}" for line in aligned(table, right=(1,)))]
    if score.by_type:
        head = ("type", "rows", "missing", *score.figures)
        rows = [_cells(name, part) for name, part in score.by_type.items()]
        out += ["", *(f"  {line}" for line in aligned([head, *rows], right=range(1, len(head))))]
    return out + [printable(remark) for remark in score.remarks]


def _cells(name: str, part: Part) -> tuple[str, ...]:
    figures = [f"{value:.2f}" for value in part.figures.values()]
    return (printable(name), str(part.rows), str(part.missing), *figures)


def write(path: Path, record: dict[str, object]) -> None:
    """Write JSON whole or not at all.

    Raises:
        DataError: it cannot be written.
    """
    half = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        half.write_text(json.dumps(record, indent=2) + "\n")
        half.replace(path)
    except OSError as error:
        half.unlink(missing_ok=True)
        raise DataError(f"{path}: cannot be written ({error.strerror}).") from None
