"""`poma shards verify`: every byte against the manifest, then every sample against what a sample is."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import pyarrow as pa

from jobs.common.datasets import Dataset
from jobs.display.text import some
from plinth.data.manifest import ShardEntry
from plinth.data.shards import RowGroupReader, verify
from plinth.errors import DataError
from plinth.redaction import printable
from plinth.units import counted
from poma3d.sample import TENSOR_COLUMNS, XYZ, decode, schema
from poma3d.sample_check import faults

CHECKED = (*(name for name in TENSOR_COLUMNS if name != "image_tokens"), XYZ)
"""Tokens are by far the largest column, and any number is one."""
TEXTS = ("sample_id", "scene_id")


def problems(dataset: Dataset) -> Iterator[tuple[str, str]]:
    """What is wrong with a data set, one line each, with the shard that it is in ("" where it is in none)."""
    damaged = {problem.shard: str(problem) for problem in verify(dataset.storage, dataset.manifest)}
    yield from damaged.items()
    reader = RowGroupReader(dataset.storage)
    found: dict[str, list[str]] = {}
    seen: set[str] = set()
    tally: Counter[str] = Counter()
    for shard in dataset.manifest.shards:
        if shard.name in damaged:
            continue
        try:
            for table in _tables(dataset, reader, shard):
                _look(table, found, seen, tally)
        except DataError as error:
            damaged[shard.name] = error.problem
            yield shard.name, error.problem
    for text, samples in found.items():
        yield "", f"{text}: {counted(len(samples), 'sample')}: {some([printable(name) for name in samples])}"
    if not damaged:
        stated = dataset.manifest.attributes["statistics"]
        for name, count in tally.items():
            if stated.get(name) != count:
                yield "", f"the manifest says {stated.get(name)} {name}, the shards hold {count}"


def _tables(dataset: Dataset, reader: RowGroupReader, shard: ShardEntry) -> Iterator[pa.Table]:
    """The row groups of a shard.

    Raises:
        DataError: it cannot be read as the manifest says, or its columns have other types or shapes.
    """
    wanted = [name for name in (*TEXTS, *CHECKED) if name in shard.columns]
    expected = schema(dataset.shape)
    for group in range(len(shard.row_group_rows)):
        table = reader.read(shard, group, wanted)
        for name in wanted:
            field = table.schema.field(name)
            if name not in expected.names or field.type != expected.field(name).type:
                where = f"{dataset.storage.uri}/{shard.name}: column {name} is {field.type}"
                stated = expected.field(name).type if name in expected.names else "no such column"
                raise DataError(f"{where}, and the shape in the manifest means {stated}.")
        yield table


def _look(table: pa.Table, found: dict[str, list[str]], seen: set[str], tally: Counter[str]) -> None:
    ids, scenes = (table.column(name).to_pylist() for name in TEXTS)
    names = [f"{scene} ({sample_id})" for scene, sample_id in zip(scenes, ids, strict=True)]
    for sample_id, name in zip(ids, names, strict=True):
        if sample_id in seen:
            found.setdefault("a sample_id that another sample has", []).append(name)
        seen.add(sample_id)
    arrays = decode(table, [name for name in CHECKED if name in table.schema.names])
    for text, rows in faults(arrays).items():
        found.setdefault(text, []).extend(name for name, bad in zip(names, rows, strict=True) if bad)
    tally["samples"] += len(ids)
    tally["views"] += int((arrays["view_valid"] > 0).sum())
