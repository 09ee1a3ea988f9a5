"""Annotations and vocabularies of a job, from wherever they lie."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

import numpy as np

from jobs.finetune.config import QaConfig
from plinth.errors import ConfigError, DataError
from plinth.redaction import printable
from plinth.storage import MissingKeyError, Storage, StorageOptions
from plinth.units import counted
from poma3d.annotations import rooms, vocabulary
from poma3d.annotations.poses import NEEDED, agent_of
from poma3d.annotations.read import read
from poma3d.annotations.rows import Question
from poma3d.annotations.scan_frames import ScanFrames
from poma3d.annotations.vocabulary import Vocabulary

DIRECTIONS = "msnn"
"""Its answers are directions: the vocabulary is known."""
TASKS = ("scanqa", "sqa3d", "hypo3d", DIRECTIONS, rooms.KIND)
SHOWN = 3


def read_questions(qa: QaConfig, uris: Sequence[str], options: StorageOptions, split: str) -> list[Question]:
    """The questions of a split.

    Bad rows are counted and the first few named, on the terminal.

    Raises:
        ConfigError: no such kind, or a file that is not there.
        DataError: no question in the files, files of another kind, or the same id twice.
    """
    if qa.task not in TASKS:
        raise ConfigError(f"qa.task is '{qa.task}'.", f"Use one of {', '.join(TASKS)}.")
    with tempfile.TemporaryDirectory() as folder:
        files = [
            _local(uri, options, Path(folder) / str(i), f"{split}.annotations") for i, uri in enumerate(uris)
        ]
        try:
            if qa.task == rooms.KIND:
                found = rooms.read(files)
            else:
                found = read(qa.task, files, directions=qa.directions)
        except ValueError as error:
            reason = _by_their_names(str(error), files, uris)
            raise DataError(f"{split}.annotations: {reason}.", f"Give files of {qa.task}.") from None
        problems = [_by_their_names(str(problem), files, uris) for problem in found.problems]
    if problems:
        print(f"{split}: {counted(len(problems), 'bad row')}: {'; '.join(map(printable, problems[:SHOWN]))}")
    questions = found.questions
    seen: set[str] = set()
    for question in questions:
        if question.question_id in seen:
            raise DataError(
                f"{split}.annotations have two questions of the id {question.question_id}.",
                "Give each file once.",
            )
        seen.add(question.question_id)
    return questions


def agents_of(
    questions: Sequence[Question], scans: str | None, key: str, where: str
) -> list[np.ndarray | None]:
    """Where each question is asked from: float32 [3, 4], world -> whoever asks; None where it has no pose.
    Poses that cannot be brought to our frame are counted, on the terminal.

    Args:
        scans: folder with the text file and the mesh of each scan, for poses of their frames.
        key: of `scans` in the job, for messages.
        where: of the questions in the job, for messages.

    Raises:
        ConfigError: no such folder.
    """
    try:
        frames = None if scans is None else ScanFrames(Path(scans))
    except ValueError as error:
        raise ConfigError(f"{key}: {error}.") from None
    found: list[np.ndarray | None] = []
    without = 0
    for question in questions:
        agent = None
        if question.position is not None and question.orientation is not None:
            try:
                agent = _agent(question, frames)
            except ValueError:
                without += 1
        found.append(agent)
    if without:
        of = f"{without} of {len(questions)} questions"
        print(f"{where}: {of} have a pose that cannot be brought to our frame")
    return found


def _agent(question: Question, frames: ScanFrames | None) -> np.ndarray:
    """World -> agent.

    Raises:
        ValueError: its pose cannot be brought to our frame.
    """
    scan = None
    if frames is not None and NEEDED.get(question.frame):
        scan = frames.frame(question.scene_id, mesh=len(NEEDED[question.frame]) > 1)
    return agent_of(question, scan)


def read_vocabulary(uri: str, options: StorageOptions) -> Vocabulary:
    """The answers of a vocabulary file, in the order of the classes.

    Raises:
        ConfigError: no such file, or not a vocabulary.
    """
    with tempfile.TemporaryDirectory() as folder:
        file = _local(uri, options, Path(folder) / "vocabulary", "qa.vocabulary")
        try:
            return vocabulary.read_vocabulary(file)
        except ValueError as error:
            raise ConfigError(f"qa.vocabulary: {_by_their_names(str(error), [file], [uri])}.") from None


def _by_their_names(text: str, files: Sequence[Path], uris: Sequence[str]) -> str:
    """A message about local copies, about what they are copies of."""
    for file, uri in zip(files, uris, strict=True):
        text = text.replace(str(file), uri)
    return text


def _local(uri: str, options: StorageOptions, folder: Path, key: str) -> Path:
    """A local copy, of the same name."""
    name = PurePosixPath(uri).name
    folder.mkdir()
    try:
        (folder / name).write_bytes(_read(uri, options))
    except MissingKeyError:
        raise ConfigError(f"{key}: {uri} does not exist.", "Check the path.") from None
    return folder / name


def _read(uri: str, options: StorageOptions) -> bytes:
    folder, slash, name = uri.rpartition("/")
    return Storage.from_uri(folder or slash or ".", options).read(name)
