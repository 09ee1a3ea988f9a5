"""Ray casting of furnished box rooms to depth, ids and shaded colour: NumPy, one core.

A room is a box seen from inside, with solids in it; a solid is boxes and upright cylinders turned about
z as one. Per (view, solid) the image is clipped to the rectangle of the solid's bounding box, the ray
frame is turned once, and all parts are tested at once. Ray directions have camera z = 1, so the ray
parameter is the depth along the optical axis.

Legend: H W image; S solids; P parts of a solid, boxes first; h w the clipped rectangle.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from poma3d.synthetic.furniture import Piece

NEAR_M = 0.05
TINY = 1e-6
"""Ray components are kept this far from zero: an exact 0 would give an infinite depth."""
ROOM = -1
"""Id of the walls, floor and ceiling in `Hits.solid`."""

_CORNERS = np.array([[i >> 2 & 1, i >> 1 & 1, i & 1] for i in range(8)])
_EDGES = np.array([(i, i | bit) for bit in (1, 2, 4) for i in range(8) if not i & bit])


@dataclass(frozen=True)
class Solid:
    """A piece of furniture at its place: turned by `yaw` about z, then moved to (x, y)."""

    piece: Piece
    x: float
    y: float
    yaw: float

    def footprint(self) -> tuple[float, float, float, float]:
        """Its axis-aligned bounds in the room: x0, y0, x1, y1."""
        cos, sin = abs(np.cos(self.yaw)), abs(np.sin(self.yaw))
        half_x = (cos * self.piece.width + sin * self.piece.depth) / 2
        half_y = (sin * self.piece.width + cos * self.piece.depth) / 2
        return self.x - half_x, self.y - half_y, self.x + half_x, self.y + half_y


@dataclass(frozen=True)
class Camera:
    """A pinhole camera: intrinsics [4], pose [3, 4] camera -> world, and the image's size."""

    intrinsics: np.ndarray
    pose: np.ndarray
    height: int
    width: int


@dataclass(frozen=True)
class Hits:
    """What each pixel sees."""

    depth: np.ndarray
    """float32 [H, W] metres along the optical axis; every ray ends, at a wall if nowhere else."""
    solid: np.ndarray
    """int32 [H, W]: index of the solid, or ROOM."""
    part: np.ndarray
    """int32 [H, W]: index of the part, counted over all solids (`Stage.centre`)."""
    rays: np.ndarray
    """float32 [3, H, W] world directions with camera z = 1."""


class Stage:
    """A room with its solids, laid out for casting many views."""

    def __init__(self, size: tuple[float, float, float], solids: list[Solid]) -> None:
        """A room over [0, size] with `solids` in it; sizes in metres."""
        self.size = np.asarray(size, np.float32)
        self.solids = solids
        self._parts = [_parts(solid.piece) for solid in solids]
        counts = [len(lo) for lo, _, _ in self._parts]
        self._first = np.concatenate([[0], np.cumsum(counts)]).astype(np.int32)
        yaw = np.array([s.yaw for s in solids])
        self._cos, self._sin = np.cos(yaw).astype(np.float32), np.sin(yaw).astype(np.float32)
        self._at = np.array([(s.x, s.y, 0.0) for s in solids], np.float32).reshape(-1, 3)
        self._corners = self._world_corners()
        los = [lo for lo, _, _ in self._parts] or [np.zeros((0, 3), np.float32)]
        his = [hi for _, hi, _ in self._parts] or [np.zeros((0, 3), np.float32)]
        lo, hi = np.concatenate(los), np.concatenate(his)
        self.centre = (lo + hi) / 2
        """Middle of every part [sum P, 3] in its solid's frame; `half` are its half sizes."""
        self.half = np.maximum((hi - lo) / 2, TINY)
        self.owner = np.repeat(np.arange(len(solids)), counts)
        """Solid of every part."""
        self.is_round = np.concatenate(
            [np.arange(len(p[0])) >= p[2] for p in self._parts] or [np.zeros(0, bool)]
        )
        self.colour = np.array(
            [c for s in solids for c in (*s.piece.box_colours, *s.piece.cylinder_colours)], np.float32
        ).reshape(-1, 3)

    def cast(self, camera: Camera) -> Hits:
        """Depth and ids of one view; the camera must stand inside the room."""
        rays = camera_rays(camera)
        origin = camera.pose[:, 3].astype(np.float32)
        depth = self._room_depth(rays, origin)
        solid = np.full(depth.shape, ROOM, np.int32)
        part = np.full(depth.shape, ROOM, np.int32)
        rectangles, nearest = self._rectangles(camera)
        # Near solids first: the more is hidden already, the fewer pixels need the id of a part.
        for s in np.argsort(nearest):
            top, bottom, left, right = rectangles[s]
            if top >= bottom or left >= right:
                continue
            window = np.s_[top:bottom, left:right]
            near = self._part_depths(s, rays[:, top:bottom, left:right], origin)
            distance = near.min(0)
            closer = distance < depth[window]
            np.copyto(depth[window], distance, where=closer)
            np.copyto(solid[window], s, where=closer)
            part[window][closer] = near[:, closer].argmin(0) + self._first[s]
        return Hits(depth, solid, part, rays)

    def local(self, points: np.ndarray, solid: np.ndarray) -> np.ndarray:
        """World points [N, 3] in the frames of their solids [N]."""
        moved = points - self._at[solid]
        cos, sin = self._cos[solid], self._sin[solid]
        x, y = moved[:, 0], moved[:, 1]
        return np.stack([cos * x + sin * y, cos * y - sin * x, moved[:, 2]], -1)

    def world_directions(self, directions: np.ndarray, solid: np.ndarray) -> np.ndarray:
        """Directions [N, 3] in the frames of their solids [N], turned into the world."""
        cos, sin = self._cos[solid], self._sin[solid]
        x, y = directions[:, 0], directions[:, 1]
        return np.stack([cos * x - sin * y, sin * x + cos * y, directions[:, 2]], -1)

    def _world_corners(self) -> np.ndarray:
        """The corners of every solid's bounding box in the world [S, 8, 3]."""
        bounds = np.array([[lo.min(0), hi.max(0)] for lo, hi, _ in self._parts]).reshape(-1, 2, 3)
        local = bounds[:, _CORNERS, np.arange(3)]
        solid = np.repeat(np.arange(len(self.solids)), 8)
        turned = self.world_directions(local.reshape(-1, 3), solid).reshape(-1, 8, 3)
        return turned + self._at[:, None]

    def _room_depth(self, rays: np.ndarray, origin: np.ndarray) -> np.ndarray:
        end = np.where(rays > 0, self.size[:, None, None], 0) - origin[:, None, None]
        return np.min(end / rays, axis=0).astype(np.float32)

    def _rectangles(self, camera: Camera) -> tuple[np.ndarray, np.ndarray]:
        """Image rectangle [S, 4] (top, bottom, left, right) that holds each solid, and its least depth."""
        corners = (self._corners - camera.pose[:, 3]) @ camera.pose[:, :3]
        # A box that reaches behind the eye is cut at NEAR_M: the cuts of its edges bound what is seen.
        start, end = corners[:, _EDGES[:, 0]], corners[:, _EDGES[:, 1]]
        run = end[..., 2:] - start[..., 2:]
        share = (NEAR_M - start[..., 2:]) / np.where(np.abs(run) < TINY, TINY, run)
        cut = (share > 0) & (share < 1)
        points = np.concatenate([corners, start + share * (end - start)], axis=1)
        seen = np.concatenate([corners[..., 2:] >= NEAR_M, cut], axis=1)
        pixels = points[..., :2] / np.maximum(points[..., 2:], NEAR_M) * camera.intrinsics[:2]
        pixels += camera.intrinsics[2:]
        size = np.array([camera.width, camera.height])
        low = np.clip(np.floor(np.where(seen, pixels, np.inf).min(1)), 0, size).astype(int)
        high = np.clip(np.ceil(np.where(seen, pixels, -np.inf).max(1)) + 1, 0, size).astype(int)
        return np.stack([low[:, 1], high[:, 1], low[:, 0], high[:, 0]], -1), corners[..., 2].min(1)

    def _part_depths(self, s: int, rays: np.ndarray, origin: np.ndarray) -> np.ndarray:
        """Depth [P, h, w] at which rays enter each part of solid `s`; inf where they miss it."""
        lo, hi, boxes = self._parts[s]
        cos, sin = self._cos[s], self._sin[s]
        moved = origin - self._at[s]
        start = np.array(
            [cos * moved[0] + sin * moved[1], cos * moved[1] - sin * moved[0], moved[2]], np.float32
        )
        turned = np.empty(rays.shape, np.float32)
        turned[0] = cos * rays[0] + sin * rays[1]
        turned[1] = cos * rays[1] - sin * rays[0]
        turned[2] = rays[2]
        inverse = 1 / _off_zero(turned)
        near = np.empty((len(lo), *rays.shape[1:]), np.float32)
        if boxes:
            _slabs(lo[:boxes] - start, hi[:boxes] - start, inverse, near[:boxes])
        for i in range(boxes, len(lo)):
            near[i] = _cylinder(lo[i] - start, hi[i] - start, turned, inverse[2])
        return near


def camera_rays(camera: Camera) -> np.ndarray:
    """World directions float32 [3, H, W] of all pixels, with camera z = 1 and no component of 0."""
    fx, fy, cx, cy = camera.intrinsics
    x = ((np.arange(camera.width) - cx) / fx).astype(np.float32)
    y = ((np.arange(camera.height) - cy) / fy).astype(np.float32)
    rotation = camera.pose[:, :3].astype(np.float32)
    across = rotation[:, 0, None] * x + rotation[:, 2, None]
    rays = across[:, None, :] + (rotation[:, 1, None] * y)[:, :, None]
    return _off_zero(rays)


def _off_zero(rays: np.ndarray) -> np.ndarray:
    """The rays with every component at least TINY in size."""
    return np.copysign(np.maximum(np.abs(rays), TINY), rays)


def _parts(piece: Piece) -> tuple[np.ndarray, np.ndarray, int]:
    """Low and high corners float32 [P, 3] of all parts, and how many of them are boxes."""
    boxes = np.array(piece.boxes, np.float32).reshape(-1, 6)
    x, y, r, z0, z1 = np.array(piece.cylinders, np.float32).reshape(-1, 5).T
    lo = np.concatenate([boxes[:, :3], np.stack([x - r, y - r, z0], -1)])
    hi = np.concatenate([boxes[:, 3:], np.stack([x + r, y + r, z1], -1)])
    return lo, hi, len(boxes)


def _slabs(lo: np.ndarray, hi: np.ndarray, inverse: np.ndarray, out: np.ndarray) -> None:
    """Depth at which rays enter the boxes lo, hi [P, 3] (relative to the eye); inf where they miss.

    Args:
        inverse: one over the ray directions [3, h, w].
        out: [P, h, w], written.
    """
    # Starting at NEAR_M instead of -inf drops what lies behind the eye: it ends before it begins.
    out[:] = NEAR_M
    far = np.full(out.shape, np.inf, np.float32)
    one, two, low = np.empty_like(out), np.empty_like(out), np.empty_like(out)
    for axis in range(3):
        np.multiply(lo[:, axis, None, None], inverse[axis], out=one)
        np.multiply(hi[:, axis, None, None], inverse[axis], out=two)
        np.minimum(one, two, out=low)
        np.maximum(out, low, out=out)
        np.maximum(one, two, out=one)
        np.minimum(far, one, out=far)
    np.copyto(out, np.inf, where=out > far)


def _cylinder(lo: np.ndarray, hi: np.ndarray, rays: np.ndarray, inverse_z: np.ndarray) -> np.ndarray:
    """Depth [h, w] at which rays enter the upright cylinder that fills the box lo, hi [3]."""
    x, y = (lo[0] + hi[0]) / 2, (lo[1] + hi[1]) / 2
    radius = (hi[0] - lo[0]) / 2
    a = rays[0] ** 2 + rays[1] ** 2
    b = x * rays[0] + y * rays[1]
    discriminant = b * b - a * (x * x + y * y - radius * radius)
    root = np.sqrt(np.maximum(discriminant, 0))
    bottom, top = lo[2] * inverse_z, hi[2] * inverse_z
    near = np.maximum((b - root) / a, np.minimum(bottom, top))
    far = np.minimum((b + root) / a, np.maximum(bottom, top))
    return np.where((discriminant > 0) & (near <= far) & (near > NEAR_M), near, np.inf)
