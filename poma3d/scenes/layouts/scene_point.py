"""ScenePoint, the published point maps: one safetensors file per scene, without depth or camera.

    ROOT/.../scene0000_00.safetensors    point_map     F16 [32, 224, 224, 3]  world coordinates in metres
                                         color_images  [32, h, w, 3]          uint8, or floats to 1 or to 255
    per_view_captions_scannet_v1.jsonl   {"scan_id": ..., "utterance": [text, ...]}, in the order of the views
    scene_cap.json                       SceneVerse's captions of scenes (`poma3d.scenes.annotations`)

Layout: the data set's page (huggingface.co/datasets/MatchLab/ScenePoint) and the public code that reads it.
Points are stored as they are (`xyz` of `poma3d.sample`). A view that is the same as an earlier one fills a
short scene: it is left out here, and comes back marked as a repeat.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from poma3d.geometry import rotation_to_z_up
from poma3d.scenes.annotations import captions_of, read_scene_captions
from poma3d.scenes.config import ScenePointConfig
from poma3d.scenes.files import listed
from poma3d.scenes.frame import NO_CAMERA, Frame, SceneFrames
from poma3d.scenes.marks import Mark
from poma3d.scenes.text_files import read_lines

SOURCE = "scenepoint"
SUFFIX = ".safetensors"
SCENE_FIELD, TEXTS_FIELD = "scan_id", "utterance"
BRIGHTEST = 255


class ScenePointReader:
    """Reads ScenePoint: `poma3d.scenes.frame.Reader`."""

    stores_points = True
    title = "ScenePoint, published point maps"
    marks = (Mark("point maps", (f"*{SUFFIX}",)),)

    def __init__(self, config: ScenePointConfig) -> None:
        self.config = config

    def scene_ids(self) -> list[str]:
        """Names of the files.

        Raises:
            ValueError: none, two of one name, or captions of none of them.
        """
        paths = self._paths()
        for name in filter(None, (self.config.view_captions_file, self.config.scene_captions_file)):
            known = _captions(name)
            if not any(captions_of(scene, known) for scene in paths):
                raise ValueError(
                    f"{name} has captions of none of the {len(paths)} scenes: its ids are such as "
                    f"{next(iter(known), 'none at all')}, the scenes' such as {next(iter(paths))}"
                )
        return sorted(paths)

    def find(self, root: Path) -> list[str]:
        """Names of the files below a folder."""
        return sorted(_paths(root))

    def folder(self, scene_id: str) -> Path:
        """Folder of a scene's file."""
        return self._paths()[scene_id].parent

    def inputs(self, scene_id: str) -> list[Path]:
        """The scene's file and the files of captions."""
        captions = filter(None, (self.config.view_captions_file, self.config.scene_captions_file))
        return [self._paths()[scene_id], *map(Path, captions)]

    def read(self, scene_id: str) -> SceneFrames:
        """One scene, its views in order.

        Raises:
            ValueError: not such a file, or captions of another number of views.
        """
        path = self._paths()[scene_id]
        points, colours = _tensors(path, self.config)
        points = _z_up(points, np.asarray(self.config.up, np.float64))
        captions = (
            _captions(self.config.view_captions_file).get(scene_id)
            if self.config.view_captions_file
            else None
        )
        if captions is not None and len(captions) != len(points):
            raise ValueError(
                f"scene {scene_id}: {self.config.view_captions_file} has captions of {len(captions)} views, "
                f"{path.name} has {len(points)}"
            )
        frames, seen = [], set()
        for view, grid in enumerate(points):
            if (content := grid.tobytes()) in seen:
                continue
            seen.add(content)
            frames.append(
                Frame(
                    frame_id=f"{view:03d}",
                    depth=grid.any(axis=-1).astype(np.uint16),
                    intrinsics=NO_CAMERA[0],
                    pose=NO_CAMERA[1],
                    picture=None if colours is None else colours[view],
                    captions=list(captions[view]) if captions is not None else [],
                    points=grid,
                )
            )
        of_scene = _captions(self.config.scene_captions_file) if self.config.scene_captions_file else {}
        return SceneFrames(scene_id, SOURCE, frames, captions_of(scene_id, of_scene))

    def _paths(self) -> dict[str, Path]:
        return _paths(Path(self.config.root))


def _paths(root: Path) -> dict[str, Path]:
    """Scene id -> file."""
    found: dict[str, Path] = {}
    for path in listed(root, f"**/*{SUFFIX}"):
        if path.stem in found:
            raise ValueError(f"{path} and {found[path.stem]} have one name: keep one of them")
        found[path.stem] = path
    if not found:
        raise ValueError(f"{root}: no scene here: no file such as scene0000_00{SUFFIX}")
    return found


def _tensors(path: Path, config: ScenePointConfig) -> tuple[np.ndarray, np.ndarray | None]:
    """Points float16 [V, h, w, 3], 0 where they are not finite, and pictures uint8 [V, h, w, 3].

    Raises:
        ValueError: not a safetensors file, or not with these tensors.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "np") as file:
            names = list(file.keys())
            if config.points not in names:
                raise ValueError(f"no tensor '{config.points}'; there are {', '.join(names) or 'none'}")
            points = file.get_tensor(config.points)
            colours = file.get_tensor(config.colour) if config.colour in names else None
    except (OSError, SafetensorError, TypeError, ValueError) as error:
        raise ValueError(f"{path}: {error}") from None
    if points.ndim != 4 or points.shape[-1] != 3:
        raise ValueError(f"{path}: {config.points} is {list(points.shape)}, expected [views, h, w, 3]")
    if colours is not None:
        if colours.ndim != 4 or colours.shape[-1] != 3 or len(colours) != len(points):
            raise ValueError(
                f"{path}: {config.colour} is {list(colours.shape)}, expected [{len(points)}, h, w, 3]"
            )
        colours = _bytes(colours)
    finite = np.isfinite(points).all(axis=-1, keepdims=True)
    return np.where(finite, points, 0).astype(np.float16), colours


def _bytes(colours: np.ndarray) -> np.ndarray:
    """Pictures as uint8: floats reach up to 1 or up to 255."""
    if colours.dtype == np.uint8:
        return colours
    values = np.nan_to_num(colours.astype(np.float32))
    return np.rint(np.clip(values * (BRIGHTEST if values.max() <= 1 else 1), 0, BRIGHTEST)).astype(np.uint8)


def _z_up(points: np.ndarray, up: np.ndarray) -> np.ndarray:
    rotation = rotation_to_z_up(up)
    if np.array_equal(rotation, np.eye(3)):
        return points
    return (points.astype(np.float32) @ rotation.T.astype(np.float32)).astype(np.float16)


@lru_cache(maxsize=2)
def _captions(name: str) -> dict[str, Any]:
    """Scene id -> captions of its views in order (JSONL), or of the scene (JSON); read once per process.

    Raises:
        ValueError: the file cannot be read as one of them.
    """
    path = Path(name)
    try:
        if path.suffix == ".json":
            return dict(read_scene_captions(path.read_bytes()))
        lines = read_lines(path)
        return _by_scene(json.loads(line) for line in lines if line.strip())
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise ValueError(f"{path}: {error}") from None


def _by_scene(entries: Iterable[dict[str, Any]]) -> dict[str, list[list[str]]]:
    """Captions of every view of every scene, in order.

    Raises:
        ValueError: an entry without a scene or captions.
    """
    found: dict[str, list[list[str]]] = {}
    for entry in entries:
        if SCENE_FIELD not in entry or TEXTS_FIELD not in entry:
            raise ValueError(f"an entry without '{SCENE_FIELD}' or '{TEXTS_FIELD}': {str(entry)[:80]}")
        texts = [text.strip() for text in entry[TEXTS_FIELD]]
        found.setdefault(entry[SCENE_FIELD], []).append([text for text in texts if text])
    return found
