"""Whose answers an output holds: what decides them, kept beside them, so that no other job replaces them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from jobs.common.objects import digest
from plinth.errors import ConfigError
from plinth.storage import Storage
from plinth.storage.json_objects import damaged, filled, read_json
from poma3d.llm.conversations import Conversation

RECORD = "answers/record.json"
FIX = "Give another output: all answers of one are of one checkpoint, asked alike."
MEND = "Give another output."


@dataclass(frozen=True)
class Record:
    """What decides the answers."""

    run: str
    step: int
    max_tokens: int
    model: str
    """Digest of the run's job, its metrics at the step and its encoder: of a run that was trained again."""
    questions: dict[str, str]
    """Kind -> digest of the questions as they were read."""

    def __post_init__(self) -> None:
        """Refuse what no record has, so that a damaged one is named."""
        if not all(isinstance(each, str) for each in self.questions.values()):
            raise TypeError("questions has values that are no text")


def record_of(recipe: Mapping[str, Any], asked: Mapping[str, Sequence[Conversation]]) -> Record:
    """The record of a job.

    Args:
        recipe: what decides the answers to a question.
        asked: kind -> its questions.
    """
    questions = {
        kind: digest([[each.sample_id, each.view, list(each.texts)] for each in said])
        for kind, said in asked.items()
    }
    return Record(recipe["run"], recipe["step"], recipe["max_tokens"], digest(dict(recipe)), questions)


def claim(output: Storage, record: Record) -> None:
    """Keep the record at the output, or refuse the output where other answers are; a kind may be added.

    Raises:
        ConfigError: naming what differs.
        StorageError: the record that is there is damaged.
    """
    if not output.exists(RECORD):
        for kind in record.questions:
            if output.exists(f"{kind}.jsonl"):
                raise ConfigError(f"{output.uri} has a {kind}.jsonl, and no {RECORD} says whose.", MEND)
        _write(output, record)
        return
    try:
        before = filled(Record, read_json(output, RECORD, MEND))
    except ValueError as error:
        raise damaged(output, RECORD, error, MEND) from None
    for name in ("run", "step", "max_tokens"):
        theirs, own = getattr(before, name), getattr(record, name)
        if theirs != own:
            raise ConfigError(
                f"{output.uri} holds the answers of {name} {theirs}, and this is {name} {own}.", FIX
            )
    if before.model != record.model:
        raise ConfigError(f"{output.uri} holds the answers of {before.run} before it was trained again.", FIX)
    for kind, own in record.questions.items():
        if before.questions.get(kind, own) != own:
            raise ConfigError(f"{output.uri} holds the answers to other questions of {kind}.", FIX)
    if not record.questions.keys() <= before.questions.keys():
        _write(output, Record(**{**asdict(record), "questions": before.questions | record.questions}))


def _write(output: Storage, record: Record) -> None:
    output.write(RECORD, json.dumps(asdict(record), indent=2, sort_keys=True).encode())
