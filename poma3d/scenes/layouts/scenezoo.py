"""Data sets that the package scenezoo reads: ScanNet++ (iPhone), MultiScan, Structured3D (perspective views).

They keep frames in videos, compressed streams and renders, which scenezoo decodes. It is an extra, imported
when a scan is opened:

    pip install 'poma3d-platform[scenezoo]'

What is taken of it (0.3.1): `getdataset_of(name, root, offline=...)`, `get_ids(split)`, `get_room_ids(scene)`
where a set has rooms, and `get_frames(scene, indices=..., items=..., rotate_to_up=False)`. Depth is float32
metres along the optical axis, 0 = none; poses are **world to camera** with our axes and are inverted here;
colour and depth have intrinsics of their own. Distance along the ray and lenses with distortion are refused.

A scan is a scene, `scene/room` for Structured3D. Scenes of ScanNet++ are those whose iPhone recording is
there, whatever the splits say; of other sets those that scenezoo lists, of which some may not have been
downloaded: name yours in `scans`. ScanNet++ and Structured3D are z-up; for others up is estimated, or `up`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from poma3d.sample import MILLIMETRE
from poma3d.scenes.colour import colour_camera_of
from poma3d.scenes.config import ScenezooConfig
from poma3d.scenes.files import listed
from poma3d.scenes.frame import BadFrame, ColourCamera, Frame
from poma3d.scenes.marks import Mark
from poma3d.scenes.posed.reader import CAPTIONS, NO_POSE, Z_UP, Camera, Posed, PosedReader

SOURCE = "scenezoo"
SCANNETPP, STRUCTURED3D = "scannetppv2", "structured3d"
DATA = "data"
IPHONE = "iphone/pose_intrinsic_imu.json"
CAMERAS = ("world_to_camera", "rgb_intrinsics", "depth_intrinsics")
PICTURES = ("rgb", "depth")
UPS = {SCANNETPP: Z_UP, STRUCTURED3D: Z_UP}
"""Sets whose world's up is known."""
PINHOLES = ("PINHOLE", "SIMPLE_PINHOLE", "OPENCV")
"""Camera models that are pinholes where their distortion is 0."""
DEEPEST_MM = 65534
"""What the samples hold; deeper is none."""
OWN_READERS = {
    "scannetv2": "scannet_sens",
    "scannet": "scannet_sens",
    "arkitscenes": "arkitscenes",
    "3rscan": "three_rscan",
    "threerscan": "three_rscan",
    "matterport3d": "matterport",
}
"""Sets that have a reader here; scenezoo 0.3.1 takes Matterport3D's cy from the wrong edge."""
MISSING = "the package scenezoo is not installed: pip install 'poma3d-platform[scenezoo]'"


@dataclass(frozen=True)
class Batched(Posed):
    """A scan of scenezoo's."""

    indices: dict[str, int] = field(default_factory=dict)
    """Number of a frame in its source, by frame id."""
    colour_intrinsics: dict[str, np.ndarray] = field(default_factory=dict)


class ScenezooReader(PosedReader[ScenezooConfig]):
    """Reads what scenezoo reads."""

    source = SOURCE
    title = "ScanNet++ with its iPhone recordings, through the package scenezoo"
    marks = (
        Mark("poses and intrinsics", (IPHONE,)),
        Mark("colour", ("iphone/rgb.mkv",)),
        Mark("depth", ("iphone/depth.bin",)),
        CAPTIONS,
    )

    def __init__(self, config: ScenezooConfig) -> None:
        super().__init__(config)
        own = OWN_READERS.get(config.dataset.lower())
        if own is not None:
            raise ValueError(
                f"dataset is {config.dataset}, which has a reader of its own: set reader.kind={own}"
            )

    def find(self, root: Path) -> list[str]:
        """Ids of the scenes."""
        if self.config.dataset == SCANNETPP and self.config.split is None:
            found = [path.parents[1].name for path in listed(root, f"{DATA}/*/{IPHONE}")]
            if not found:
                raise ValueError(f"{root}: no scan here: no file such as {DATA}/SCENE/{IPHONE}")
            return found
        data = self._data()
        scenes = _asked(data.get_ids, f"{root}: the list of {self.config.dataset}", self.config.split)
        rooms = getattr(data, "get_room_ids", None)
        if rooms is None:
            return list(scenes)
        return [
            f"{scene}/{room}"
            for scene in scenes
            for room in _asked(rooms, f"{root}: rooms of {scene}", scene)
        ]

    def scene_ids(self) -> list[str]:
        """Those of the config, which scenezoo need not list, or all."""
        if self.config.scans is None or self.config.dataset == SCANNETPP or not self.config.root:
            return super().scene_ids()
        return list(self.config.scans)

    def folder(self, scene_id: str) -> Path:
        """Where a scene's captions may lie."""
        root = Path(self.config.root)
        return root / DATA / scene_id if (root / DATA / scene_id).is_dir() else root / scene_id

    def recording(self, scene_id: str, folder: Path) -> Batched:
        """The frames that have a camera; the others are left out."""
        batch = _asked(self._frames, f"scene {scene_id}", scene_id, None, CAMERAS)
        if str(batch.camera_model or PINHOLES[0]) not in PINHOLES or np.any(batch.distortion):
            raise ValueError(
                f"scene {scene_id}: {batch.camera_model} with distortion: choose a source of undistorted "
                "pictures (reader.scenezoo.options)"
            )
        scan = Batched(folder, scene_id=scene_id, up=UPS.get(self.config.dataset))
        indices = [int(index) for index in batch.indices]
        names = batch.frame_keys or [f"{index:06d}" for index in indices]
        for place, (index, name) in enumerate(zip(indices, names, strict=True)):
            to_camera = np.asarray(batch.world_to_camera[place], np.float64)
            if not np.isfinite(to_camera).all():
                scan.leave_out(name, "non-finite pose", str(to_camera[0].tolist()))
                continue
            turn, moved = to_camera[:3, :3], to_camera[:3, 3:]
            # The inverse of a rigid motion; what is none is found by the check of the pose.
            scan.keep(name, np.concatenate([turn.T, -turn.T @ moved], axis=1))
            scan.indices[name] = index
            scan.cameras[name] = Camera(_four(batch.depth_intrinsics[place]))
            scan.colour_intrinsics[name] = _four(batch.rgb_intrinsics[place])
        for index in sorted(set(range(int(batch.source_frame_count))) - set(indices)):
            scan.leave_out(f"{index:06d}", NO_POSE, "scenezoo has no camera for it")
        return scan

    def load(self, scan: Posed, frame_id: str) -> Frame:
        """One frame."""
        assert isinstance(scan, Batched)
        try:
            batch = self._frames(scan.scene_id, [scan.indices[frame_id]], PICTURES)
        except Exception as error:  # whatever the decoders below scenezoo raise
            raise BadFrame("unreadable frame", f"{frame_id}: {_first_line(error)}") from error
        if batch.depth_mode not in (None, "z", "z_depth"):
            raise BadFrame(
                "unreadable depth", f"{frame_id}: it is {batch.depth_mode}, not along the optical axis"
            )
        depth = _millimetres(batch.depth[0])
        size = (depth.shape[0], depth.shape[1])
        picture = np.asarray(batch.rgb[0], np.uint8)
        colour = ColourCamera(scan.colour_intrinsics[frame_id], (picture.shape[0], picture.shape[1]))
        intrinsics = scan.cameras[frame_id].at(size)
        return Frame(
            frame_id=frame_id,
            depth=depth,
            intrinsics=intrinsics,
            pose=scan.transform @ scan.poses[frame_id],
            picture=picture,
            colour_camera=colour_camera_of(intrinsics, size, colour),
        )

    def _data(self) -> Any:
        return dataset_of(self.config.dataset, str(Path(self.config.root).resolve()), self.config.offline)

    def _frames(self, scene_id: str, indices: list[int] | None, items: tuple[str, ...]) -> Any:
        """scenezoo's FrameBatch."""
        scene, _, room = scene_id.partition("/")
        options = dict(self.config.options or {}) | ({"room_id": room} if room else {})
        return self._data().get_frames(scene, indices=indices, items=items, rotate_to_up=False, **options)


@lru_cache(maxsize=4)
def dataset_of(name: str, root: str, offline: bool) -> Any:
    """The data set, made once per process."""
    try:
        import scenezoo
    except ImportError as error:
        what = MISSING if error.name == "scenezoo" else f"the package scenezoo cannot be imported ({error})"
        raise ValueError(what) from error
    return _asked(scenezoo.get_dataset, f"reader.scenezoo.dataset is {name}", name, root, offline=offline)


def _asked(function: Any, what: str, *arguments: Any, **options: Any) -> Any:
    """What scenezoo answers; whatever it or the decoders below it raise is a ValueError of one line."""
    try:
        return function(*arguments, **options)
    except Exception as error:
        raise ValueError(f"{what}: {_first_line(error)}") from error


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"


def _four(matrix: np.ndarray) -> np.ndarray:
    """fx, fy, cx, cy float64 of a matrix [3, 3]."""
    return np.asarray(matrix, np.float64)[[0, 1, 0, 1], [0, 1, 2, 2]]


def _millimetres(metres: np.ndarray) -> np.ndarray:
    """Depth uint16 [h, w] of float metres."""
    depth = np.nan_to_num(np.asarray(metres, np.float64) / MILLIMETRE, nan=0.0, posinf=0.0, neginf=0.0)
    return np.where((depth > 0) & (depth <= DEEPEST_MM), np.rint(depth), 0).astype(np.uint16)
