"""Where furniture stands: groups placed in a room by rejection, a door, windows and paint.

A group is placed against a wall or freely; what finds no place is left out, and nothing ever
intersects. Lengths are metres.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from poma3d.synthetic.furniture import GLASS, WHITE, Piece
from poma3d.synthetic.groups import GAP, ROOM_KINDS, Group, RoomKind
from poma3d.synthetic.raycast import Solid
from poma3d.synthetic.shading import Look

TRIES = 24
REMAKES = 5
AISLE = 0.12
"""Least room between two groups."""
DOOR_CLEARANCE = 0.8
DOOR_SIZE = (0.95, 2.05)
SILL, HEAD = 0.95, 2.1
"""Lower and upper edge of a window."""

Taken = tuple[float, float, float, float, float]
"""Floor (x0, y0, x1, y1) that is taken from the height z0 upward."""


@dataclass(frozen=True)
class Room:
    """A furnished room over [0, size]."""

    kind: str
    """Room type, as captions say it."""
    size: tuple[float, float, float]
    solids: list[Solid]
    look: Look


FLOOR_COLOURS = ((178, 140, 100), (148, 112, 80), (196, 190, 182), (164, 168, 172), (186, 170, 146))
WALL_COLOURS = ((232, 226, 214), (222, 228, 230), (226, 232, 220), (236, 226, 222), (224, 220, 228))
DOOR_COLOUR = (208, 196, 178)


def furnish(rng: np.random.Generator) -> Room:
    """A random room of a random type."""
    kind = list(ROOM_KINDS)[int(rng.integers(len(ROOM_KINDS)))]
    recipe = ROOM_KINDS[kind]
    width, depth = (float(s) for s in rng.uniform(*recipe.sides, size=2))
    size = (width, depth, float(rng.uniform(2.45, 2.9)))
    fixtures, taken = _door_and_windows(rng, size)
    placer = Placer(rng, width, depth, taken)
    for rule in recipe.rules:
        for number in range(int(rng.integers(rule.low, rule.high + 1))):
            # What makes the room's type is tried again with other sizes; the rest only once.
            remakes = REMAKES if number < rule.low else 1
            any(placer.place(rule.make(rng), rule.at_wall) for _ in range(remakes))
    return Room(kind, size, fixtures + placer.solids, _look(rng, recipe))


class Placer:
    """Places groups in a room so that nothing intersects."""

    def __init__(self, rng: np.random.Generator, width: float, depth: float, taken: list[Taken]) -> None:
        """A room width x depth; what is `taken` stays free."""
        self.solids: list[Solid] = []
        self._rng = rng
        self._sides = (width, depth)
        self._taken = list(taken)

    def place(self, group: Group, at_wall: bool) -> bool:
        """Try to place a group; False when there was no room for it."""
        for _ in range(TRIES):
            solids = _moved(group, *(self._wall_spot(group) if at_wall else self._free_spot(group)))
            if self._fits(solids):
                self.solids += solids
                self._taken += [(*s.footprint(), 0.0) for s in solids]
                return True
        return False

    def _wall_spot(self, group: Group) -> tuple[float, float, float]:
        """Where the middle of the group's back goes, and its yaw, for a random wall."""
        wall = int(self._rng.integers(4))
        width, depth = self._sides
        half = group.width / 2 + GAP
        along = float(self._rng.uniform(half, max(half, self._sides[wall % 2] - half)))
        return [
            (along, GAP, 0.0),
            (width - GAP, along, math.pi / 2),
            (along, depth - GAP, math.pi),
            (GAP, along, -math.pi / 2),
        ][wall]

    def _free_spot(self, group: Group) -> tuple[float, float, float]:
        quarter = int(self._rng.integers(4))
        extent = (group.width, group.depth) if quarter % 2 == 0 else (group.depth, group.width)
        margins = [min(e / 2 + AISLE, s / 2) for e, s in zip(extent, self._sides, strict=True)]
        x, y = (float(self._rng.uniform(m, max(m, s - m))) for m, s in zip(margins, self._sides, strict=True))
        yaw = quarter * math.pi / 2
        return x + math.sin(yaw) * group.depth / 2, y - math.cos(yaw) * group.depth / 2, yaw

    def _fits(self, solids: list[Solid]) -> bool:
        width, depth = self._sides
        for solid in solids:
            x0, y0, x1, y1 = solid.footprint()
            if x0 < 0 or y0 < 0 or x1 > width or y1 > depth:
                return False
            for a0, b0, a1, b1, z0 in self._taken:
                apart = x0 >= a1 + AISLE or a0 >= x1 + AISLE or y0 >= b1 + AISLE or b0 >= y1 + AISLE
                if not apart and solid.piece.height > z0:
                    return False
        return True


def _moved(group: Group, x: float, y: float, yaw: float) -> list[Solid]:
    """The group's pieces with the middle of its back at (x, y) and its front turned by `yaw` from +y."""
    cos, sin = math.cos(yaw), math.sin(yaw)
    return [
        Solid(piece, x + cos * px - sin * py, y + sin * px + cos * py, yaw + turn)
        for piece, px, py, turn in group.members
    ]


def _door_and_windows(
    rng: np.random.Generator, size: tuple[float, float, float]
) -> tuple[list[Solid], list[Taken]]:
    """A door, one or two windows as thin solids on the walls, and what must stay free before them."""
    width, depth, _ = size
    walls = rng.permutation(4)
    fixtures = [_on_wall(_door(), int(walls[0]), float(rng.uniform(0.2, 0.8)), size)]
    for wall in walls[1 : 2 + int(rng.integers(2))]:
        span = min(float(rng.uniform(1.0, 2.0)), 0.6 * min(width, depth))
        fixtures.append(_on_wall(_window(span), int(wall), float(rng.uniform(0.3, 0.7)), size))
    door, *windows = fixtures
    taken = [(*_before(door, DOOR_CLEARANCE), 0.0)]
    return fixtures, taken + [(*_before(window, AISLE), SILL) for window in windows]


def _before(fixture: Solid, reach: float) -> tuple[float, float, float, float]:
    """The floor (x0, y0, x1, y1) in front of a fixture, up to `reach`."""
    x0, y0, x1, y1 = fixture.footprint()
    dx, dy = -math.sin(fixture.yaw) * reach, math.cos(fixture.yaw) * reach
    return x0 + min(dx, 0), y0 + min(dy, 0), x1 + max(dx, 0), y1 + max(dy, 0)


def _on_wall(piece: Piece, wall: int, share: float, size: tuple[float, float, float]) -> Solid:
    """A flat piece with its back on a wall, its middle at `share` of what the wall leaves."""
    length = size[wall % 2]
    half = piece.width / 2 + GAP
    along = half + share * max(0.0, length - 2 * half)
    inward = piece.depth / 2
    x, y, yaw = [
        (along, inward, 0.0),
        (size[0] - inward, along, math.pi / 2),
        (along, size[1] - inward, math.pi),
        (inward, along, -math.pi / 2),
    ][wall]
    return Solid(piece, x, y, yaw)


def _door() -> Piece:
    width, height = DOOR_SIZE
    piece = Piece(None, "", width, 0.06, height, DOOR_COLOUR)
    w = width / 2
    piece.box((-w + 0.06, w - 0.06), (-0.03, 0.0), (0, height - 0.06))
    for side in (-w, w - 0.06):
        piece.box((side, side + 0.06), (-0.03, 0.03), (0, height), colour=WHITE)
    piece.box((-w, w), (-0.03, 0.03), (height - 0.06, height), colour=WHITE)
    piece.box((w - 0.2, w - 0.1), (0.0, 0.03), (1.0, 1.04), 0.4)
    return piece


def _window(width: float) -> Piece:
    piece = Piece(None, "", width, 0.08, HEAD, WHITE)
    w = width / 2
    piece.box((-w, w), (-0.04, -0.02), (SILL, HEAD), 1.12, colour=GLASS)
    for side in (-w, -0.025, w - 0.05):
        piece.box((side, side + 0.05), (-0.04, 0.02), (SILL, HEAD))
    for low in (SILL - 0.03, HEAD - 0.05):
        piece.box((-w, w), (-0.04, 0.04 if low < SILL else 0.02), (low, low + 0.05))
    return piece


def _look(rng: np.random.Generator, recipe: RoomKind) -> Look:
    wall = np.array(WALL_COLOURS[int(rng.integers(len(WALL_COLOURS)))]) + rng.normal(0, 4, 3)
    floor = np.array(FLOOR_COLOURS[int(rng.integers(len(FLOOR_COLOURS)))]) + rng.normal(0, 6, 3)
    faces = np.stack([wall] * 4 + [floor, np.full(3, 244.0)])
    return Look(faces.astype(np.float32), str(recipe.floors[int(rng.integers(len(recipe.floors)))]))
