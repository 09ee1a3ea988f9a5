"""Data sets of features, as heads read them."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from jobs.display.text import some
from plinth.data import manifest as manifests
from plinth.data.manifest import Manifest
from plinth.data.shards import RowGroupReader
from plinth.errors import DataError, StorageError
from plinth.redaction import printable
from plinth.storage import Storage, StorageOptions
from poma3d.heads.features import SCHEMA_VERSION, FeatureShape
from poma3d.heads.questions import SceneViews
from poma3d.sample import decode

KIND = "features"
MEND = "Give the output of `poma features`."
NO_VIEWS = "Leave it out of the data set."
VIEWS = ("views", "view_valid")
"""The columns of `SceneViews`."""


@dataclass(frozen=True)
class FoundScene:
    """A scene's features, and the data set of features that holds them."""

    views: SceneViews
    storage: Storage
    manifest: Manifest


@dataclass(frozen=True)
class FeatureSets:
    """One or more data sets of features of one encoder."""

    sets: tuple[tuple[Storage, Manifest], ...]

    @property
    def encoder(self) -> dict[str, Any]:
        """What the manifests say of the encoder."""
        found: dict[str, Any] = self.sets[0][1].attributes["encoder"]
        return found

    @property
    def shape(self) -> FeatureShape:
        """The sizes that all their rows share."""
        return FeatureShape(**self.sets[0][1].attributes["shape"])

    @property
    def hashes(self) -> list[str]:
        """Of the manifests: the same features have the same."""
        return [manifest.hash for _, manifest in self.sets]

    @property
    def names(self) -> str:
        """Their places, for messages."""
        return ", ".join(storage.uri for storage, _ in self.sets)

    def scene_ids(self) -> list[str]:
        """All scenes, in the order of the shards."""
        return [scene for _, found in self._tables(["scene_id"]) for scene in found["scene_id"].to_pylist()]

    def scenes(self) -> Iterator[tuple[str, SceneViews]]:
        """All scenes with their features, in the order of the shards; a shard in memory at a time.

        Raises:
            DataError: a scene without a view, or one that is there twice.
        """
        seen: set[str] = set()
        for storage, table in self._tables(["scene_id", *VIEWS]):
            arrays = decode(table, VIEWS)
            for i, scene_id in enumerate(table["scene_id"].to_pylist()):
                if not arrays["view_valid"][i].any():
                    raise DataError(f"{storage.uri}: scene {printable(scene_id)} has no views.", NO_VIEWS)
                if scene_id in seen:
                    raise DataError(
                        f"{storage.uri}: scene {scene_id} is there twice.",
                        "Give features of data sets without common scenes, of one sample a scene.",
                    )
                seen.add(scene_id)
                yield scene_id, SceneViews(arrays["views"][i], arrays["view_valid"][i])

    def find(self, scene_id: str) -> FoundScene:
        """The features of one scene.

        Raises:
            DataError: there is no such scene (names those that are spelt alike), or it has no view.
        """
        known: list[str] = []
        for storage, manifest in self.sets:
            reader = RowGroupReader(storage)
            for shard in manifest.shards:
                ids = reader.read_shard(shard, ["scene_id"])["scene_id"].to_pylist()
                known += ids
                if scene_id not in ids:
                    continue
                arrays = decode(reader.read_shard(shard, list(VIEWS)), VIEWS)
                views = SceneViews(*(arrays[name][ids.index(scene_id)] for name in VIEWS))
                if not views.view_valid.any():
                    raise DataError(f"{storage.uri}: scene {printable(scene_id)} has no views.", NO_VIEWS)
                return FoundScene(views, storage, manifest)
        raise unknown_scene(self.names, scene_id, known)

    def _tables(self, columns: Sequence[str]) -> Iterator[tuple[Storage, Any]]:
        for storage, manifest in self.sets:
            reader = RowGroupReader(storage)
            for shard in manifest.shards:
                yield storage, reader.read_shard(shard, columns)


class UnknownSceneError(DataError):
    """Data sets lack a scene."""


def unknown_scene(names: str, scene_id: str, known: Sequence[str]) -> UnknownSceneError:
    """The error of data sets without a scene; names those that are spelt alike."""
    alike = difflib.get_close_matches(scene_id, known, n=3, cutoff=0.4) or known
    return UnknownSceneError(
        f"{names} has no scene '{printable(scene_id)}'.",
        f"It has {len(known)}, such as {some([printable(each) for each in alike])}.",
    )


def open_features(uris: Sequence[str], options: StorageOptions, where: str = "") -> FeatureSets:
    """Open data sets of features.

    Args:
        where: who names them, before each message.

    Raises:
        StorageError: one is not there.
        DataError: one is none, of another schema version, of another encoder than the first, or of other
        sizes.
    """
    try:
        return _open(uris, options)
    except (DataError, StorageError) as error:
        raise type(error)(f"{where}{error.problem}", error.fix) from None


def _open(uris: Sequence[str], options: StorageOptions) -> FeatureSets:
    found = []
    for uri in uris:
        folder, version = manifests.split_version(uri)
        storage = Storage.from_uri(folder, options)
        storage.check()
        manifest = manifests.load_version(storage, version)
        if manifest.attributes.get("kind") != KIND:
            raise DataError(f"{storage.uri} holds no features.", MEND)
        if manifest.attributes["schema_version"] != SCHEMA_VERSION:
            raise DataError(
                f"{storage.uri}: features of schema version {manifest.attributes['schema_version']}, this "
                f"program reads {SCHEMA_VERSION}.",
                "Run `poma features` again.",
            )
        found.append((storage, manifest))
    sets = FeatureSets(tuple(found))
    for storage, manifest in found[1:]:
        check_same_encoder(sets.encoder, manifest.attributes["encoder"], storage.uri)
        if manifest.attributes["shape"] != found[0][1].attributes["shape"]:
            raise DataError(
                f"{found[0][0].uri} and {storage.uri} have features of different sizes: "
                f"{found[0][1].attributes['shape']} and {manifest.attributes['shape']}.",
                "Ingest all scenes with the same number of views.",
            )
    return sets


def check_same_encoder(wanted: dict[str, Any], found: dict[str, Any], where: str) -> None:
    """Refuse features of another encoder.

    Raises:
        DataError: naming both.
    """
    if wanted["digest"] != found["digest"]:
        raise DataError(
            f"{where} holds features of the encoder {_named(found)}, expected those of {_named(wanted)}.",
            "A head reads one encoder's features: run `poma features` with that one.",
        )


def _named(encoder: dict[str, Any]) -> str:
    return f"{encoder['digest']} ({encoder['weights']}, {encoder['run']})"
