"""What a data set of `poma ingest` was built from (`inputs.json` beside its manifest), and what has changed.

Readers that say which files a scene is read from (`poma3d.scenes.frame.NamesInputs`) have a record per
scene; of others, and of data sets from before this record, it is unknown whether their inputs changed.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict

from jobs.display.text import some
from plinth.data.inputs import InputRecord, files_below, is_same, record
from plinth.data.manifest import ShardEntry
from plinth.digests import json_digest
from plinth.errors import ConfigError, DataError
from plinth.storage import MissingKeyError, Storage
from poma3d.scenes.frame import NamesInputs, Reader

INPUTS_KEY = "inputs.json"
THREADS = 16


def record_scenes(
    reader: Reader, scene_ids: Sequence[str], output: Storage, whole: bool
) -> dict[str, InputRecord]:
    """What scenes are read from; empty for a reader that does not say."""
    if not isinstance(reader, NamesInputs):
        return {}
    return {scene: record(files_below(reader.inputs(scene), output), whole) for scene in scene_ids}


def write_inputs(output: Storage, shards: Sequence[ShardEntry], records: Mapping[str, InputRecord]) -> None:
    """Keep the records of these shards; goes before the manifest, which makes the data set count."""
    scenes = {scene: asdict(records[scene]) for scene in sorted(records)}
    content = {"shards": _shards_digest(shards), "scenes": scenes}
    output.write(INPUTS_KEY, (json.dumps(content, indent=1) + "\n").encode())


def refuse_changes(
    output: Storage,
    shards: Sequence[ShardEntry],
    reader: Reader,
    scene_ids: Callable[[], list[str]],
    read_all: bool,
) -> str:
    """Compare the inputs with the record of a data set that is built.

    Args:
        shards: of the data set that is there.
        scene_ids: lists the scans that belong to the data set now.
        read_all: believe no time of change (`--check-inputs`).

    Returns:
        What could not be compared, in words; empty when all was.

    Raises:
        ConfigError: inputs were added or changed.
        DataError: the record cannot be read.
    """
    if not isinstance(reader, NamesInputs):
        return ""
    try:
        before = _read(output, shards)
    except MissingKeyError:
        return "it has no record of its inputs, so it is unknown whether they have changed"
    try:
        there = scene_ids()
    except ValueError as error:
        return f"its inputs are not there any more, so they were not compared ({error})"
    known = [scene for scene in there if scene in before]

    def unchanged(scene: str) -> bool:
        return is_same(before[scene], files_below(reader.inputs(scene), output), read_all)

    with ThreadPoolExecutor(THREADS) as pool:
        same = list(pool.map(unchanged, known))
    changed = [scene for scene, is_unchanged in zip(known, same, strict=True) if not is_unchanged]
    added = [scene for scene in there if scene not in before]
    found = [_named(added, "added"), _named(changed, "changed")]
    if any(found):
        raise ConfigError(
            f"{output.uri} was built before its inputs were as they are: {'; '.join(filter(None, found))}.",
            "overwrite=true builds it again from what is there now; or give another output.",
        )
    parts = [_named([scene for scene in before if scene not in there], "no longer there")]
    if read_all and (sampled := [scene for scene in known if not before[scene].whole]):
        parts.append(
            f"of {len(sampled)} of {len(before)} scans not every byte was recorded: pictures are known by "
            "their size, large files by samples (build with --check-inputs to record all)"
        )
    return "; ".join(filter(None, parts))


def _shards_digest(shards: Sequence[ShardEntry]) -> str:
    """By which a record is known to be of a build: names of shards carry a hash of their content."""
    return json_digest([shard.name for shard in shards])


def _read(output: Storage, shards: Sequence[ShardEntry]) -> dict[str, InputRecord]:
    try:
        content = json.loads(output.read(INPUTS_KEY))
        if content["shards"] != _shards_digest(shards):
            raise ConfigError(
                f"{output.uri}: a build from other inputs began there and did not finish.",
                "overwrite=true builds it again; or give another output.",
            )
        return {scene: InputRecord(**kept) for scene, kept in content["scenes"].items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(
            f"{output.uri}/{INPUTS_KEY} is not the record of what the data set was built from ({error}).",
            "Restore it, or delete it: it is then unknown whether the inputs have changed.",
        ) from None


def _named(scenes: Sequence[str], what: str) -> str:
    """How many scans, and the first of them; empty for none."""
    count = f"{len(scenes)} scan{'s' if len(scenes) > 1 else ''}"
    return f"{count} {what} ({some(scenes)})" if scenes else ""
