"""`poma questions`: questions with true answers about a data set of procedural rooms, as annotations.

The same rooms and seed give the same file. With `--tower` there is also a text tower to read them with: a
small BERT with new weights, in place of a published one, which cannot be had without a network.
"""

from __future__ import annotations

import argparse
from collections import Counter

from jobs.common.datasets import open_dataset
from jobs.common.flags import storage_options
from jobs.questions.tower import write_tower
from plinth.data.shards import RowGroupReader
from plinth.errors import ConfigError, DataError
from plinth.storage import Storage, StorageOptions
from poma3d.annotations import rooms
from poma3d.annotations.rows import Question
from poma3d.synthetic import questions

FILE = "questions.jsonl"


def run(arguments: argparse.Namespace) -> int:
    """Write the file and say what it holds; returns the exit code."""
    if arguments.per_type < 1 or arguments.seed < 0:
        raise ConfigError("--per-type must be 1 or more, --seed 0 or more.")
    options = storage_options(arguments)
    found = ask(arguments.data, options, arguments.per_type, arguments.seed, arguments.types)
    output = arguments.output or f"{arguments.data.rstrip('/')}/{FILE}"
    folder, slash, name = output.rpartition("/")
    Storage.from_uri(folder or slash or ".", options).write(name, rooms.write(found).encode())
    counts = Counter(question.question_type for question in found)
    listed = ", ".join(f"{count} {kind}" for kind, count in counts.items())
    print(f"{output}: {len(found)} questions: {listed}")
    if arguments.tower is not None:
        try:
            words = write_tower(found, arguments.tower, arguments.seed)
        except ValueError as error:
            raise ConfigError(f"--tower: {error}.", "Name another folder.") from None
        print(f"{arguments.tower}: an untrained text tower of {words} words")
    return 0


def ask(uri: str, options: StorageOptions, per_type: int, seed: int, types: list[str]) -> list[Question]:
    """Questions about the rooms of a data set.

    Raises:
        DataError: no data set there, or not one of rooms.
    """
    dataset = open_dataset(uri, options)
    reader = RowGroupReader(dataset.storage)
    scenes: dict[str, list[str]] = {}
    for shard in dataset.manifest.shards:
        table = reader.read_shard(shard, ["scene_id", "scene_captions"])
        scenes |= dict(zip(table["scene_id"].to_pylist(), table["scene_captions"].to_pylist(), strict=True))
    try:
        return questions.ask(scenes, per_type, seed, types)
    except ValueError as error:
        raise DataError(
            f"{dataset.storage.uri}: {error}.", "Give scenes that `poma ingest` made with reader.kind=rooms."
        ) from None
