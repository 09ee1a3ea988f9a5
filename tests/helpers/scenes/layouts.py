"""Writes small recordings in the layouts of SLAM and capture tools, with their own conventions.

Each writer takes the recording's world as `world` [3, 3], a rotation of the z-up one.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from poma3d.scenes.frame import Frame, SceneFrames
from tests.helpers.scans import camera_matrix, full_pose, write_matrix

UPRIGHT = np.eye(3)
Y_UP = np.array([[1.0, 0, 0], [0, 0, 1], [0, -1, 0]])
"""From z-up to ARKit's y-up."""
OPENGL = np.diag([1.0, -1, -1, 1])


def save_depth(path: Path, frame: Frame, units_per_metre: float = 1000.0) -> None:
    """A 16-bit PNG of millimetres in other units."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.rint(frame.depth * (units_per_metre / 1000)).astype(np.uint16)).save(path)


def save_colour(path: Path, frame: Frame, larger: int = 1) -> None:
    """The picture, `larger` times as wide and high."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(frame.colour())
    image = image.resize((image.width * larger, image.height * larger))
    image.save(path, quality=95) if path.suffix == ".jpg" else image.save(path)


def opengl_pose(frame: Frame, world: np.ndarray) -> np.ndarray:
    """4 x 4 camera -> world of a camera whose y points up and whose z points backwards."""
    return full_pose(frame.pose, world) @ OPENGL


def write_nerfstudio(
    folder: Path, scene: SceneFrames, world: np.ndarray = Y_UP, larger: int = 2, **changes: Any
) -> None:
    """transforms.json with pictures larger than depth; `changes` are keys of the file."""
    frames = []
    for i, frame in enumerate(scene.frames):
        save_colour(folder / "images" / f"frame_{i:05d}.png", frame, larger)
        save_depth(folder / "depth" / f"frame_{i:05d}.png", frame)
        frames.append(
            {
                "file_path": f"./images/frame_{i:05d}.png",
                "depth_file_path": f"./depth/frame_{i:05d}.png",
                "transform_matrix": opengl_pose(frame, world).tolist(),
            }
        )
    height, width = scene.frames[0].depth.shape
    fx, fy, cx, cy = (scene.frames[0].intrinsics + np.array([0, 0, 0.5, 0.5])) * larger
    content = {"camera_model": "OPENCV", "fl_x": fx, "fl_y": fy, "cx": cx, "cy": cy}
    content |= {"w": width * larger, "h": height * larger, "k1": 0.0, "p1": 0, "frames": frames}
    (folder / "transforms.json").write_text(json.dumps(content | changes))


def quaternion(rotation: np.ndarray) -> np.ndarray:
    """qx, qy, qz, qw: the eigenvector that the rotation's quadratic form keeps."""
    (a, b, c), (d, e, f), (g, h, i) = rotation
    form = np.array(
        [
            [a - e - i, d + b, g + c, h - f],
            [d + b, e - a - i, h + f, c - g],
            [g + c, h + f, i - a - e, d - b],
            [h - f, c - g, d - b, a + e + i],
        ]
    )
    return np.linalg.eigh(form)[1][:, -1]


def write_tum(folder: Path, scene: SceneFrames, apart_s: float = 0.01) -> None:
    """TUM RGB-D: poses at 100 Hz, pictures `apart_s` after their depth maps."""
    start = 1305031102.0
    lists: dict[str, list[str]] = {
        "rgb": ["# color images"],
        "depth": ["# depth maps"],
        "groundtruth": ["# t"],
    }
    for i, frame in enumerate(scene.frames):
        time_s = start + i / 30
        depth, colour = f"depth/{time_s:.6f}.png", f"rgb/{time_s + apart_s:.6f}.png"
        save_depth(folder / depth, frame, 5000)
        save_colour(folder / colour, frame)
        lists["depth"].append(f"{time_s:.6f} {depth}")
        lists["rgb"].append(f"{time_s + apart_s:.6f} {colour}")
        numbers = [*frame.pose[:, 3], *quaternion(frame.pose[:, :3])]
        lists["groundtruth"].append(f"{time_s - 0.004:.4f} " + " ".join(f"{x:.6f}" for x in numbers))
    for name, lines in lists.items():
        (folder / f"{name}.txt").write_text("\n".join(lines) + "\n")


def write_open3d(folder: Path, scene: SceneFrames, world: np.ndarray = Y_UP, first: int = 0) -> None:
    """Open3D's recording; files count from `first`, and have a time after their number."""
    lines = []
    for i, frame in enumerate(scene.frames):
        save_depth(folder / "depth" / f"{i + first:07d}-{i * 33333:012d}.png", frame)
        save_colour(folder / "color" / f"{i + first:07d}-{i * 33333 + 7:012d}.jpg", frame)
        pose = full_pose(frame.pose, world)
        lines += [f"{i} {i} {i + 1}", *(" ".join(f"{x:.9f}" for x in row) for row in pose)]
    (folder / "trajectory.log").write_text("\n".join(lines) + "\n")
    height, width = scene.frames[0].depth.shape
    fx, fy, cx, cy = scene.frames[0].intrinsics
    camera = {"width": width, "height": height, "intrinsic_matrix": [fx, 0, 0, 0, fy, 0, cx, cy, 1]}
    (folder / "camera_primesense.json").write_text(json.dumps(camera))


def write_replica(folder: Path, scene: SceneFrames) -> None:
    """A rendered trajectory of Replica, with the camera's file in the folder above."""
    for i, frame in enumerate(scene.frames):
        save_depth(folder / "results" / f"depth{i:06d}.png", frame, 6553.5)
        save_colour(folder / "results" / f"frame{i:06d}.jpg", frame)
    rows = [full_pose(frame.pose, UPRIGHT).reshape(-1) for frame in scene.frames]
    (folder / "traj.txt").write_text("\n".join(" ".join(f"{x:.18e}" for x in row) for row in rows) + "\n")
    height, width = scene.frames[0].depth.shape
    fx, fy, cx, cy = scene.frames[0].intrinsics.tolist()
    camera = {"w": width, "h": height, "fx": fx, "fy": fy, "cx": cx, "cy": cy, "scale": 6553.5}
    (folder.parent / "cam_params.json").write_text(json.dumps({"camera": camera}))


def write_matterport(folder: Path, scene: SceneFrames) -> None:
    """Matterport3D's undistorted pictures of a house; every frame repeats its intrinsics."""
    lines = ["dataset matterport", f"n_images {len(scene.frames)}"]
    lines += ["depth_directory undistorted_depth_images", "color_directory undistorted_color_images", ""]
    for i, frame in enumerate(scene.frames):
        depth, colour = f"8fdad0_d{i // 6}_{i % 6}.png", f"8fdad0_i{i // 6}_{i % 6}.jpg"
        save_depth(folder / "undistorted_depth_images" / depth, frame, 4000)
        save_colour(folder / "undistorted_color_images" / colour, frame)
        fx, fy, cx, cy = frame.intrinsics
        pose = " ".join(f"{x:.9f}" for x in opengl_pose(frame, UPRIGHT).reshape(-1))
        lines.append(f"intrinsics_matrix {fx} 0 {cx}  0 {fy} {frame.depth.shape[0] - 1 - cy} 0 0 1")
        lines.append(f"scan {depth} {colour} {pose}")
    path = folder / "undistorted_camera_parameters" / f"{folder.name}.conf"
    path.parent.mkdir()
    path.write_text("\n".join(lines) + "\n")


def write_bundle_fusion(
    folder: Path, scene: SceneFrames, data: str = "data", shift: int = 1000, world: np.ndarray = Y_UP
) -> None:
    """12-Scenes with `data`, BundleFusion without; pictures are twice as large, of another camera."""
    height, width = scene.frames[0].depth.shape
    for i, frame in enumerate(scene.frames):
        stem = folder / data / f"frame-{i:06d}"
        save_depth(stem.with_suffix(".depth.png"), frame, shift)
        save_colour(stem.with_suffix(".color.jpg"), frame, 2)
        write_matrix(stem.with_suffix(".pose.txt"), full_pose(frame.pose, world))
    colour = scene.frames[0].intrinsics * np.array([2.2, 2.2, 2, 2])
    numbers = {
        name: " ".join(f"{x:.6f}" for x in camera_matrix(camera, 4).reshape(-1))
        for name, camera in (("Depth", scene.frames[0].intrinsics), ("Color", colour))
    }
    identity = " ".join(f"{x:g}" for x in np.eye(4).reshape(-1))
    lines = [
        "m_versionNumber = 4",
        *(f"m_color{side} = {2 * size}" for side, size in (("Width", width), ("Height", height))),
        *(f"m_depth{side} = {size}" for side, size in (("Width", width), ("Height", height))),
        f"m_depthShift = {shift}",
        *(f"m_calibration{name}Intrinsic = {matrix}" for name, matrix in numbers.items()),
        *(f"m_calibration{name}Extrinsic = {identity}" for name in numbers),
        f"m_frames.size = {len(scene.frames)}",
    ]
    (folder / "info.txt").write_text("\n".join(lines) + "\n")
