"""The reader of synthetic rooms: a room, its cameras, its views with captions; seeded per room."""

from __future__ import annotations

import re

import numpy as np

from poma3d.sample import MILLIMETRE, Classes
from poma3d.scenes.frame import Frame, SceneFrames
from poma3d.synthetic.captions import CLASS_WORDS, Seen, room_phrase, scene_captions, view_captions
from poma3d.synthetic.config import RoomsConfig
from poma3d.synthetic.layout import Room, furnish
from poma3d.synthetic.raycast import ROOM, Camera, Hits, Stage
from poma3d.synthetic.shading import shade

SOURCE = "rooms"
SEEN_BEFORE = 0.2
"""What a piece counts for the next camera, per view that has shown it already."""
AIM_JITTER_M = 0.4
"""Cameras look past the middle of a piece by about this much."""
AIM_LOW_M, AIM_HIGH_M = 0.2, 1.2
"""Heights that cameras look at."""
MIN_VIEW_M = 0.5
"""A piece nearer than this is not looked at."""
CONE = 0.85
"""A piece is in view when its middle is within this share of the field of view."""
NEAR_POSE_M = 1.5
"""Cameras nearer to each other than about this should look different ways."""
BIG = 0.25
"""Cap on size over distance squared: a very near piece counts no more."""


class RoomsReader:
    """Reads rooms by making them: `poma3d.scenes.frame.Reader`."""

    def __init__(self, config: RoomsConfig) -> None:
        """Raise ValueError for a count or size that cannot be."""
        for name in ("rooms", "views", "image_size", "camera_candidates"):
            if getattr(config, name) < 1:
                raise ValueError(f"rooms: {name} is {getattr(config, name)}, expected at least 1")
        if config.first < 0 or config.seed < 0:
            raise ValueError(f"rooms: first ({config.first}) and seed ({config.seed}) must not be negative")
        if not 10 <= config.field_of_view_deg <= 150:
            raise ValueError(f"rooms: field_of_view_deg is {config.field_of_view_deg}, expected 10 to 150")
        self.config = config

    def classes(self) -> Classes:
        """The furniture, whose words every first caption holds."""
        return CLASS_WORDS

    def scene_ids(self) -> list[str]:
        """`room-SEED-INDEX` of all rooms."""
        first, count = self.config.first, self.config.rooms
        return [f"room-{self.config.seed}-{index:07d}" for index in range(first, first + count)]

    def read(self, scene_id: str) -> SceneFrames:
        """Make one room and look at it.

        Raises:
            ValueError: not an id of this reader's seed.
        """
        match = re.fullmatch(r"room-(\d+)-(\d+)", scene_id)
        if match is None or int(match[1]) != self.config.seed:
            raise ValueError(f"no room {scene_id!r}; ids look like {self.scene_ids()[0]!r}")
        rng = np.random.default_rng([self.config.seed, int(match[2])])
        room = furnish(rng)
        return look_around(room, scene_id, self.config, rng)


def look_around(room: Room, scene_id: str, config: RoomsConfig, rng: np.random.Generator) -> SceneFrames:
    """The frames and captions of one room."""
    stage = Stage(room.size, room.solids)
    frames = []
    best: dict[int, Seen] = {}
    for index, camera in enumerate(place_cameras(room, config, rng)):
        hits = stage.cast(camera)
        seen = pieces_in_view(stage, hits, config.visible_share)
        for solid, piece in seen.items():
            best[solid] = max(piece, best.get(solid, piece), key=lambda p: p.pixels)
        frames.append(
            Frame(
                frame_id=f"{index:03d}",
                depth=np.rint(hits.depth / MILLIMETRE).astype(np.uint16),
                intrinsics=camera.intrinsics,
                pose=camera.pose,
                picture=shade(stage, camera, hits, room.look) if config.colour else None,
                captions=view_captions(room.kind, list(seen.values()), rng),
            )
        )
    captions = scene_captions(room_phrase(room.kind, room.size), [best[s] for s in sorted(best)], rng)
    return SceneFrames(scene_id, SOURCE, frames, captions, is_rendered=True)


def pieces_in_view(stage: Stage, hits: Hits, least_share: float) -> dict[int, Seen]:
    """The furniture that covers at least `least_share` of the image, by the index of its solid."""
    solid = hits.solid.reshape(-1) - ROOM  # the room itself is 0
    count = len(stage.solids) + 1
    pixels = np.bincount(solid, minlength=count)
    columns = np.tile(np.arange(hits.solid.shape[1], dtype=np.float64), hits.solid.shape[0])
    column = np.bincount(solid, columns, count) / np.maximum(pixels, 1) / hits.solid.shape[1]
    depth = np.bincount(solid, hits.depth.reshape(-1), count) / np.maximum(pixels, 1)
    out = {}
    for i, owner in enumerate(stage.solids):
        j = i - ROOM
        if owner.piece.name is not None and pixels[j] >= least_share * solid.size:
            out[i] = Seen(
                owner.piece.name, owner.piece.word, int(pixels[j]), float(column[j]), float(depth[j])
            )
    return out


def place_cameras(room: Room, config: RoomsConfig, rng: np.random.Generator) -> list[Camera]:
    """Cameras on free floor that between them show the room's furniture, chosen greedily.

    Of random poses, each next one is that with most pieces in its cone, big and near ones first, those
    that earlier cameras have shown counting less. What hides what is not asked.
    """
    half = np.tan(np.deg2rad(config.field_of_view_deg) / 2)
    middle = (config.image_size - 1) / 2
    focal = config.image_size / 2 / half
    intrinsics = np.array([focal, focal, middle, middle])
    pieces = [s for s in room.solids if s.piece.name is not None]
    targets = np.array(
        [(s.x, s.y, s.piece.height / 2) for s in pieces] or [(room.size[0] / 2, room.size[1] / 2, 0.8)]
    )
    sizes = np.array([s.piece.width * s.piece.height + 0.3 for s in pieces] or [1.0])

    eyes = _free_eyes(room, config, rng)
    aim = targets[rng.integers(len(targets), size=len(eyes))] + rng.normal(0, AIM_JITTER_M, (len(eyes), 3))
    aim[:, 2] = np.clip(aim[:, 2], AIM_LOW_M, AIM_HIGH_M)
    poses = look_at(eyes, aim)
    local = (targets[None] - eyes[:, None]) @ poses[:, :, :3]
    z = np.maximum(local[..., 2], MIN_VIEW_M)
    inside = (local[..., 2] > MIN_VIEW_M) & (np.abs(local[..., :2]) < CONE * half * z[..., None]).all(-1)
    # Apparent size, capped: a camera right before one wardrobe shows nothing else.
    value = inside * np.sqrt(np.minimum(sizes / z**2, BIG))

    cameras = []
    for _ in range(config.views):
        best = int(value.sum(1).argmax())
        cameras.append(Camera(intrinsics, poses[best], config.image_size, config.image_size))
        value = np.where(inside[best], value * SEEN_BEFORE, value)
        # A pose like one that is taken is worth little, whatever it shows; the same pose, nothing.
        alike = np.maximum(poses[:, :, 2] @ poses[best, :, 2], 0) ** 2
        near = np.exp(-((eyes - eyes[best]) ** 2).sum(-1) / NEAR_POSE_M**2)
        value *= (1 - alike * near)[:, None]
    return cameras


def look_at(eyes: np.ndarray, aim: np.ndarray) -> np.ndarray:
    """Poses [N, 3, 4] camera -> world of level cameras at `eyes` [N, 3] that look at `aim` [N, 3]."""
    forward = (aim - eyes) / np.linalg.norm(aim - eyes, axis=-1, keepdims=True)
    right = np.stack([forward[:, 1], -forward[:, 0], np.zeros(len(forward))], -1)
    right /= np.linalg.norm(right, axis=-1, keepdims=True)
    down = np.cross(forward, right)
    return np.stack([right, down, forward, eyes], -1)


def _free_eyes(room: Room, config: RoomsConfig, rng: np.random.Generator) -> np.ndarray:
    """Random camera positions [N, 3] clear of walls and of furniture that reaches their height."""
    n, gap = config.camera_candidates, config.camera_clearance_m
    width, depth, _ = room.size
    eyes = np.stack(
        [
            rng.uniform(gap, width - gap, n),
            rng.uniform(gap, depth - gap, n),
            rng.uniform(config.eye_height_low_m, config.eye_height_high_m, n),
        ],
        -1,
    )
    bounds = np.array([s.footprint() for s in room.solids]).reshape(-1, 4)
    tops = np.array([s.piece.height for s in room.solids])
    x, y, z = (eyes[:, i, None] for i in range(3))
    over = (
        (x > bounds[:, 0] - gap)
        & (x < bounds[:, 2] + gap)
        & (y > bounds[:, 1] - gap)
        & (y < bounds[:, 3] + gap)
    )
    free = ~(over & (tops + gap > z)).any(1)
    # A room so full that no candidate is free keeps the one farthest inside: its middle.
    return eyes[free] if free.any() else np.array([[width / 2, depth / 2, room.size[2] - gap]])
