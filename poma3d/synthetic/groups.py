"""What the rooms of each type contain: groups of pieces, and how many of each.

A *group* is pieces that belong together (a bed with its nightstands, a table with its chairs) in a
frame of its own, its back along y = 0 and its front toward +y. Lengths are metres.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from poma3d.synthetic.furniture import Piece, build

GAP = 0.03
"""Between neighbours of one group, and between a back and its wall."""


@dataclass
class Group:
    """Pieces with their places in the group's frame, x in [-width/2, width/2], y in [0, depth]."""

    members: list[tuple[Piece, float, float, float]]
    """(piece, x, y, yaw) each."""
    width: float
    depth: float


GroupMaker = Callable[[np.random.Generator], Group]


def single(name: str, word: str | None = None) -> GroupMaker:
    """One piece of the class `name`."""

    def make(rng: np.random.Generator) -> Group:
        piece = build(name, rng, word)
        return Group([(piece, 0.0, piece.depth / 2, 0.0)], piece.width, piece.depth)

    return make


def bed_with_nightstands(rng: np.random.Generator) -> Group:
    """A bed with none, one or two nightstands at its head."""
    bed = build("bed", rng)
    members = [(bed, 0.0, bed.depth / 2, 0.0)]
    reach = bed.width / 2
    for side in rng.permutation([-1, 1])[: int(rng.integers(0, 3))]:
        stand = build("nightstand", rng)
        members.append((stand, side * (bed.width / 2 + GAP + stand.width / 2), stand.depth / 2, 0.0))
        reach = max(reach, bed.width / 2 + GAP + stand.width)
    return Group(members, 2 * reach, bed.depth)


def desk_with_chair(rng: np.random.Generator) -> Group:
    """A desk with a chair in front of it."""
    desk, chair = build("desk", rng), build("chair", rng)
    x = float(rng.uniform(-0.2, 0.2))
    members = [(desk, 0.0, desk.depth / 2, 0.0), _seat(rng, chair, x, desk.depth + GAP, math.pi)]
    return Group(members, desk.width, desk.depth + 2 * GAP + _swing(chair))


def sofa_with_table(rng: np.random.Generator) -> Group:
    """A sofa, often with a low table before it."""
    sofa = build("sofa", rng)
    members = [(sofa, 0.0, sofa.depth / 2, 0.0)]
    depth = sofa.depth
    if rng.random() < 0.6:
        table = build("table", rng, "low")
        members.append((table, 0.0, sofa.depth + 0.35 + table.depth / 2, 0.0))
        depth += 0.35 + table.depth
    return Group(members, sofa.width, depth)


def dining(low: int, high: int, seat: str = "chair") -> GroupMaker:
    """A table with `low` to `high` seats around it."""

    def make(rng: np.random.Generator) -> Group:
        seats = int(rng.integers(low, high + 1))
        table = build("table", rng, "long" if seats > 4 else str(rng.choice(["small", "round"])))
        deep = _swing(build(seat, rng))
        middle = deep + GAP + table.depth / 2
        members = [(table, 0.0, middle, 0.0)]
        reach = table.width / 2 + GAP
        for x, y, yaw in _around(table, seats):
            piece = build(seat, rng)
            out_x, out_y = math.sin(yaw), -math.cos(yaw)  # away from the table
            away = (table.width if abs(out_x) > 0.5 else table.depth) / 2 + GAP + _swing(piece) / 2
            place = (x + out_x * away, middle + y + out_y * away)
            members.append((piece, *place, yaw + float(rng.uniform(-0.15, 0.15))))
        return Group(members, 2 * (reach + deep), 2 * middle)

    return make


def kitchen_row(rng: np.random.Generator) -> Group:
    """Cabinets, stove, sink and fridge side by side."""
    pieces = [build("stove", rng), build("sink", rng, "wide")]
    pieces += [build("cabinet", rng) for _ in range(int(rng.integers(1, 4)))]
    order = [pieces[i] for i in rng.permutation(len(pieces))]
    if rng.random() < 0.8:
        order.insert(0 if rng.random() < 0.5 else len(order), build("fridge", rng))
    width = sum(p.width for p in order) + GAP * (len(order) - 1)
    members, x = [], -width / 2
    for piece in order:
        members.append((piece, x + piece.width / 2, piece.depth / 2, 0.0))
        x += piece.width + GAP
    return Group(members, width, max(p.depth for p in order))


def school_desks(rng: np.random.Generator) -> Group:
    """Small desks in rows, each with a chair behind it, all facing one way."""
    columns, rows = int(rng.integers(2, 4)), int(rng.integers(2, 4))
    pitch_x, pitch_y = 1.75, 1.55
    members = []
    for i in range(columns * rows):
        x = (i % columns - (columns - 1) / 2) * pitch_x
        y = (i // columns) * pitch_y
        desk, chair = build("desk", rng, "small"), build("chair", rng)
        members.append((desk, x, y + desk.depth / 2, 0.0))
        members.append(_seat(rng, chair, x, y + desk.depth + GAP, math.pi))
    return Group(members, columns * pitch_x - 0.4, rows * pitch_y)


def _swing(piece: Piece) -> float:
    """Depth that a slightly turned seat needs."""
    return 1.15 * max(piece.width, piece.depth)


def _seat(
    rng: np.random.Generator, piece: Piece, x: float, y: float, yaw: float
) -> tuple[Piece, float, float, float]:
    """A seat beyond the line `y`, turned by `yaw` and a little more."""
    return piece, x, y + _swing(piece) / 2, yaw + float(rng.uniform(-0.15, 0.15))


def _around(table: Piece, seats: int) -> list[tuple[float, float, float]]:
    """Places (x, y, yaw) at a table's edge from its middle; a seat of yaw 0 looks toward +y."""
    if seats <= 4:
        sides = [(0.0, 0.0, 0.0), (0.0, 0.0, math.pi), (0.0, 0.0, math.pi / 2), (0.0, 0.0, -math.pi / 2)]
        return sides[:seats]
    heads = 2 if seats % 2 == 0 and seats > 6 else seats % 2
    per_side = (seats - heads) // 2
    xs = (np.arange(per_side) + 0.5) / per_side * table.width - table.width / 2
    places = [(float(x), 0.0, yaw) for yaw in (0.0, math.pi) for x in xs]
    return places + [(0.0, 0.0, math.pi / 2), (0.0, 0.0, -math.pi / 2)][:heads]


@dataclass(frozen=True)
class Rule:
    """How many of a group a room has, and whether they stand at a wall or freely."""

    make: GroupMaker
    low: int
    high: int
    at_wall: bool = True


@dataclass(frozen=True)
class RoomKind:
    """One room type: the range of its sides and its groups, the biggest first."""

    sides: tuple[float, float]
    rules: tuple[Rule, ...]
    floors: tuple[str, ...] = ("planks", "plain")


ROOM_KINDS: dict[str, RoomKind] = {
    "bedroom": RoomKind((3.2, 5.6), (
        Rule(bed_with_nightstands, 1, 2), Rule(single("wardrobe"), 0, 2), Rule(desk_with_chair, 0, 1),
        Rule(single("shelf"), 0, 1), Rule(single("armchair"), 0, 1), Rule(single("television"), 0, 1),
        Rule(single("lamp"), 0, 2), Rule(single("plant"), 0, 1))),
    "living room": RoomKind((4.0, 7.0), (
        Rule(sofa_with_table, 1, 2), Rule(single("piano"), 0, 1), Rule(single("television"), 0, 1),
        Rule(single("armchair"), 0, 3), Rule(single("shelf"), 0, 2), Rule(single("cabinet"), 0, 1),
        Rule(single("lamp"), 0, 2), Rule(single("plant"), 0, 3))),
    "kitchen": RoomKind((3.0, 5.5), (
        Rule(kitchen_row, 1, 1), Rule(dining(2, 4), 0, 1, False), Rule(single("fridge"), 0, 1),
        Rule(single("cabinet"), 0, 2), Rule(single("stool"), 0, 3), Rule(single("plant"), 0, 1)),
        ("tiles",)),
    "dining room": RoomKind((4.0, 6.5), (
        Rule(dining(4, 8), 1, 1, False), Rule(dining(2, 4, "stool"), 0, 1, False),
        Rule(single("cabinet"), 0, 2), Rule(single("shelf"), 0, 1), Rule(single("piano"), 0, 1),
        Rule(single("lamp"), 0, 2), Rule(single("plant"), 0, 2))),
    "office": RoomKind((3.2, 6.5), (
        Rule(desk_with_chair, 1, 4), Rule(single("shelf"), 0, 3), Rule(single("cabinet"), 0, 2),
        Rule(single("armchair"), 0, 1), Rule(single("lamp"), 0, 1), Rule(single("plant"), 0, 2))),
    "bathroom": RoomKind((2.6, 4.2), (
        Rule(single("bathtub"), 0, 1), Rule(single("sink", "narrow"), 1, 2), Rule(single("toilet"), 1, 1),
        Rule(single("cabinet", "small"), 0, 1), Rule(single("stool", "low"), 0, 1),
        Rule(single("plant", "small"), 0, 1)), ("tiles",)),
    "classroom": RoomKind((5.5, 7.5), (
        Rule(school_desks, 1, 1, False), Rule(single("piano"), 0, 1), Rule(single("shelf"), 0, 2),
        Rule(single("cabinet"), 0, 2), Rule(single("television"), 0, 1), Rule(single("plant"), 0, 2)),
        ("plain", "planks")),
    "library": RoomKind((4.0, 7.0), (
        Rule(dining(2, 8), 0, 1, False), Rule(single("shelf"), 3, 7), Rule(single("armchair"), 0, 3),
        Rule(desk_with_chair, 0, 1), Rule(single("lamp"), 0, 3), Rule(single("plant"), 0, 1))),
    "studio": RoomKind((4.5, 7.0), (
        Rule(bed_with_nightstands, 1, 1), Rule(sofa_with_table, 0, 1), Rule(dining(2, 4), 0, 1, False),
        Rule(desk_with_chair, 0, 1), Rule(single("wardrobe"), 0, 1), Rule(single("fridge"), 0, 1),
        Rule(single("stove"), 0, 1), Rule(single("television"), 0, 1), Rule(single("plant"), 0, 1))),
}  # fmt: skip
