"""Data sets of scenes for an encoder that is trained with its head: which there are, and their geometry.

Scenes are numbered in the order of the shards of the data sets, one after the other; rows of questions hold
these numbers. A worker reads the geometry of a batch's scenes ahead, in a thread, and keeps the last ones.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pyarrow as pa

from jobs.common.datasets import Dataset, open_dataset
from jobs.features.sets import NO_VIEWS, unknown_scene
from plinth.data.manifest import ShardEntry
from plinth.data.shards import RowGroupReader
from plinth.data.sources import OpenSource, check_unchanged
from plinth.errors import DataError
from plinth.redaction import printable
from plinth.storage import StorageOptions
from poma3d.sample import SampleShape, decode

VALID = "view_valid"
THREADS = 2
"""That read scenes ahead: one decodes while the other waits for storage."""
GROUPS_KEPT = 16
"""Row groups that are kept as they are stored: the scenes of one are mostly asked for together."""


@dataclass(frozen=True)
class SceneSets:
    """One or more data sets of scenes of the same sizes."""

    sources: tuple[OpenSource, ...]

    @property
    def shape(self) -> SampleShape:
        """The sizes that all their samples share."""
        return Dataset(self.sources[0].storage, self.sources[0].manifest).shape

    @property
    def hashes(self) -> list[str]:
        """Of the manifests: the same scenes have the same numbers."""
        return [source.manifest.hash for source in self.sources]

    @property
    def names(self) -> str:
        """Their places, for messages."""
        return ", ".join(source.storage.uri for source in self.sources)

    @cached_property
    def _valid(self) -> list[tuple[str, bytes]]:
        """Each scene with its `view_valid`."""
        found: list[tuple[str, bytes]] = []
        for source in self.sources:
            reader = RowGroupReader(source.storage)
            for shard in source.manifest.shards:
                table = reader.read_shard(shard, ["scene_id", VALID])
                ids, valid = table["scene_id"].to_pylist(), decode(table, [VALID])[VALID]
                for scene_id, of_scene in zip(ids, valid, strict=True):
                    if not of_scene.any():
                        raise DataError(
                            f"{source.storage.uri}: scene {printable(scene_id)} has no views.", NO_VIEWS
                        )
                    found.append((scene_id, of_scene.astype(bool).tobytes()))
        known = [scene_id for scene_id, _ in found]
        if len(set(known)) < len(known):
            twice = next(scene_id for scene_id in known if known.count(scene_id) > 1)
            raise DataError(
                f"{self.names}: scene {printable(twice)} is there twice.",
                "Give data sets without common scenes, of one sample a scene.",
            )
        return found

    def scene_ids(self) -> list[str]:
        """All scenes by their numbers.

        Raises:
            DataError: a scene without a view, or one that is there twice.
        """
        return [scene_id for scene_id, _ in self._valid]

    def valid_views(self) -> dict[str, bytes]:
        """Which views of each scene are no repeats, to compare.

        Raises:
            DataError: a scene without a view, or one that is there twice.
        """
        return dict(self._valid)

    def number(self, scene_id: str) -> int:
        """Of a scene.

        Raises:
            DataError: there is none; names those that are spelt alike.
        """
        known = self.scene_ids()
        if scene_id not in known:
            raise unknown_scene(self.names, scene_id, known)
        return known.index(scene_id)

    def source_of(self, number: int) -> OpenSource:
        """The data set that holds a scene."""
        return self.sources[_places(self.sources)[number][0]]


def open_scenes(uris: Sequence[str], options: StorageOptions, where: str = "") -> SceneSets:
    """Open data sets of scenes.

    Args:
        where: who names them, before each message.

    Raises:
        StorageError: one is not there.
        DataError: one is none, or of other sizes than the first.
    """
    found = []
    for uri in uris:
        dataset = open_dataset(uri, options)
        version = dataset.manifest.attributes.get("version")
        found.append(OpenSource(dataset.storage, dataset.manifest, version=version))
        first, own = (Dataset(s.storage, s.manifest).shape for s in (found[0], found[-1]))
        names = ("views", "height", "width", "xyz")
        if any(getattr(first, name) != getattr(own, name) for name in names):
            raise DataError(
                f"{where}{found[0].storage.uri} and {found[-1].storage.uri} have scenes of different sizes.",
                "Ingest all of them with the same number of views, size and kind of geometry.",
            )
    return SceneSets(tuple(found))


class SceneStore:
    """The geometry of scenes by their numbers, the last ones in memory. Safe to use from several threads.

    Args:
        kept: how many.
        columns: what is read of each in place of geometry and `view_valid`.

    Raises:
        DataError: a data set was built again since it was opened.
    """

    def __init__(self, sets: SceneSets, kept: int, columns: Sequence[str] | None = None) -> None:
        check_unchanged(sets.sources)
        self._sets, self._kept = sets, kept
        self._places = _places(sets.sources)
        self._readers = [RowGroupReader(source.storage) for source in sets.sources]
        self._columns = [*sets.shape.geometry, VALID] if columns is None else list(columns)
        self._found: OrderedDict[int, Future[Mapping[str, np.ndarray]]] = OrderedDict()
        self._groups: OrderedDict[tuple[int, str, int], Future[pa.Table]] = OrderedDict()
        self._lock = threading.Lock()
        self._pool = ThreadPoolExecutor(THREADS, thread_name_prefix="poma-scenes")

    def read(self, numbers: Sequence[int]) -> dict[str, np.ndarray]:
        """The geometry columns and `view_valid` of scenes, each [U, V, ...].

        Raises:
            DataError: a shard cannot be read; names it.
        """
        found = [self._ask(number).result() for number in numbers]
        return {name: np.stack([scene[name] for scene in found]) for name in self._columns}

    def read_ahead(self, numbers: Sequence[int]) -> None:
        """Begin to read scenes that `read` will be asked for."""
        for number in numbers:
            self._ask(number)

    def _ask(self, number: int) -> Future[Mapping[str, np.ndarray]]:
        with self._lock:
            found = self._found.get(number)
            if found is None or (found.done() and found.exception()):
                found = self._found[number] = self._pool.submit(self._scene, number)
            self._found.move_to_end(number)
            while len(self._found) > self._kept:
                self._found.popitem(last=False)
        return found

    def _scene(self, number: int) -> Mapping[str, np.ndarray]:
        source, shard, group, row = self._places[number]
        packed = self._group(source, shard, group).slice(row, 1)
        table = self._readers[source].decoded(shard, group, packed)
        return {name: array[0] for name, array in decode(table, self._columns).items()}

    def _group(self, source: int, shard: ShardEntry, group: int) -> pa.Table:
        """As it is stored. The thread that asks first reads it, others wait; what fails is not kept."""
        key = (source, shard.name, group)
        with self._lock:
            found = self._groups.get(key)
            is_first = found is None
            if found is None:
                found = self._groups[key] = Future()
            self._groups.move_to_end(key)
            while len(self._groups) > GROUPS_KEPT:
                self._groups.popitem(last=False)
        if is_first:
            try:
                found.set_result(self._readers[source].read_packed(shard, group, self._columns))
            except BaseException as error:
                with self._lock:
                    if self._groups.get(key) is found:
                        del self._groups[key]
                found.set_exception(error)
        return found.result()


def _places(sources: Sequence[OpenSource]) -> list[tuple[int, ShardEntry, int, int]]:
    """Of each scene by its number: source, shard, row group and the row in there."""
    return [
        (number, shard, group, row)
        for number, source in enumerate(sources)
        for shard in source.manifest.shards
        for group, rows in enumerate(shard.row_group_rows)
        for row in range(rows)
    ]
