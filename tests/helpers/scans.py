"""Writes small scans to disk in the layouts of the readers, from synthetic rooms."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors.numpy import save_file

from poma3d.geometry import unproject
from poma3d.scenes.frame import SceneFrames
from poma3d.synthetic.config import RoomsConfig
from poma3d.synthetic.rooms import RoomsReader

REDKITCHEN = Path(__file__).resolve().parents[2].parent / "shared" / "data" / "rgbd" / "redkitchen"
"""The real scan beside the repository; tests that need it skip where it is absent."""
ANGLE = 0.6
ALIGNMENT = np.array(
    [
        [np.cos(ANGLE), -np.sin(ANGLE), 0, 1.5],
        [np.sin(ANGLE), np.cos(ANGLE), 0, -0.5],
        [0, 0, 1, 0.1],
        [0, 0, 0, 1],
    ]
)
"""A turn and a shift as in a ScanNet scan's text file."""

SCENE_POINT_VIEWS = 4


def room(index: int = 0, views: int = 6, size: int = 40) -> SceneFrames:
    """One synthetic room."""
    reader = RoomsReader(RoomsConfig(rooms=1, first=index, views=views, image_size=size))
    return reader.read(reader.scene_ids()[0])


def write_matrix(path: Path, matrix: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savetxt(path, matrix)


def camera_matrix(intrinsics: np.ndarray, size: int) -> np.ndarray:
    fx, fy, cx, cy = intrinsics
    matrix = np.eye(size)
    matrix[0, 0], matrix[1, 1], matrix[0, 2], matrix[1, 2] = fx, fy, cx, cy
    return matrix


def full_pose(pose: np.ndarray, world: np.ndarray) -> np.ndarray:
    """4x4 camera -> world of a pose [3, 4], in a world turned by `world` [3, 3]."""
    return np.vstack([world @ pose, [0, 0, 0, 1]])


def write_seven_scenes(folder: Path, scene: SceneFrames, world: np.ndarray) -> None:
    """The layout of `seven_scenes`, in a world turned by `world`."""
    folder.mkdir(parents=True)
    for i, frame in enumerate(scene.frames):
        stem = f"frame-{i:06d}"
        Image.fromarray(frame.depth).save(folder / f"{stem}.depth.png")
        Image.fromarray(frame.colour()).save(folder / f"{stem}.color.jpg")
        write_matrix(folder / f"{stem}.pose.txt", full_pose(frame.pose, world))
    write_matrix(folder / "camera-intrinsics.txt", camera_matrix(scene.frames[0].intrinsics, 3))
    views = {f"frame-{i:06d}": frame.captions for i, frame in enumerate(scene.frames) if i % 2 == 0}
    (folder / "captions.json").write_text(
        json.dumps({"scene_captions": scene.captions, "view_captions": views})
    )


def write_scannet(root: Path, name: str, scene: SceneFrames, alignment: np.ndarray | None) -> None:
    """The layout of `scannet`; colour is 1.5 times as large as depth, poses are not yet aligned."""
    folder = root / name
    for part in ("depth", "color"):
        (folder / part).mkdir(parents=True)
    undo = np.eye(3) if alignment is None else alignment[:3, :3].T
    for i, frame in enumerate(scene.frames):
        colour = Image.fromarray(frame.colour())
        colour = colour.resize((colour.width * 3 // 2, colour.height * 3 // 2))
        Image.fromarray(frame.depth).save(folder / "depth" / f"{i}.png")
        colour.save(folder / "color" / f"{i}.jpg", quality=95)
        write_matrix(folder / "pose" / f"{i}.txt", full_pose(frame.pose, undo))
    write_matrix(folder / "intrinsic" / "intrinsic_depth.txt", camera_matrix(scene.frames[0].intrinsics, 4))
    lines = ["appVersionId = 24", "sceneType = Bedroom"]
    if alignment is not None:
        lines.insert(1, "axisAlignment = " + " ".join(f"{x:.6f}" for x in alignment.reshape(-1)))
    (folder / f"{name}.txt").write_text("\n".join(lines) + "\n")


def scene_point_maps() -> tuple[np.ndarray, np.ndarray]:
    """float16 [V, h, w, 3] and uint8 [V, h, w, 3] of a room's first views."""
    scene = room(1, views=SCENE_POINT_VIEWS)
    points, colours = [], []
    for frame in scene.frames:
        depth, camera, pose = (torch.from_numpy(x) for x in (frame.depth, frame.intrinsics, frame.pose))
        points.append(unproject(depth, scene.depth_scale, camera, pose).numpy().astype(np.float16))
        colours.append(frame.colour())
    return np.stack(points), np.stack([c for c in colours if c is not None])


def write_scene_point(path: Path, **changes: Any) -> dict[str, np.ndarray]:
    """The layout of `scene_point`; returns the file's tensors."""
    path.parent.mkdir(parents=True, exist_ok=True)
    points, colours = scene_point_maps()
    tensors = {"point_map": points, "color_images": colours, **changes}
    save_file({k: np.ascontiguousarray(v) for k, v in tensors.items() if v is not None}, path)
    return tensors
