"""Writes small recordings in the layouts that data sets are released in, from synthetic rooms.

Pictures may be stored on their side, as a phone that is held upright does: `sideways` says how often the
stored picture must be turned anticlockwise to stand.
"""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from poma3d.scenes.frame import Frame, SceneFrames
from tests.helpers.scans import camera_matrix, full_pose, write_matrix

CLOCKWISE = np.array([[0.0, -1, 0], [1, 0, 0], [0, 0, 1]])
"""Camera axes before -> after the picture was turned clockwise by a quarter: x becomes y."""


@dataclass
class Stored:
    """A frame as the sensor stored it."""

    depth: np.ndarray
    colour: np.ndarray
    intrinsics: np.ndarray
    pose: np.ndarray


def stored(frame: Frame, sideways: int) -> Stored:
    """The frame with its picture turned clockwise `sideways` times."""
    colour = frame.colour()
    assert colour is not None
    out = Stored(frame.depth, colour, frame.intrinsics, frame.pose)
    for _ in range(sideways):
        height = out.depth.shape[0]
        fx, fy, cx, cy = out.intrinsics
        out = Stored(
            np.rot90(out.depth, -1),
            np.rot90(out.colour, -1),
            np.array([fy, fx, height - 1 - cy, cx]),
            np.concatenate([out.pose[:, :3] @ CLOCKWISE.T, out.pose[:, 3:]], 1),
        )
    return out


def ways(sideways: int | Sequence[int], count: int) -> list[int]:
    """How each of `count` frames was held, where one number stands for all."""
    return [sideways] * count if isinstance(sideways, int) else list(sideways)


def write_three_rscan(root: Path, name: str, scene: SceneFrames, sideways: int | Sequence[int] = 1) -> None:
    """The layout of `three_rscan`; colour is larger than depth."""
    held = ways(sideways, len(scene.frames))
    folder = root / name / "sequence"
    folder.mkdir(parents=True)
    for i, frame in enumerate(scene.frames):
        view = stored(frame, held[i])
        height, width = view.depth.shape
        header = f"P5\n{width} {height}\n65535\n".encode()
        (folder / f"frame-{i:06d}.depth.pgm").write_bytes(header + view.depth.astype(">u2").tobytes())
        colour = Image.fromarray(np.ascontiguousarray(view.colour)).resize((width * 3, height * 3))
        colour.save(folder / f"frame-{i:06d}.color.jpg", quality=95)
        write_matrix(folder / f"frame-{i:06d}.pose.txt", full_pose(view.pose, np.eye(3)))
    view = stored(scene.frames[0], held[0])
    numbers = " ".join(f"{x:.6f}" for x in camera_matrix(view.intrinsics, 4).reshape(-1))
    lines = [
        "m_versionNumber = 4",
        f"m_depthWidth = {view.depth.shape[1]}",
        f"m_depthHeight = {view.depth.shape[0]}",
        "m_depthShift = 1000",
        f"m_calibrationColorIntrinsic = {numbers.replace('1', '3')}",
        f"m_calibrationDepthIntrinsic = {numbers}",
        f"m_frames.size = {len(scene.frames)}",
    ]
    (folder / "_info.txt").write_text("\n".join(lines) + "\n")


def write_arkitscenes(
    folder: Path, scene: SceneFrames, sideways: int | Sequence[int] = 3, unposed: Sequence[int] = ()
) -> None:
    """The layout of `arkitscenes`: a picture every 0.1 s, times of the trajectory with more digits."""
    video = folder.name
    for part in ("lowres_depth", "lowres_wide", "lowres_wide_intrinsics"):
        (folder / part).mkdir(parents=True)
    lines = []
    for i, frame in enumerate(scene.frames):
        view, time_s = stored(frame, ways(sideways, len(scene.frames))[i]), 3419.282 + 0.1 * i
        stem = f"{video}_{time_s:.3f}"
        Image.fromarray(np.ascontiguousarray(view.depth)).save(folder / "lowres_depth" / f"{stem}.png")
        Image.fromarray(np.ascontiguousarray(view.colour)).save(folder / "lowres_wide" / f"{stem}.png")
        height, width = view.depth.shape
        camera = " ".join(f"{x:.6f}" for x in view.intrinsics)
        name = f"{video}_{time_s + 0.001:.3f}.pincam"  # a millisecond beside, as some are
        (folder / "lowres_wide_intrinsics" / name).write_text(f"{width} {height} {camera}")
        if i not in unposed:
            to_camera = view.pose[:, :3].T
            numbers = [*axis_angle(to_camera), *(-to_camera @ view.pose[:, 3])]
            lines.append(f"{time_s - 0.00031246:.8f} " + " ".join(f"{x:.12f}" for x in numbers))
    (folder / "lowres_wide.traj").write_text("\n".join(lines) + "\n")


def axis_angle(rotation: np.ndarray) -> np.ndarray:
    """The vector whose direction and length are the axis and the angle of a rotation."""
    angle = np.arccos(np.clip((np.trace(rotation) - 1) / 2, -1, 1))
    skew = rotation - rotation.T
    axis = np.array([skew[2, 1], skew[0, 2], skew[1, 0]])
    return axis / np.linalg.norm(axis) * angle


def write_sens(
    path: Path,
    scene: SceneFrames,
    zipped: bool = True,
    version: int = 4,
    alignment: np.ndarray | None = None,
    raw_colour: bool = False,
) -> list[int]:
    """A .sens file; returns where each frame begins. Poses are as before `alignment` is applied."""
    path.parent.mkdir(parents=True, exist_ok=True)
    undo = np.eye(3) if alignment is None else alignment[:3, :3].T
    first = scene.frames[0]
    height, width = first.depth.shape
    camera = camera_matrix(first.intrinsics, 4)
    name = b"StructureSensor"
    colour_kind = 0 if raw_colour else 2
    parts = [struct.pack("<IQ", version, len(name)), name]
    parts += [struct.pack("<16f", *m.reshape(-1)) for m in (camera * 3, np.eye(4), camera, np.eye(4))]
    parts += [
        struct.pack(
            "<ii4IfQ",
            colour_kind,
            int(zipped),
            width * 3,
            height * 3,
            width,
            height,
            1000.0,
            len(scene.frames),
        )
    ]
    offsets = []
    for i, frame in enumerate(scene.frames):
        buffer = io.BytesIO()
        if raw_colour:
            buffer.write(np.repeat(np.repeat(frame.colour(), 3, axis=0), 3, axis=1).tobytes())
        else:
            Image.fromarray(frame.colour()).resize((width * 3, height * 3)).save(buffer, "JPEG", quality=95)
        depth = frame.depth.astype("<u2").tobytes()
        depth = zlib.compress(depth) if zipped else depth
        offsets.append(sum(map(len, parts)))
        pose = full_pose(frame.pose, undo)
        parts.append(struct.pack("<16f4Q", *pose.reshape(-1), i, i, len(buffer.getvalue()), len(depth)))
        parts += [buffer.getvalue(), depth]
    path.write_bytes(b"".join(parts))
    return offsets
