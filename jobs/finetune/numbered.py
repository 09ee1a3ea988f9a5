"""Scenes as a head or a language model sees them: features as they were stored, or geometry, and where
patches are.

Scenes are numbered in the order of the shards: of the features, or, where an encoder is trained, of the data
sets of scenes. A worker reads the scenes of a batch ahead, in threads, and keeps the last ones.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from threading import Lock

import numpy as np
import torch

from jobs.features.sets import FeatureSets
from jobs.finetune.scenes import THREADS, VALID, SceneSets, SceneStore
from plinth.data.sources import OpenSource
from plinth.errors import DataError
from plinth.redaction import printable
from poma3d.inputs import point_maps
from poma3d.seen.scenes import POINTS, POINTS_VALID
from poma3d.seen.voxels import PatchPoints, patch_points

NOWHERE = -1
POINTS_KEPT = 4096
"""Scenes whose patches' places a worker keeps: 75 kB each at 32 views of 196 patches."""


@dataclass(frozen=True)
class SceneNumbers:
    """Which scenes there are, and where a worker reads them; picklable."""

    ids: tuple[str, ...]
    """By number."""
    stored: SceneSets | None
    """Data sets of features, where the encoder is frozen."""
    column: str
    """Of these: views or patches."""
    scenes: SceneSets | None
    """Data sets of scenes, where geometry is read."""
    in_scenes: tuple[int, ...] = ()
    """Number of each scene among those of `scenes`; -1 where it is not and is never read."""
    patches: int = 0
    """Of a view; 0 where their places are not asked for."""

    @property
    def numbers(self) -> dict[str, int]:
        """Number of each scene."""
        return {scene_id: number for number, scene_id in enumerate(self.ids)}


def number_scenes(
    features: FeatureSets | None,
    scenes: SceneSets | None,
    column: str,
    patches: int,
    only: str | None = None,
) -> SceneNumbers:
    """Number the scenes of a split.

    Args:
        scenes: where an encoder is trained, or for the places of patches.
        only: the one scene that is going to be read; any when None.

    Raises:
        DataError: a scene without a view or one that is there twice, or features of scenes that are not
        there or have other views.
    """
    if features is None:
        if scenes is None:
            return SceneNumbers((), None, "", None)
        ids = tuple(scenes.scene_ids())
        return SceneNumbers(ids, None, "", scenes, tuple(range(len(ids))), patches)
    stored = SceneSets(tuple(OpenSource(s, m, version=m.attributes.get("version")) for s, m in features.sets))
    ids = tuple(stored.scene_ids())
    if scenes is None or not patches:
        return SceneNumbers(ids, stored, column, None)
    there = {scene_id: number for number, scene_id in enumerate(scenes.scene_ids())}
    missing = [scene_id for scene_id in ids if scene_id not in there and only in (None, scene_id)]
    if missing:
        theirs = "its features were" if len(missing) == 1 else f"the features of these {len(missing)} were"
        raise DataError(
            f"{scenes.names} has no scene {printable(missing[0])}, whose features are in {features.names}.",
            f"Name the data sets that {theirs} made of.",
        )
    shown, given = stored.valid_views(), scenes.valid_views()
    for scene_id in ids:
        if only in (None, scene_id) and shown[scene_id] != given[scene_id]:
            raise DataError(
                f"Scene {printable(scene_id)} has other views in {scenes.names} than in its features in "
                f"{features.names}.",
                "Name the data sets that the features were made of, or run `poma features` again.",
            )
    in_scenes = tuple(there.get(scene_id, NOWHERE) for scene_id in ids)
    return SceneNumbers(ids, stored, column, scenes, in_scenes, patches)


class NumberedScenes:
    """Scenes by their numbers; see `poma3d.seen.scenes.Scenes`. Safe to use from several threads.

    Args:
        kept: scenes whose features, or, without any, whose geometry stays decoded in memory.
    """

    def __init__(self, numbers: SceneNumbers, kept: int) -> None:
        self._numbers = numbers
        self._features: SceneStore | None = None
        if numbers.stored is not None:
            self._features = SceneStore(numbers.stored, kept, (numbers.column, VALID))
        # Beside features, geometry tells where patches are, once: what is kept of it are these places.
        of_geometry = kept if numbers.stored is None else THREADS
        self._scenes = SceneStore(numbers.scenes, of_geometry) if numbers.scenes is not None else None
        self._points: OrderedDict[int, Future[PatchPoints]] = OrderedDict()
        self._lock = Lock()
        self._pool = ThreadPoolExecutor(THREADS, thread_name_prefix="poma-patches")

    def read(self, numbers: Sequence[int]) -> dict[str, np.ndarray]:
        """As `poma3d.seen.scenes.Scenes.read`.

        Raises:
            DataError: a shard cannot be read; names it.
        """
        found: dict[str, np.ndarray] = {}
        if self._features is not None:
            found |= self._features.read(numbers)
        elif self._scenes is not None:
            found |= self._scenes.read([self._numbers.in_scenes[n] for n in numbers])
        if self._numbers.patches:
            places = [self._ask(n).result() for n in numbers]
            found |= {
                POINTS: np.stack([each.points for each in places]),
                POINTS_VALID: np.stack([each.valid for each in places]),
            }
        return found

    def read_ahead(self, numbers: Sequence[int]) -> None:
        """Begin to read scenes that `read` will be asked for."""
        if self._features is not None:
            self._features.read_ahead(numbers)
        elif self._scenes is not None:
            self._scenes.read_ahead([self._numbers.in_scenes[n] for n in numbers])
        for number in numbers if self._numbers.patches else ():
            self._ask(number)

    def _ask(self, number: int) -> Future[PatchPoints]:
        with self._lock:
            found = self._points.get(number)
            if found is None or (found.done() and found.exception()):
                found = self._points[number] = self._pool.submit(self._places, number)
            self._points.move_to_end(number)
            while len(self._points) > POINTS_KEPT:
                self._points.popitem(last=False)
        return found

    def _places(self, number: int) -> PatchPoints:
        assert self._scenes is not None
        geometry: Mapping[str, np.ndarray] = self._scenes.read([self._numbers.in_scenes[number]])
        points = point_maps({name: torch.from_numpy(array) for name, array in geometry.items()})
        return patch_points(points[0], self._numbers.patches)
