"""A stand-in for the package scenezoo with what the reader uses of it, and a real ScanNet++ recording."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
from PIL import Image

from poma3d.scenes.frame import SceneFrames
from tests.helpers.scans import camera_matrix, full_pose

RGB_WIDTH_HEIGHT, DEPTH_SCALE_UP = (1920, 1440), 2
"""An iPhone's video in ScanNet++, whose depth is 256 x 192: twice a `box_room`."""


class StandIn:
    """A data set of one scene, as `get_dataset` gives it; keyword arguments of `get_frames` are checked."""

    def __init__(self, scene: SceneFrames, rooms: bool = False, **changes: Any) -> None:
        self.scene, self.changes = scene, changes
        if rooms:
            self.get_room_ids = lambda sample_id: ["485142"]

    def get_ids(self, split: str | None = None) -> list[str]:
        return {None: ["scene"], "train": ["scene"]}[split]

    def get_frames(
        self,
        sample_id: str,
        *,
        indices: Sequence[int] | None = None,
        items: Sequence[str] = (),
        rotate_to_up: bool = True,
        source: str = "iphone",
        room_id: str | None = None,
    ) -> SimpleNamespace:
        """A FrameBatch of the items; frame 2 is there and has no camera."""
        assert sample_id == "scene"
        assert not rotate_to_up, "the pose says which way a picture is up"
        assert (room_id is not None) == hasattr(self, "get_room_ids")
        chosen = [i for i in range(len(self.scene.frames)) if i != 2] if indices is None else list(indices)
        frames = [self.scene.frames[i] for i in chosen]
        batch = SimpleNamespace(
            indices=np.array(chosen),
            source_frame_count=len(self.scene.frames),
            frame_keys=tuple(f"frame_{i:06d}" for i in chosen),
            camera_model="PINHOLE",
            distortion=np.empty((len(chosen), 0)),
            depth_mode=None,
        )
        values = {
            "world_to_camera": [
                np.linalg.inv(full_pose(f.pose, np.eye(3))).astype(np.float32) for f in frames
            ],
            "depth_intrinsics": [camera_matrix(f.intrinsics, 3) for f in frames],
            "rgb_intrinsics": [camera_matrix(f.intrinsics * 2.2, 3) for f in frames],
            "depth": [f.depth.astype(np.float32) / 1000 for f in frames],
            "rgb": [np.repeat(np.repeat(f.colour(), 2, axis=0), 2, axis=1) for f in frames],
        }
        for item in items:
            setattr(batch, item, np.stack(values[item]))
        for name, value in self.changes.items():
            setattr(batch, name, value)
        return batch


def stand_in(
    data: StandIn, names: Sequence[str] = ("scannetppv2", "multiscan", "structured3d")
) -> ModuleType:
    """A module to put in the place of scenezoo."""
    module = ModuleType("scenezoo")

    def get_dataset(name: str, root_dir: str, *, offline: bool = False) -> StandIn:
        if name not in names:
            raise KeyError(f"Unknown dataset {name!r}")
        assert offline
        return data

    module.get_dataset = get_dataset  # type: ignore[attr-defined]
    return module


def write_scannetpp(root: Path, name: str, scene: SceneFrames) -> None:
    """ScanNet++'s iPhone recording, with a real video and real compressed depth; needs av and lz4."""
    import av
    import lz4.block

    folder = root / "data" / name / "iphone"
    folder.mkdir(parents=True)
    scale = RGB_WIDTH_HEIGHT[0] / scene.frames[0].depth.shape[1]
    records, depth = {}, b""
    with av.open(str(folder / "rgb.mkv"), "w") as video:
        stream = video.add_stream("mpeg4", rate=60)
        stream.width, stream.height, stream.pix_fmt = *RGB_WIDTH_HEIGHT, "yuv420p"
        for i, frame in enumerate(scene.frames):
            picture = np.asarray(Image.fromarray(frame.colour()).resize(RGB_WIDTH_HEIGHT))
            video.mux(stream.encode(av.VideoFrame.from_ndarray(picture, "rgb24")))
            block = lz4.block.compress(
                np.repeat(np.repeat(frame.depth, DEPTH_SCALE_UP, 0), DEPTH_SCALE_UP, 1).tobytes(),
                store_size=False,
            )
            depth += len(block).to_bytes(4, "little") + block
            fx, fy, cx, cy = frame.intrinsics
            camera = np.array([fx * scale, fy * scale, (cx + 0.5) * scale - 0.5, (cy + 0.5) * scale - 0.5])
            records[f"frame_{i:06d}"] = {
                "aligned_pose": full_pose(frame.pose, np.eye(3)).tolist(),
                "pose": full_pose(frame.pose, np.eye(3)).tolist(),
                "intrinsic": camera_matrix(camera, 3).tolist(),
                "timestamp": i / 60,
            }
        video.mux(stream.encode())
    (folder / "depth.bin").write_bytes(depth)
    (folder / "pose_intrinsic_imu.json").write_text(json.dumps(records))
