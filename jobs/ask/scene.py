"""A scene as a head sees it.

Legend: V views, P patches, E width of a feature.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch

from jobs.ask.head import Opened, elsewhere
from jobs.features.sets import FeatureSets, FoundScene
from jobs.finetune.numbered import NumberedScenes
from jobs.finetune.scenes import VALID
from jobs.finetune.set_up import SceneSetup
from plinth.data.manifest import with_version
from poma3d.seen.scenes import POINTS, POINTS_VALID


@dataclass(frozen=True)
class AskedScene:
    """A scene as a head sees it."""

    view_valid: np.ndarray
    """uint8 [V]."""
    content: Mapping[str, np.ndarray]
    """Of views `views` [V, E]; of cells `patches` [V, P, E], `patch_points` [V, P, 3] and
    `patch_points_valid` [V, P]."""
    where: str
    """The data set of features, or of scenes."""
    data: str
    """The data set of scenes, at its version."""


def find(opened: Opened, scene_id: str) -> AskedScene:
    """A scene as the head sees it: its features, or what the encoder that was trained with the head makes of
    it.

    Raises:
        DataError: there is no such scene, or it has no view.
    """
    seen, setup = opened.seen, opened.setup
    if isinstance(seen, FeatureSets):
        with elsewhere("--features"):
            found = seen.find(scene_id)
        if setup is not None:
            return _placed(setup, scene_id, found)
        made_of, version = found.manifest.attributes["data"]["uri"], found.manifest.attributes.get("version")
        data = with_version(str(made_of), version)
        return AskedScene(found.views.view_valid, {"views": found.views.views}, found.storage.uri, data)
    with elsewhere("--data"):
        number = seen.number(scene_id)
    assert setup is not None
    geometry = _read(setup, number)
    stage = opened.stage
    device = stage.head.norm.weight.device
    scene = {name: torch.from_numpy(each[None]).to(device) for name, each in geometry.items()}
    with torch.no_grad():
        made = stage.encode(scene)[0].cpu().numpy()
    content = {name: each for name, each in geometry.items() if name in (POINTS, POINTS_VALID)}
    content["patches" if opened.run.sees_cells else "views"] = made
    uri = seen.source_of(number).uri
    return AskedScene(geometry[VALID], content, uri, uri)


def _placed(setup: SceneSetup, scene_id: str, found: FoundScene) -> AskedScene:
    """A scene of features whose patches have their places from the scene itself."""
    numbers = setup.numbers
    assert numbers.scenes is not None
    number = numbers.numbers[scene_id]
    data = numbers.scenes.source_of(numbers.in_scenes[number]).uri
    return AskedScene(found.views.view_valid, _read(setup, number), found.storage.uri, data)


def _read(setup: SceneSetup, number: int) -> dict[str, np.ndarray]:
    return {name: each[0] for name, each in NumberedScenes(setup.numbers, 1).read([number]).items()}
