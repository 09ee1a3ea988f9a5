"""Poses of annotation files, and how each comes to our world frame (z up, axis-aligned).

    frame        the file's positions                                     faces   to our world
    sqa3d        the raw mesh, the centre of its bounding box at 0        -x      add that centre, align
    scanrefer    the raw scan                                             lookat  align
    msnn         aligned                                                  +x      as they are
    world        ours

To align is to multiply by `axisAlignment` of the scan's text file; scans without it (ScanNet's test scans)
keep their raw frame, as everybody has it. Sources: SQA3D's visualize_data and sepdataset, MSR3D's
situation_visualization; ScanRefer's cameras were compared with the boxes of their objects. Their three angles
are Euler's in the order of three.js (x, then y, then z of the turned axes; the camera looks along its -z),
which was found by comparing them with the lookat.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from poma3d.annotations.rows import CameraText, Quaternion, Question, Vector

WORLD, SQA3D, SCANREFER, MSNN = "world", "sqa3d", "scanrefer", "msnn"
FRAMES = {
    WORLD: "our world: z up, axis-aligned",
    SQA3D: "SQA3D's: the raw mesh with the centre of its bounding box at 0; the agent faces -x",
    SCANREFER: "the raw scan; the camera looks at its lookat",
    MSNN: "axis-aligned; the agent faces +x",
}
AXES = {SQA3D: (-1.0, 0.0, 0.0), MSNN: (1.0, 0.0, 0.0), WORLD: (1.0, 0.0, 0.0)}
"""The agent's own axis that it faces along."""
NEEDED = {
    WORLD: (),
    MSNN: (),
    SCANREFER: ("axisAlignment",),
    SQA3D: ("axisAlignment", "the box centre of the raw mesh"),
}
"""What the way to our world takes of a scan."""
STRAIGHT = 1e-9
"""Length of the level part of a direction below which a camera looks straight up or down."""


@dataclass(frozen=True)
class ScanFrame:
    """What is known of a scan's frame."""

    alignment: np.ndarray | None
    """float64 [4, 4], raw -> aligned; None where the scan's text file states none."""
    centre: np.ndarray | None = None
    """float64 [3], metres: centre of the bounding box of the raw mesh; None where the mesh is not known."""


def facing(orientation: Quaternion, frame: str) -> np.ndarray:
    """The unit direction [3] that an agent faces, in the frame of its file."""
    return rotation_matrix(orientation) @ np.array(AXES[frame])


def in_world(
    position: np.ndarray, direction: np.ndarray, frame: str, scan: ScanFrame | None
) -> tuple[np.ndarray, np.ndarray]:
    """A position [3] and a direction [3] of a file in our world frame.

    Args:
        scan: needed where `NEEDED[frame]` names something.

    Raises:
        ValueError: the scan is not known, or its mesh is not.
    """
    if not NEEDED[frame]:
        return position, direction
    if scan is None:
        raise ValueError(f"the scan is not known: needed are {' and '.join(NEEDED[frame])}")
    if frame == SQA3D:
        if scan.centre is None:
            raise ValueError("the mesh SCAN_vh_clean_2.ply of the scan is not known")
        position = position + scan.centre
    if scan.alignment is None:
        return position, direction
    turn, shift = scan.alignment[:3, :3], scan.alignment[:3, 3]
    return turn @ position + shift, turn @ direction


def camera_of(question: Question, scan: ScanFrame | None) -> CameraText:
    """Where a question is asked from, in our world frame, with its main situation as the text.

    Raises:
        ValueError: the question has no pose, or the scan is not known.
    """
    if question.position is None or question.orientation is None:
        raise ValueError(f"question {question.question_id} has no pose")
    direction = facing(question.orientation, question.frame)
    position, direction = in_world(np.array(question.position), direction, question.frame, scan)
    return CameraText(
        scene_id=question.scene_id,
        text=question.situations[0] if question.situations else question.question,
        position=as_vector(position),
        rotation=level_camera(direction),
        frame=WORLD,
        text_id=question.question_id,
        orientation=question.orientation,
    )


def agent_of(question: Question, scan: ScanFrame | None) -> np.ndarray:
    """Where a question is asked from: float32 [3, 4], world -> agent. The agent stands upright: of the pose
    the position and the direction in the plane count.

    Raises:
        ValueError: the question has no pose, or the scan is not known.
    """
    if question.position is None or question.orientation is None:
        raise ValueError(f"question {question.question_id} has no pose")
    direction = facing(question.orientation, question.frame)
    position, direction = in_world(np.array(question.position), direction, question.frame, scan)
    return upright_agent(position, float(np.arctan2(direction[1], direction[0])))


def upright_agent(position: np.ndarray, angle: float) -> np.ndarray:
    """World -> somebody upright at `position` [3], metres, who looks along `angle`, radians from x
    counter-clockwise: float32 [3, 4], then x is ahead, y left, z up."""
    cos, sin = np.cos(angle), np.sin(angle)
    turn = np.array([[cos, sin, 0.0], [-sin, cos, 0.0], [0.0, 0.0, 1.0]])
    return np.concatenate([turn, -(turn @ position)[:, None]], axis=1).astype(np.float32)


def moved_to_world(row: CameraText, scan: ScanFrame | None) -> CameraText:
    """A row with its camera in our world frame.

    Raises:
        ValueError: the scan is not known.
    """
    direction = rotation_matrix(row.rotation)[:, 2]
    position, direction = in_world(np.array(row.position), direction, row.frame, scan)
    return replace(row, position=as_vector(position), rotation=level_camera(direction), frame=WORLD)


def level_camera(direction: np.ndarray) -> Quaternion:
    """The rotation of a camera that looks along `direction` [3] with its x axis level: x right, y down, z
    ahead.

    Straight up and straight down leave the x axis open: it is the world's then.
    """
    z = direction / np.linalg.norm(direction)
    right = np.array([z[1], -z[0], 0.0])
    length = float(np.linalg.norm(right))
    x = right / length if length > STRAIGHT else np.array([1.0, 0.0, 0.0])
    return quaternion_of(np.stack([x, np.cross(z, x), z], axis=1))


def rotation_matrix(orientation: Quaternion) -> np.ndarray:
    """float64 [3, 3] of a unit quaternion (x, y, z, w)."""
    x, y, z, w = np.array(orientation) / np.linalg.norm(orientation)
    return np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
            [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
            [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
        ]
    )


def quaternion_of(matrix: np.ndarray) -> Quaternion:
    """(x, y, z, w) with w >= 0 of a rotation [3, 3], from the greatest of its four components (Shepperd)."""
    (a, b, c), (d, e, f), (g, h, i) = matrix.tolist()
    candidates = (
        (1 + a - e - i, b + d, c + g, h - f),
        (b + d, 1 - a + e - i, f + h, c - g),
        (c + g, f + h, 1 - a - e + i, d - b),
        (h - f, c - g, d - b, 1 + a + e + i),
    )  # each is the quaternion times four of its own component
    best = max(range(4), key=lambda row: candidates[row][row])
    norm = math.copysign(math.hypot(*candidates[best]), candidates[best][3])
    x, y, z, w = (value / norm for value in candidates[best])
    return x, y, z, w


def euler_matrix(angles: Vector) -> np.ndarray:
    """float64 [3, 3] of three.js's default Euler angles in radians: X(a) Y(b) Z(c)."""
    (ca, cb, cc), (sa, sb, sc) = np.cos(angles), np.sin(angles)
    about_x = np.array([[1, 0, 0], [0, ca, -sa], [0, sa, ca]])
    about_y = np.array([[cb, 0, sb], [0, 1, 0], [-sb, 0, cb]])
    about_z = np.array([[cc, -sc, 0], [sc, cc, 0], [0, 0, 1]])
    turned: np.ndarray = about_x @ about_y @ about_z
    return turned


def as_vector(array: np.ndarray) -> Vector:
    """Three floats."""
    x, y, z = (float(v) for v in array)
    return x, y, z
