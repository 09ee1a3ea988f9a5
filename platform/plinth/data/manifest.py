"""The manifest: the one file that says which shards a data set is made of.

It is written last, under one fixed key, and shards carry a hash of their content in their names: so a
data set that is being rewritten is either the old one or the new one, never a mixture.

    MANIFEST.json                        this file
    shards/<name>-<hash>.parquet         the rows (`plinth.data.shards`)
    versions/000003/MANIFEST.json        where builds are kept: the third, as it was. Names of shards are
                                         relative to the data set, not to this folder

`s3://bucket/images#3` names the third build of a data set, `s3://bucket/images` the newest.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Collection
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from plinth.digests import json_digest
from plinth.errors import DataError
from plinth.storage import MissingKeyError, Storage

log = logging.getLogger(__name__)

FORMAT_VERSION = 2
READABLE = frozenset({FORMAT_VERSION})
CONVERTIBLE = frozenset({1, FORMAT_VERSION})
"""Format versions that `poma shards convert` reads. Version 1 has no packed columns."""
MANIFEST_KEY = "MANIFEST.json"
SHARD_FOLDER = "shards"
VERSION_FOLDER = "versions"
VERSION_MARK = "#"


@dataclass(frozen=True)
class ShardEntry:
    """What the manifest knows of one shard."""

    name: str
    """Key relative to the data set, e.g. shards/train-00000-9f86d081884c7d65.parquet."""
    rows: int
    size_bytes: int
    sha256: str
    """SHA-256 of the whole file, hexadecimal."""
    row_group_rows: list[int]
    """Rows of each row group, in file order."""
    footer_bytes: int
    """Length of the Parquet footer with its trailer, so that one request fetches it."""
    footer_sha256: str
    """SHA-256 of the footer, hexadecimal: Parquet has checksums for its pages but none for its footer."""
    codecs: dict[str, str] = field(default_factory=dict)
    """Packed column -> how its frames are compressed. Shards of one data set may differ in it."""
    columns: dict[str, str] = field(default_factory=dict)
    """Column name -> type and metadata once it is decoded, in words that two shards can be compared by."""


@dataclass(frozen=True)
class Manifest:
    """The shards of a data set, in order, and what their owner says about them.

    `attributes` belongs to the caller. Two of its keys are read by the platform when data sets are
    mixed: `teacher` and `schema_version` must then agree.
    """

    shards: list[ShardEntry]
    attributes: dict[str, Any] = field(default_factory=dict)
    format_version: int = FORMAT_VERSION

    @property
    def rows(self) -> int:
        """Rows of all shards."""
        return sum(shard.rows for shard in self.shards)

    @property
    def columns(self) -> dict[str, str]:
        """Column name -> type and metadata, the same for every shard."""
        return self.shards[0].columns if self.shards else {}

    @cached_property
    def hash(self) -> str:
        """Hash of everything in here: two data sets with the same hash are the same data."""
        return json_digest(_to_dict(self))


def commit(storage: Storage, manifest: Manifest) -> None:
    """Make `manifest` the data set at `storage`. Its shards must be there already.

    Raises:
        DataError: two shards of one name, or of different columns.
    """
    seen: set[str] = set()
    for shard in manifest.shards:
        if shard.name in seen:
            raise DataError(
                f"{storage.uri}: shard {shard.name} is listed twice.",
                "Drop one of them.",
            )
        seen.add(shard.name)
        if shard.columns != manifest.columns:
            pair = f"{manifest.shards[0].name} and {shard.name}"
            raise DataError(
                f"{storage.uri}: {pair} differ in {differing_columns(manifest.columns, shard.columns)}.",
                "Build all shards of a data set with the same schema.",
            )
    content = json.loads(json.dumps(_to_dict(manifest)))  # as it will be read: JSON has no integer keys
    text = json.dumps(content | {"sha256": json_digest(content)}, indent=1) + "\n"
    storage.write(MANIFEST_KEY, text.encode())


def load(storage: Storage, versions: Collection[int] = READABLE) -> Manifest:
    """The manifest of the data set at `storage`. One that was altered on its way is read again.

    Raises:
        DataError: there is none, it cannot be read, or it is of another format version.
        StorageError: the storage cannot be used.
    """
    try:
        return _load(storage, versions)
    except _NotAManifest as error:
        log.warning("%s Reading it again.", error.problem)
        return _load(storage, versions)


def split_version(uri: str) -> tuple[str, int | None]:
    """The folder and the version that `uri` names; None for the newest."""
    folder, mark, number = uri.rpartition(VERSION_MARK)
    return (folder, int(number)) if mark and number.isdecimal() else (uri, None)


def with_version(uri: str, version: int | None) -> str:
    """The inverse of `split_version`."""
    return uri if version is None else f"{uri}{VERSION_MARK}{version}"


def version_folder(version: int) -> str:
    """Where the manifest of a version lies in the data set."""
    return f"{VERSION_FOLDER}/{version:06d}"


def versions(storage: Storage) -> list[int]:
    """The builds of a data set that are kept, oldest first; none where builds are not kept."""
    keys = [key.split("/") for key, _ in storage.list(VERSION_FOLDER)]
    return sorted(int(parts[1]) for parts in keys if parts[2:] == [MANIFEST_KEY] and parts[1].isdecimal())


def load_version(storage: Storage, version: int | None) -> Manifest:
    """The manifest of one build of the data set at `storage`; of the newest when None.

    Raises:
        DataError: there is no such version; says which there are. Else as `load`.
    """
    if version is None:
        return load(storage)
    folder = storage.child(version_folder(version))
    if not folder.exists(MANIFEST_KEY):
        there = ", ".join(map(str, versions(storage))) or "none: its builds are not kept"
        raise DataError(
            f"{storage.uri} has no version {version}; there are {there}.",
            f"Name one of them after {VERSION_MARK}, or leave {VERSION_MARK}{version} out for the newest.",
        )
    return load(folder)


class _NotAManifest(DataError):
    """A manifest that is not what was written."""


def _load(storage: Storage, readable: Collection[int]) -> Manifest:
    try:
        text = storage.read(MANIFEST_KEY)
    except MissingKeyError as error:
        raise DataError(
            f"{storage.uri} is not a finished data set: there is no {MANIFEST_KEY}.",
            "Check the path, or build the data set again: the manifest is written last.",
        ) from error
    where = f"{storage.uri}/{MANIFEST_KEY}"
    try:
        content = json.loads(text)
        expected = content.pop("sha256", None)
        version = content["format_version"]
        if version not in readable:
            raise DataError(
                f"{where} has format version {version}, this program reads {FORMAT_VERSION}.",
                "Convert it: poma shards convert OLD NEW." if version in CONVERTIBLE
                else "Build the data set again, or use the version of this program that wrote it.",
            )  # fmt: skip
        columns = dict(content["columns"])
        shards = [ShardEntry(**entry, columns=columns) for entry in content["shards"]]
        manifest = Manifest(shards, content["attributes"], version)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise _NotAManifest(
            f"{where} is not a manifest ({type(error).__name__}: {error}).", "Build the data set again."
        ) from error
    if expected != json_digest(content):
        raise _NotAManifest(
            f"{where} is not the manifest that was written: its SHA-256 differs.",
            "Build the data set again, or restore the object.",
        )
    return manifest


def prune(storage: Storage, manifest: Manifest) -> list[str]:
    """Delete shards that `manifest` does not name (of an earlier or an abandoned build); returns their keys.

    Only once nothing reads the earlier data set any more.
    """
    named = {shard.name for shard in manifest.shards}
    old = [key for key, _ in storage.list(SHARD_FOLDER) if key not in named]
    for key in old:
        storage.delete(key)
    return old


def differing_columns(a: dict[str, str], b: dict[str, str]) -> str:
    """The columns in which two data sets differ, in words."""
    names = [name for name in dict.fromkeys([*a, *b]) if a.get(name) != b.get(name)]
    return "; ".join(f"{n} ({a.get(n, 'absent')} against {b.get(n, 'absent')})" for n in names)


def _to_dict(manifest: Manifest) -> dict[str, Any]:
    # The columns are the same for all shards, so they are written once.
    shards = [{k: v for k, v in vars(s).items() if k != "columns"} for s in manifest.shards]
    return {
        "format_version": manifest.format_version,
        "columns": manifest.columns,
        "attributes": manifest.attributes,
        "shards": shards,
    }
