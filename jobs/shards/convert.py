"""`poma shards convert OLD NEW`: a data set of format 1 (columns compressed whole) in the format of today, or
one of today with another codec.

The rows, their order, their ids and the row groups stay, so a plan over the new data set is the plan over the
old one. The old one is left as it is.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

from jobs.display.progress import Progress
from plinth.data import manifest as manifests
from plinth.data.config import ShardOptions
from plinth.data.manifest import CONVERTIBLE, MANIFEST_KEY, SHARD_FOLDER, VERSION_FOLDER, Manifest, ShardEntry
from plinth.data.shards import RowGroupReader, write_shard
from plinth.errors import ConfigError
from plinth.storage import Storage

PREVIOUS = "previous"
"""Attribute of a version: the hash of the manifest before it."""
REBUILT = "lift/"
"""What `poma lift` keeps of builds that are under way; it makes them again."""


def convert(old: Storage, new: Storage, options: ShardOptions) -> Manifest:
    """Write the data set at `old`, with all its versions, to `new`.

    Args:
        options: of the new shards; rows of a row group are those of the old shard, whatever it says.

    Returns:
        The newest manifest of `new`.

    Raises:
        ConfigError: there is a data set at `new` already.
        DataError: `old` is of a format that nobody can read any more, or a shard is damaged.
    """
    options.validate()
    if new.exists(MANIFEST_KEY) or new.uri == old.uri:
        raise ConfigError(f"{new.uri} is a data set already.", "Name a new folder: nothing is overwritten.")
    newest = manifests.load(old, CONVERTIBLE)
    numbers = manifests.versions(old)
    builds = {n: manifests.load(old.child(manifests.version_folder(n)), CONVERTIBLE) for n in numbers}
    shards = {shard.name: shard for build in (*builds.values(), newest) for shard in build.shards}
    converted = _convert_shards(old, new, list(shards.values()), options)
    hashes: dict[str, str] = {}
    for number, build in builds.items():
        made = _converted(build, converted, hashes)
        manifests.commit(new.child(manifests.version_folder(number)), made)
        hashes[build.hash] = made.hash
    _copy_files(old, new)
    made = _converted(newest, converted, hashes)
    manifests.commit(new, made)
    return manifests.load(new)


def _convert_shards(
    old: Storage, new: Storage, shards: list[ShardEntry], options: ShardOptions
) -> Mapping[str, ShardEntry]:
    """Old name -> new shard. Several at a time: encoding takes the time, and lets other threads run."""
    reader = RowGroupReader(old)
    progress = Progress("convert", "shards", len(shards))

    def one(shard: ShardEntry) -> ShardEntry:
        stem = shard.name.rpartition("/")[2].rpartition("-")[0]
        rows = max(shard.row_group_rows)
        entry = write_shard(new, stem, reader.read_shard(shard), replace(options, row_group_rows=rows))
        assert entry.row_group_rows == shard.row_group_rows, "all row groups but the last are of one size"
        return entry

    made = {}
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for shard, entry in zip(shards, pool.map(one, shards), strict=True):
            made[shard.name] = entry
            progress.advance()
    return made


def _converted(build: Manifest, shards: Mapping[str, ShardEntry], hashes: Mapping[str, str]) -> Manifest:
    attributes: dict[str, Any] = dict(build.attributes)
    if attributes.get(PREVIOUS) in hashes:
        attributes[PREVIOUS] = hashes[attributes[PREVIOUS]]
    return Manifest([shards[shard.name] for shard in build.shards], attributes)


def _copy_files(old: Storage, new: Storage) -> None:
    """Everything beside shards and manifests: tables of rejects, pictures."""
    for key, _ in old.list(""):
        is_version = key.startswith(f"{VERSION_FOLDER}/")
        if key.startswith((f"{SHARD_FOLDER}/", REBUILT)) or key.rpartition("/")[2] == MANIFEST_KEY:
            continue
        if "/" not in key or is_version:
            new.write(key, old.read(key))
