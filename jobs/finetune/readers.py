"""Annotations and vocabularies of a job, from wherever they lie."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path, PurePosixPath

from plinth.errors import ConfigError, DataError
from plinth.storage import MissingKeyError, Storage, StorageOptions
from poma3d.annotations import rooms
from poma3d.annotations.rows import Annotations, Question

READERS: dict[str, Callable[[Sequence[Path]], Annotations]] = {rooms.KIND: rooms.read}
"""Kind of annotations -> reader of its files."""
SHOWN = 3


def read_questions(task: str, uris: Sequence[str], options: StorageOptions, split: str) -> list[Question]:
    """The questions of a split.

    Bad rows are counted and the first few named, on the terminal.

    Raises:
        ConfigError: no such kind, or a file that is not there.
        DataError: no question in the files, or the same id twice.
    """
    if task not in READERS:
        raise ConfigError(f"qa.task is '{task}'.", f"Use one of {', '.join(READERS)}.")
    with tempfile.TemporaryDirectory() as folder:
        files = [_local(uri, options, Path(folder) / str(i), split) for i, uri in enumerate(uris)]
        try:
            found = READERS[task](files)
        except ValueError as error:
            raise DataError(f"{split}.annotations: {error}.", f"Give files of {task}.") from None
    if found.problems:
        first = "; ".join(f"{p.file} row {p.row}: {p.reason}" for p in found.problems[:SHOWN])
        print(f"{split}: {len(found.problems)} row(s) left out: {first}")
    questions = found.questions
    if not questions:
        raise DataError(f"{split}.annotations hold no question.", f"Give files of {task}.")
    seen: set[str] = set()
    for question in questions:
        if question.question_id in seen:
            raise DataError(
                f"{split}.annotations have two questions of the id {question.question_id}.",
                "Give each file once.",
            )
        seen.add(question.question_id)
    return questions


def read_vocabulary(uri: str, options: StorageOptions) -> list[str]:
    """The answers of a vocabulary file, in an order of their own.

    A list is kept in its order. SQA3D's `answer_dict.json`, a pair of {answer: id} and {id: answer}, is
    sorted: the public code does not use its ids.

    Raises:
        ConfigError: no such file, or not a vocabulary.
    """
    try:
        found = json.loads(_read(uri, options))
    except ValueError as error:
        raise ConfigError(f"qa.vocabulary {uri} is not JSON: {error}.") from None
    except MissingKeyError:
        raise ConfigError(f"qa.vocabulary {uri} does not exist.", "Check the path.") from None
    if isinstance(found, list) and len(found) == 2 and all(isinstance(part, dict) for part in found):
        found = sorted(found[0])
    if not isinstance(found, list) or not all(isinstance(text, str) for text in found):
        raise ConfigError(
            f"qa.vocabulary {uri} is no list of answers.",
            "Give a JSON list of texts, or SQA3D's answer_dict.json.",
        )
    return found


def _local(uri: str, options: StorageOptions, folder: Path, split: str) -> Path:
    """A local copy, of the same name."""
    name = PurePosixPath(uri).name
    folder.mkdir()
    try:
        (folder / name).write_bytes(_read(uri, options))
    except MissingKeyError:
        raise ConfigError(f"{split}.annotations: {uri} does not exist.", "Check the path.") from None
    return folder / name


def _read(uri: str, options: StorageOptions) -> bytes:
    folder, slash, name = uri.rpartition("/")
    return Storage.from_uri(folder or slash or ".", options).read(name)
