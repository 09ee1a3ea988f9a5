"""Colour for cast rooms: Lambert under one ceiling light, with darker corners and contact shadows.

Only meant to look like a plain photograph at 100-200 pixels. Lengths are metres, colours 0..255.

Legend: N pixels of one kind; S solids.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from poma3d.synthetic.raycast import ROOM, Camera, Hits, Stage

FLOOR = 4
"""Place of the floor in `Look.faces`."""


@dataclass(frozen=True)
class Look:
    """How a room is painted and lit; the numbers are a matter of taste."""

    faces: np.ndarray
    """float32 [6, 3] colours of -x, +x, -y, +y, floor, ceiling."""
    floor: str
    """Floor pattern: "planks", "tiles" or "plain"."""
    ambient: float = 0.55
    """Share of the light that comes from everywhere."""
    diffuse: float = 0.5
    """Strength of the ceiling light on a surface that faces it."""
    light: tuple[float, float, float] = (0.5, 0.5, 0.93)
    """Place of the light as a share of the room's size."""
    decay: float = 0.03
    """How fast the light falls with the square of the distance in metres."""
    least_m: float = 0.3
    """Nearer than this the light does not glare."""
    side: float = 0.06
    """How much lighter faces toward +x are than those toward -x, halved."""
    corner_m: float = 0.35
    """How far the darkening of edges between walls reaches."""
    corner: float = 0.22
    """How much darker an edge is."""
    contact_m: float = 0.14
    """How far a piece darkens the floor around it."""
    contact: float = 0.4
    """How much darker the floor is right beside a piece."""


def shade(stage: Stage, camera: Camera, hits: Hits, look: Look) -> np.ndarray:
    """Colour uint8 [H, W, 3] of one view."""
    origin = camera.pose[:, 3].astype(np.float32)
    points = (hits.depth * hits.rays + origin[:, None, None]).reshape(3, -1)
    is_room = hits.solid.reshape(-1) == ROOM
    room, piece = np.flatnonzero(is_room), np.flatnonzero(~is_room)
    on_room, on_piece = points.take(room, 1), points.take(piece, 1)
    part = hits.part.reshape(-1)[piece]

    room_colour, room_normal = _room_surface(stage, on_room, look)
    points = np.concatenate([on_room, on_piece], 1)
    colour = np.concatenate([room_colour, stage.colour[part].T], 1)
    normal = np.concatenate([room_normal, _piece_normals(stage, on_piece.T, part).T], 1)

    to_light = (np.array(look.light, np.float32) * stage.size)[:, None] - points
    square = (to_light * to_light).sum(0)
    cosine = np.maximum((normal * to_light).sum(0), 0) / np.sqrt(np.maximum(square, look.least_m**2))
    # Faces toward -x are a little darker: flat boxes keep readable edges in even light.
    light = look.ambient + look.diffuse * cosine / (1 + look.decay * square) + look.side * normal[0]
    image = np.empty((points.shape[1], 3), np.uint8)
    image[np.concatenate([room, piece])] = np.clip(colour * light, 0, 255).T
    return image.reshape(*hits.depth.shape, 3)


def _room_surface(stage: Stage, points: np.ndarray, look: Look) -> tuple[np.ndarray, np.ndarray]:
    """Colours and inward normals [3, N] of points [3, N] on walls, floor and ceiling."""
    to_high = stage.size[:, None] - points
    x, y, z = gaps = np.minimum(points, to_high)
    axis = gaps.argmin(0)
    columns = np.arange(points.shape[1])
    face = 2 * axis + (to_high < points)[axis, columns]
    normals = np.zeros((6, 3), np.float32)
    normals[np.arange(6), np.arange(6) // 2] = (1, -1) * 3
    to_edge = np.maximum(np.minimum(x, y), np.minimum(np.maximum(x, y), z))  # the second smallest
    shadow = 1 - look.corner * np.exp(to_edge / -look.corner_m)
    floor = np.flatnonzero(face == FLOOR)
    shadow[floor] *= _contact(stage, points[:, floor], look) * _pattern(points[:, floor], look.floor)
    return look.faces[face].T * shadow, normals[face].T


def _contact(stage: Stage, points: np.ndarray, look: Look) -> np.ndarray:
    """How bright [N] the floor is for the pieces that stand near."""
    bounds = np.array([s.footprint() for s in stage.solids if s.piece.name is not None], np.float32)
    if len(bounds) == 0:
        return np.ones(points.shape[1], np.float32)
    x, y, _ = points
    gap = np.maximum(bounds[:, 0, None] - x, x - bounds[:, 2, None])
    np.maximum(gap, bounds[:, 1, None] - y, out=gap)
    np.maximum(gap, y - bounds[:, 3, None], out=gap)
    gap = np.maximum(gap.min(0), 0)
    return 1 - look.contact * np.exp(-gap / look.contact_m)


def _pattern(points: np.ndarray, kind: str) -> np.ndarray:
    """Brightness [N] of a floor's pattern."""
    x, y, _ = points
    if kind == "planks":
        plank = np.floor(y / 0.16)
        joint = np.floor(x / 1.2 + 0.37 * plank)
        return 1 + 0.05 * np.sin(12.9898 * plank + 78.233 * joint)
    if kind == "tiles":
        return 0.96 + 0.06 * ((np.floor(x / 0.4) + np.floor(y / 0.4)) % 2)
    return np.ones(points.shape[1], np.float32)


def _piece_normals(stage: Stage, points: np.ndarray, part: np.ndarray) -> np.ndarray:
    """World normals [N, 3] of points on the parts [N]."""
    solid = stage.owner[part]
    offset = stage.local(points, solid) - stage.centre[part]
    relative = offset / stage.half[part]
    size = np.abs(relative)
    axis = size.argmax(1)
    normal = np.zeros_like(offset)
    rows = np.arange(len(points))
    normal[rows, axis] = np.sign(relative[rows, axis])
    mantle = np.flatnonzero(stage.is_round[part])
    if len(mantle):
        radial = relative[mantle].copy()
        radial[:, 2] = 0
        length = np.sqrt(np.einsum("ij,ij->i", radial, radial))
        on_mantle = length > size[mantle, 2]
        chosen = mantle[on_mantle]
        normal[chosen] = radial[on_mantle] / length[on_mantle, None]
        caps = mantle[~on_mantle]
        normal[caps] = 0
        normal[caps, 2] = np.sign(relative[caps, 2])
    return stage.world_directions(normal, solid)
