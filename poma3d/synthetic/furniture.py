"""The furniture of the synthetic rooms: a table of classes and what each is built of.

A piece is boxes and upright cylinders in a frame of its own: x to its right, y to its front (its back
is what stands against a wall), z up from the floor, the origin at the middle of its footprint. Each
class has one base colour (jittered per piece) and two or three *variants*, each a size word with the
range of sizes that earns it: captions say the word, geometry shows it. Lengths are metres.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

Range = tuple[float, float]
Colour = tuple[int, int, int]

WHITE: Colour = (236, 234, 228)
DARK: Colour = (52, 50, 52)
METAL: Colour = (168, 172, 178)
GLASS: Colour = (178, 212, 232)
WALNUT: Colour = (98, 72, 58)
SOIL: Colour = (92, 70, 52)
TERRACOTTA: Colour = (182, 104, 72)
BOOKS: tuple[Colour, ...] = ((150, 64, 56), (58, 92, 132), (196, 172, 120), (74, 112, 84), (110, 80, 116))

COLOUR_JITTER = 10.0
"""Standard deviation of a piece's colour about its class's, in steps of 256."""


@dataclass
class Piece:
    """One piece of furniture or fixture, in its own frame (see the module)."""

    name: str | None
    """The class; None for a fixture (door, window, rug, picture), which captions do not mention."""
    word: str
    """The size word of its variant; empty when it has none."""
    width: float
    depth: float
    height: float
    colour: tuple[float, ...]
    """Base colour, red, green and blue in 0..255."""
    boxes: list[tuple[float, float, float, float, float, float]] = field(default_factory=list)
    """(x0, y0, z0, x1, y1, z1) each."""
    box_colours: list[tuple[float, ...]] = field(default_factory=list)
    cylinders: list[tuple[float, float, float, float, float]] = field(default_factory=list)
    """(x, y, radius, z0, z1) each."""
    cylinder_colours: list[tuple[float, ...]] = field(default_factory=list)

    def box(self, x: Range, y: Range, z: Range, tone: float = 1.0, colour: Colour | None = None) -> None:
        """Add a box over three intervals; `tone` darkens or lightens the base colour."""
        self.boxes.append((x[0], y[0], z[0], x[1], y[1], z[1]))
        self.box_colours.append(self._tint(tone, colour))

    def cylinder(
        self, x: float, y: float, radius: float, z: Range, tone: float = 1.0, colour: Colour | None = None
    ) -> None:
        """Add an upright cylinder about (x, y) over the interval `z`."""
        self.cylinders.append((x, y, radius, z[0], z[1]))
        self.cylinder_colours.append(self._tint(tone, colour))

    def legs(self, top: float, thickness: float, inset: float = 0.0, tone: float = 0.75) -> None:
        """Four square legs at the corners of the footprint, from the floor to `top`."""
        x, y = self.width / 2 - inset, self.depth / 2 - inset
        for sx in (-1, 1):
            for sy in (-1, 1):
                across = (sx * x, sx * (x - thickness))
                along = (sy * y, sy * (y - thickness))
                self.box(_sorted(across), _sorted(along), (0, top), tone)

    def _tint(self, tone: float, colour: Colour | None) -> tuple[float, ...]:
        return tuple(min(255.0, part * tone) for part in (self.colour if colour is None else colour))


@dataclass(frozen=True)
class Variant:
    """A size word and the sizes that earn it."""

    word: str
    width: Range
    depth: Range | None
    """None: as deep as it is wide (what is round)."""
    height: Range


@dataclass(frozen=True)
class FurnitureClass:
    """One class: its words, its colour, its sizes, and how to fill a piece with parts."""

    name: str
    plural: str
    colour: Colour
    variants: tuple[Variant, ...]
    parts: Callable[[Piece, np.random.Generator], None]


def build(name: str, rng: np.random.Generator, word: str | None = None) -> Piece:
    """A random piece of the class `name`; of the variant called `word` if given."""
    kind = CLASSES[name]
    variants = [v for v in kind.variants if word is None or v.word == word]
    variant = variants[int(rng.integers(len(variants)))]
    colour = np.clip(np.asarray(kind.colour) + rng.normal(0, COLOUR_JITTER, 3), 0, 255)
    width = float(rng.uniform(*variant.width))
    depth = float(rng.uniform(*variant.depth)) if variant.depth else width
    height = float(rng.uniform(*variant.height))
    piece = Piece(name, variant.word, width, depth, height, tuple(colour.tolist()))
    kind.parts(piece, rng)
    return piece


def _sorted(pair: Range) -> Range:
    return (pair[0], pair[1]) if pair[0] < pair[1] else (pair[1], pair[0])


# --- what each class is built of; W D H are the piece's size, +y its front --------------------------


def _bed(p: Piece, rng: np.random.Generator) -> None:
    w, d = p.width / 2, p.depth / 2
    p.box((-w, w), (-d, -d + 0.08), (0, p.height), 0.6)  # headboard
    p.box((-w, w), (-d + 0.08, d), (0.12, 0.3), 0.55)
    p.box((-w + 0.03, w - 0.03), (-d + 0.08, d - 0.03), (0.3, 0.5))
    p.legs(0.12, 0.08, 0.03, 0.4)
    pillows = 2 if p.width > 1.3 else 1
    for i in range(pillows):
        left = -w + 0.1 + i * p.width / pillows
        p.box((left, left + p.width / pillows - 0.2), (-d + 0.14, -d + 0.5), (0.5, 0.6), colour=WHITE)


def _wardrobe(p: Piece, rng: np.random.Generator) -> None:
    w, d = p.width / 2, p.depth / 2
    p.box((-w, w), (-d, d - 0.03), (0, p.height))
    doors = max(2, round(p.width / 0.6))
    for i in range(doors):
        left = -w + i * p.width / doors
        right = left + p.width / doors
        p.box((left + 0.015, right - 0.015), (d - 0.03, d - 0.01), (0.08, p.height - 0.04), 1.15)
        handle = right - 0.08 if i % 2 == 0 else left + 0.05
        p.box((handle, handle + 0.03), (d - 0.01, d), (0.9, 1.15), colour=METAL)


def _nightstand(p: Piece, rng: np.random.Generator) -> None:
    w, d, h = p.width / 2, p.depth / 2, p.height
    p.box((-w, w), (-d, d - 0.02), (0.1, h))
    p.legs(0.1, 0.05)
    for low in (0.14, 0.14 + (h - 0.14) / 2):
        p.box((-w + 0.03, w - 0.03), (d - 0.02, d), (low, low + (h - 0.2) / 2), 1.2)


def _desk(p: Piece, rng: np.random.Generator) -> None:
    w, d, h = p.width / 2, p.depth / 2, p.height
    p.box((-w, w), (-d, d), (h - 0.04, h))
    p.box((-w, -w + 0.04), (-d, d), (0, h - 0.04), 0.8)
    p.box((w - 0.4, w), (-d, d - 0.05), (0.05, h - 0.04), 0.85)  # drawers
    p.box((-w + 0.04, w - 0.4), (-d, -d + 0.03), (0.3, h - 0.04), 0.75)  # back panel
    if rng.random() < 0.7:
        p.box((-0.3, 0.3), (-d + 0.12, -d + 0.16), (h + 0.1, h + 0.46), colour=DARK)  # screen
        p.box((-0.08, 0.08), (-d + 0.1, -d + 0.22), (h, h + 0.1), colour=DARK)


def _chair(p: Piece, rng: np.random.Generator) -> None:
    w, d = p.width / 2, p.depth / 2
    p.box((-w, w), (-d, d), (0.42, 0.47))
    p.box((-w, w), (-d, -d + 0.04), (0.55, p.height))
    for side in (-w, w - 0.04):
        p.box((side, side + 0.04), (-d, -d + 0.04), (0.47, 0.55), 0.75)
    p.legs(0.42, 0.045)


def _shelf(p: Piece, rng: np.random.Generator) -> None:
    w, d, h = p.width / 2, p.depth / 2, p.height
    p.box((-w, w), (-d, -d + 0.02), (0, h), 0.7)
    for side in (-w, w - 0.03):
        p.box((side, side + 0.03), (-d, d), (0, h))
    boards = max(2, round(h / 0.38))
    for i in range(boards + 1):
        level = i * (h - 0.03) / boards
        p.box((-w + 0.03, w - 0.03), (-d + 0.02, d), (level, level + 0.03))
        if i < boards and rng.random() < 0.8:
            start = float(rng.uniform(-w + 0.04, -0.1 * w))
            end = float(rng.uniform(0.1 * w, w - 0.04))
            top = level + 0.03 + float(rng.uniform(0.18, 0.26))
            colour = BOOKS[int(rng.integers(len(BOOKS)))]
            p.box((start, end), (-d + 0.02, d - 0.05), (level + 0.03, top), colour=colour)


def _sofa(p: Piece, rng: np.random.Generator) -> None:
    w, d = p.width / 2, p.depth / 2
    arm = 0.16
    p.box((-w, w), (-d, -d + 0.2), (0.08, p.height), 0.9)
    for side in (-w, w - arm):
        p.box((side, side + arm), (-d + 0.2, d), (0.08, 0.6), 0.85)
    p.box((-w + arm, w - arm), (-d + 0.2, d), (0.08, 0.3), 0.75)
    cushions = max(1, round((p.width - 2 * arm) / 0.7))
    size = (p.width - 2 * arm) / cushions
    for i in range(cushions):
        left = -w + arm + i * size
        p.box((left + 0.01, left + size - 0.01), (-d + 0.2, d - 0.02), (0.3, 0.45), 1.1)
    p.legs(0.08, 0.06, 0.04, 0.4)


def _table(p: Piece, rng: np.random.Generator) -> None:
    if p.word == "round":
        radius = p.width / 2
        p.cylinder(0, 0, radius, (p.height - 0.04, p.height))
        p.cylinder(0, 0, 0.05, (0.04, p.height - 0.04), 0.75)
        p.cylinder(0, 0, 0.3, (0, 0.04), 0.7)
        return
    w, d = p.width / 2, p.depth / 2
    p.box((-w, w), (-d, d), (p.height - 0.045, p.height))
    p.legs(p.height - 0.045, 0.07, 0.03)


def _television(p: Piece, rng: np.random.Generator) -> None:
    w, d, h = p.width / 2, p.depth / 2, p.height
    p.box((-w, w), (-d, d), (0.08, 0.45), colour=WALNUT)  # the stand it belongs to
    p.legs(0.08, 0.06, 0.02)
    p.box((-0.15, 0.15), (-0.1, 0.1), (0.45, 0.52))
    p.box((-w * 0.85, w * 0.85), (-0.03, 0.02), (0.52, h))
    p.box((-w * 0.85 + 0.03, w * 0.85 - 0.03), (0.02, 0.03), (0.55, h - 0.03), colour=(70, 96, 130))


def _lamp(p: Piece, rng: np.random.Generator) -> None:
    radius, h = p.width / 2, p.height
    p.cylinder(0, 0, 0.7 * radius, (0, 0.03), colour=DARK)
    p.cylinder(0, 0, 0.02, (0.03, h - 0.3), colour=METAL)
    p.cylinder(0, 0, radius, (h - 0.32, h))


def _plant(p: Piece, rng: np.random.Generator) -> None:
    radius, h = p.width / 2, p.height
    pot = 0.3 * h
    p.cylinder(0, 0, 0.5 * radius, (0, pot), colour=TERRACOTTA)
    p.cylinder(0, 0, 0.42 * radius, (pot, pot + 0.015), colour=SOIL)
    p.cylinder(0, 0, 0.03, (pot, pot + 0.2 * h), colour=SOIL)
    for share, low, high, tone in ((0.75, 0.4, 0.58, 0.85), (1.0, 0.58, 0.8, 1.0), (0.6, 0.8, 1.0, 1.15)):
        p.cylinder(0, 0, share * radius, (low * h, high * h), tone)


def _fridge(p: Piece, rng: np.random.Generator) -> None:
    w, d, h = p.width / 2, p.depth / 2, p.height
    p.box((-w, w), (-d, d - 0.05), (0.03, h), 0.9)
    split = 0.62 * h
    for low, high in ((0.05, split), (split + 0.02, h)):
        p.box((-w, w), (d - 0.05, d - 0.02), (low, high))
    for low, high in ((split - 0.45, split - 0.05), (split + 0.07, h - 0.15)):
        p.box((w - 0.1, w - 0.07), (d - 0.02, d), (low, max(high, low + 0.1)), colour=DARK)


def _stove(p: Piece, rng: np.random.Generator) -> None:
    w, d, h = p.width / 2, p.depth / 2, 0.9
    p.box((-w, w), (-d, d - 0.03), (0, h))
    p.box((-w + 0.05, w - 0.05), (d - 0.03, d - 0.02), (0.2, 0.65), 0.6)
    p.box((-w + 0.05, w - 0.05), (d - 0.02, d), (0.7, 0.73), colour=METAL)
    for x in (-w / 2, w / 2):
        for y in (-d / 2, d / 2):
            p.cylinder(x, y, 0.09, (h, h + 0.02), 0.5)
    p.box((-w, w), (-d, -d + 0.3), (1.55, 1.65), colour=METAL)  # hood
    p.box((-0.13, 0.13), (-d, -d + 0.22), (1.65, p.height), colour=METAL)


def _sink(p: Piece, rng: np.random.Generator) -> None:
    w, d, h = p.width / 2, p.depth / 2, p.height
    p.box((-w, w), (-d, d), (0.05, h - 0.14), 0.8)
    rim = 0.1
    p.box((-w, w), (-d, -d + rim), (h - 0.14, h))
    p.box((-w, w), (d - rim, d), (h - 0.14, h))
    for side in (-w, w - rim):
        p.box((side, side + rim), (-d + rim, d - rim), (h - 0.14, h))
    p.cylinder(0, -d + 0.05, 0.018, (h, h + 0.25), colour=METAL)
    p.box((-0.015, 0.015), (-d + 0.05, -d + 0.22), (h + 0.22, h + 0.25), colour=METAL)
    if p.word == "narrow":
        p.box((-w + 0.04, w - 0.04), (-d, -d + 0.02), (h + 0.4, h + 1.0), colour=GLASS)  # mirror


def _toilet(p: Piece, rng: np.random.Generator) -> None:
    w, d = p.width / 2, p.depth / 2
    p.box((-w, w), (-d, -d + 0.18), (0.38, p.height), 0.95)
    p.box((-w * 0.6, w * 0.6), (-d, 0.05), (0, 0.38), 0.85)
    p.cylinder(0, d - w, w, (0.3, 0.43))
    p.cylinder(0, d - w, w * 0.6, (0, 0.3), 0.85)
    p.box((-w, w), (-d + 0.18, d - w), (0.3, 0.43))


def _bathtub(p: Piece, rng: np.random.Generator) -> None:
    w, d, h = p.width / 2, p.depth / 2, p.height
    wall = 0.08
    p.box((-w, w), (-d, d), (0, 0.15), 0.9)
    p.box((-w, w), (-d, -d + wall), (0.15, h))
    p.box((-w, w), (d - wall, d), (0.15, h))
    for side in (-w, w - wall):
        p.box((side, side + wall), (-d + wall, d - wall), (0.15, h))
    p.cylinder(-w + 0.04, 0, 0.02, (h, h + 0.2), colour=METAL)


def _cabinet(p: Piece, rng: np.random.Generator) -> None:
    w, d, h = p.width / 2, p.depth / 2, p.height
    p.box((-w, w), (-d, d - 0.03), (0.08, h - 0.04))
    p.box((-w, w), (-d, d), (h - 0.04, h), 0.7)  # top
    p.box((-w + 0.03, w - 0.03), (-d, d - 0.08), (0, 0.08), 0.4)
    doors = max(1, round(p.width / 0.5))
    for i in range(doors):
        left = -w + i * p.width / doors
        p.box((left + 0.015, left + p.width / doors - 0.015), (d - 0.03, d - 0.015), (0.1, h - 0.06), 1.15)


def _stool(p: Piece, rng: np.random.Generator) -> None:
    radius, h = p.width / 2, p.height
    p.cylinder(0, 0, radius, (h - 0.06, h))
    p.cylinder(0, 0, 0.03, (0.03, h - 0.06), colour=METAL)
    p.cylinder(0, 0, 0.85 * radius, (0, 0.03), colour=METAL)


def _piano(p: Piece, rng: np.random.Generator) -> None:
    w, d, h = p.width / 2, p.depth / 2, p.height
    p.box((-w, w), (-d, 0), (0, h))
    p.box((-w, w), (0, d), (0.6, 0.72), 0.9)
    p.box((-w + 0.08, w - 0.08), (0.06, d - 0.02), (0.72, 0.74), colour=WHITE)  # keys
    for side in (-w, w - 0.08):
        p.box((side, side + 0.08), (d - 0.1, d), (0, 0.6), 0.8)


def _armchair(p: Piece, rng: np.random.Generator) -> None:
    _sofa(p, rng)


def _classes() -> dict[str, FurnitureClass]:
    v = Variant
    table = (
        FurnitureClass("bed", "beds", (96, 128, 190),
                       (v("wide", (1.5, 1.9), (2.0, 2.15), (0.85, 1.15)),
                        v("narrow", (0.85, 1.05), (1.95, 2.1), (0.75, 1.0))), _bed),
        FurnitureClass("wardrobe", "wardrobes", (124, 82, 50),
                       (v("wide", (1.6, 2.3), (0.55, 0.65), (1.95, 2.2)),
                        v("narrow", (0.8, 1.1), (0.5, 0.6), (1.8, 2.1))), _wardrobe),
        FurnitureClass("nightstand", "nightstands", (206, 146, 70),
                       (v("small", (0.38, 0.5), (0.35, 0.45), (0.45, 0.6)),), _nightstand),
        FurnitureClass("desk", "desks", (212, 186, 140),
                       (v("long", (1.5, 1.9), (0.65, 0.8), (0.72, 0.77)),
                        v("small", (0.95, 1.2), (0.5, 0.6), (0.72, 0.77))), _desk),
        FurnitureClass("chair", "chairs", (206, 88, 46),
                       (v("", (0.42, 0.48), (0.42, 0.5), (0.85, 1.02)),), _chair),
        FurnitureClass("shelf", "shelves", (150, 108, 84),
                       (v("tall", (0.8, 1.3), (0.28, 0.36), (1.75, 2.15)),
                        v("low", (0.9, 1.5), (0.28, 0.38), (0.7, 0.95))), _shelf),
        FurnitureClass("sofa", "sofas", (54, 124, 126),
                       (v("long", (2.1, 2.6), (0.85, 0.98), (0.75, 0.88)),
                        v("small", (1.4, 1.7), (0.8, 0.92), (0.72, 0.85))), _sofa),
        FurnitureClass("armchair", "armchairs", (212, 164, 52),
                       (v("", (0.8, 0.95), (0.8, 0.92), (0.75, 0.9)),), _armchair),
        FurnitureClass("table", "tables", (164, 112, 58),
                       (v("long", (1.7, 2.4), (0.85, 1.0), (0.72, 0.78)),
                        v("small", (0.8, 1.05), (0.7, 0.85), (0.7, 0.76)),
                        v("round", (1.0, 1.3), None, (0.72, 0.78)),
                        v("low", (0.9, 1.2), (0.5, 0.65), (0.38, 0.46))), _table),
        FurnitureClass("television", "televisions", (36, 36, 42),
                       (v("wide", (1.4, 1.8), (0.38, 0.45), (1.2, 1.4)),
                        v("small", (0.85, 1.05), (0.36, 0.42), (0.95, 1.1))), _television),
        FurnitureClass("lamp", "lamps", (250, 222, 140),
                       (v("tall", (0.38, 0.5), None, (1.5, 1.8)),
                        v("low", (0.36, 0.48), None, (0.9, 1.15))), _lamp),
        FurnitureClass("plant", "plants", (62, 134, 62),
                       (v("tall", (0.6, 0.8), None, (1.3, 1.8)),
                        v("small", (0.4, 0.55), None, (0.6, 0.85))), _plant),
        FurnitureClass("fridge", "fridges", (188, 202, 216),
                       (v("tall", (0.62, 0.75), (0.62, 0.7), (1.75, 2.0)),
                        v("low", (0.55, 0.62), (0.55, 0.62), (0.95, 1.15))), _fridge),
        FurnitureClass("stove", "stoves", (82, 84, 92),
                       (v("", (0.58, 0.65), (0.58, 0.64), (2.2, 2.35)),), _stove),
        FurnitureClass("sink", "sinks", (140, 190, 204),
                       (v("wide", (0.95, 1.25), (0.58, 0.64), (0.86, 0.92)),
                        v("narrow", (0.55, 0.7), (0.45, 0.55), (0.82, 0.9))), _sink),
        FurnitureClass("toilet", "toilets", (240, 240, 238),
                       (v("", (0.38, 0.44), (0.66, 0.74), (0.78, 0.88)),), _toilet),
        FurnitureClass("bathtub", "bathtubs", (226, 196, 206),
                       (v("", (1.55, 1.8), (0.7, 0.82), (0.52, 0.6)),), _bathtub),
        FurnitureClass("cabinet", "cabinets", (148, 166, 112),
                       (v("long", (1.5, 2.2), (0.42, 0.6), (0.85, 0.92)),
                        v("small", (0.6, 0.9), (0.42, 0.6), (0.85, 0.92))), _cabinet),
        FurnitureClass("stool", "stools", (140, 84, 150),
                       (v("tall", (0.36, 0.42), None, (0.68, 0.78)),
                        v("low", (0.34, 0.42), None, (0.42, 0.48))), _stool),
        FurnitureClass("piano", "pianos", (84, 30, 30),
                       (v("", (1.4, 1.55), (0.6, 0.68), (1.1, 1.28)),), _piano),
    )  # fmt: skip
    return {kind.name: kind for kind in table}


CLASSES: dict[str, FurnitureClass] = _classes()
"""Every class by its name."""
