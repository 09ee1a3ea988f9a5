"""Writes small scans to disk in the layouts of the readers, from synthetic rooms, right or with a mistake."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors.numpy import save_file

from poma3d.geometry import unproject
from poma3d.scenes.frame import Frame, SceneFrames
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
UNITS_OF_TUM = 5
"""Units of TUM RGB-D in a millimetre."""
OVERLAP_PIXELS = 50
"""Two views that share fewer say nothing of each other."""


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


def box_room(views: int = 4) -> SceneFrames:
    """An empty room seen by a camera that walks and turns a little, rendered exactly: no view hides anything.

    Neighbouring views agree but for rounding to pixels, and any mistake of unit, axes, direction of the pose
    or camera shows (`disagreement_mm`). Pictures are not square and the principal point is not in the middle.
    """
    height, width, camera = 96, 128, np.array([100.0, 110.0, 60.0, 50.0])
    low, high = np.array([-2.5, -2.0, 0.0]), np.array([2.5, 3.0, 2.6])
    v, u = np.mgrid[:height, :width]
    rays = np.stack([(u - camera[2]) / camera[0], (v - camera[3]) / camera[1], np.ones_like(u)], -1)
    frames = []
    for i in range(views):
        yaw, pitch = 0.4 + 0.1 * i, 0.3
        forward = np.array([np.cos(yaw) * np.cos(pitch), np.sin(yaw) * np.cos(pitch), -np.sin(pitch)])
        right = np.cross(forward, [0.0, 0.0, 1.0])
        right /= np.linalg.norm(right)
        pose = np.column_stack([right, np.cross(forward, right), forward, [0.1 * i - 0.5, 0.2, 1.5]])
        directions = rays @ pose[:, :3].T
        walls = np.where(directions > 0, high - pose[:, 3], low - pose[:, 3]) / directions
        z = walls.min(-1)
        points = pose[:, 3] + z[..., None] * directions
        colour = ((points - low) / (high - low) * 255).clip(0, 255).astype(np.uint8)
        frames.append(Frame(f"{i:03d}", np.rint(z * 1000).astype(np.uint16), camera, pose, colour))
    return SceneFrames("box", "box", frames)


def disagreement_mm(scene: SceneFrames, a: int = 0, b: int = 1) -> float:
    """Median distance in mm between what view `a` puts on the pixels of view `b` and what `b` sees there.

    Independent of `poma3d.geometry`: points x = z (u - cx) / fx along the optical axis, pose camera -> world.
    """
    first, second = scene.frames[a], scene.frames[b]
    v, u = np.nonzero(first.depth)
    z = first.depth[v, u] * scene.depth_scale
    fx, fy, cx, cy = first.intrinsics
    world = first.pose[:, :3] @ np.stack([z * (u - cx) / fx, z * (v - cy) / fy, z]) + first.pose[:, 3:]
    x, y, depth = second.pose[:, :3].T @ (world - second.pose[:, 3:])
    fx, fy, cx, cy = second.intrinsics
    front = depth > 0
    u, v = (np.rint(f * p[front] / depth[front] + c).astype(int) for f, p, c in ((fx, x, cx), (fy, y, cy)))
    height, width = second.depth.shape
    inside = (u >= 0) & (u < width) & (v >= 0) & (v < height)
    seen = second.depth[v[inside], u[inside]] * scene.depth_scale
    apart = np.abs(depth[front][inside] - seen)[seen > 0]
    assert len(apart) > OVERLAP_PIXELS, f"the views share {len(apart)} pixels"
    return float(np.median(apart)) * 1000


def write_posed_images(root: Path, name: str, scene: SceneFrames) -> None:
    """`posed_images`: one folder; `intrinsic.txt` is the colour camera's, at twice the size."""
    folder = root / name
    folder.mkdir(parents=True)
    for i, frame in enumerate(scene.frames):
        Image.fromarray(frame.depth).save(folder / f"{i:05d}.png")
        colour = Image.fromarray(frame.colour())
        colour.resize((colour.width * 2, colour.height * 2)).save(folder / f"{i:05d}.jpg")
        write_matrix(folder / f"{i:05d}.txt", full_pose(frame.pose, np.eye(3)))
    intrinsics = scene.frames[0].intrinsics
    write_matrix(folder / "depth_intrinsic.txt", camera_matrix(intrinsics, 4))
    write_matrix(folder / "intrinsic.txt", camera_matrix(intrinsics * 2, 4))


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


def inverted(frame: Frame) -> Frame:
    """World to camera in place of camera to world."""
    rotation, place = frame.pose[:, :3], frame.pose[:, 3:]
    return replace(frame, pose=np.concatenate([rotation.T, -rotation.T @ place], axis=1))


def opengl(frame: Frame) -> Frame:
    """Camera axes y up, looking along -z."""
    return replace(frame, pose=frame.pose * np.array([1.0, -1, -1, 1]))


def halved(frame: Frame) -> Frame:
    """Depth at half the size, the intrinsics as before."""
    return replace(frame, depth=np.ascontiguousarray(frame.depth[::2, ::2]))


def doubled(frame: Frame) -> Frame:
    """Depth at twice the size, the intrinsics as before."""
    return replace(frame, depth=frame.depth.repeat(2, axis=0).repeat(2, axis=1))


def five_thousand(frame: Frame) -> Frame:
    """Depth with 5000 units a metre, read as millimetres."""
    return replace(frame, depth=frame.depth * np.uint16(UNITS_OF_TUM))


def poses_in_cm(frame: Frame) -> Frame:
    """Translations in centimetres."""
    return replace(frame, pose=frame.pose * np.array([1.0, 1, 1, 100]))


def poses_in_mm(frame: Frame) -> Frame:
    """Translations in millimetres."""
    return replace(frame, pose=frame.pose * np.array([1.0, 1, 1, 1000]))


def along_ray(frame: Frame) -> Frame:
    """Depth is the distance from the camera, not z."""
    fx, fy, cx, cy = frame.intrinsics
    v, u = np.mgrid[: frame.depth.shape[0], : frame.depth.shape[1]]
    length = np.sqrt(1 + ((u - cx) / fx) ** 2 + ((v - cy) / fy) ** 2)
    return replace(frame, depth=np.rint(frame.depth * length).astype(np.uint16))


def focal_length(frame: Frame) -> Frame:
    """A focal length that is a tenth too long."""
    return replace(frame, intrinsics=frame.intrinsics * np.array([1.1, 1.1, 1, 1]))


MISTAKES: dict[str, tuple[Callable[[Frame], Frame], str]] = {
    "inverted": (inverted, "poses are inverted"),
    "opengl": (opengl, "OpenGL's axes"),
    "halved": (halved, "pictures of 2 times the depth maps' size"),
    "doubled": (doubled, "pictures of 0.5 times the depth maps' size"),
    "5000": (five_thousand, "5000 units a metre, not 1000"),
    "cm": (poses_in_cm, "the poses are in centimetres"),
    "mm": (poses_in_mm, "the poses are in millimetres"),
    "ray": (along_ray, "length of the ray"),
    "focal": (focal_length, "focal length is off: about 0.91"),
}
"""Each mistake with words of its diagnosis."""


def noisy(scene: SceneFrames, sigma_mm: float) -> SceneFrames:
    """The scene with Gaussian noise on its depth, the same each time."""
    draw = np.random.default_rng(0)
    frames = [
        replace(f, depth=np.rint(f.depth + draw.normal(0, sigma_mm, f.depth.shape)).clip(1).astype(np.uint16))
        for f in scene.frames
    ]
    return replace(scene, frames=frames)
