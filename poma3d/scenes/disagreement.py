"""Do the views of a scan agree with each other?

A pixel of one view is a point of the world, which the camera of another view sees at some depth z; where
both see the same surface, z is the depth that the other view stored there. The disagreement of a scan is the
median of |z - stored| over sampled pixels of some pairs of neighbouring views, both ways, and then over the
pairs: about the sensor's noise for a scan that is right, decimetres for one whose poses, camera or unit are
not what the reader takes them for.

All pixels on which both views have depth count. What one view hides from the other differs by much, but in
neighbouring views it is less than half of them, so the median passes it over; leaving out large differences
would leave out the mistakes.

Where the disagreement is too large, single mistakes are undone one at a time on the same pixels, and the one
that makes the views agree is named (`poma3d.scenes.mistakes`).

Legend: N sampled pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from poma3d.scenes.frame import Frame, SceneFrames
from poma3d.scenes.mistakes import Look, Mistake, mistakes
from poma3d.scenes.orientation import QUARTER

PAIRS, APART = 12, 4
"""At most so many pairs of views are measured, spread over the scan; and one in so many frames."""
COLUMNS = 32
"""Every n-th pixel is sampled, so that a row has about this many."""
MOVED_M, MOVED_DEG = 0.15, 8.0
"""A view makes a pair with the first one after it that was taken this far away, or turned by this much:
enough for every mistake to show, and most of what is seen is still the same."""
FAR_M, FAR_DEG = 1.5, 45.0
"""Views farther apart, or turned by more, are no neighbours: most of what one sees the other does not."""
HARDLY_MOVED = 0.25
"""Share of these by which a camera must have moved in all."""
SHARED_PIXELS, SHARED = 30, 0.1
"""Sampled pixels of a view on which the other has depth, in number and as a share: with fewer, the two say
nothing of each other."""
CLEARLY = 1.5
"""The mistake that is named makes the disagreement smaller by this factor."""
SURE = 0.02
"""Views that shared nothing must agree to this share of their depth once the mistake is undone."""
SHARE = 0.03
"""Views may agree in mm where all depth is too small: above this share of it a mistake is looked for, too."""
KEPT = 0.5
"""Share of the overlaps that must be left once it is undone."""
EVIDENCE = 4
"""Overlaps that there must be once a mistake is undone in views that shared nothing: one pair may agree by
chance."""
MM = 1000.0
MIN_FRAMES = 2
NO_FRAME = "no usable frame with a camera"
ONE_FRAME = "one frame only"
NO_NEIGHBOURS = "views that follow each other are far apart"
HARDLY_MOVES = "the camera hardly moves"
NO_OVERLAP = "neighbouring views share too little"
UNMOVED = (
    "the poses stay where they are while the views change, so they do not tell where the camera was: export "
    "the poses again"
)
UNEXPLAINED = "no single mistake of poses, axes, unit, picture size, ray length or focal length explains it"


Pair = tuple[Look, Look]


@dataclass(frozen=True)
class Comparison:
    """How the views of some pairs agree."""

    median_mm: float
    """Median of |z - stored|; NaN where no pair shares enough."""
    relative: float
    """The same of |z - stored| as a share of the larger of the two, which no unit changes; NaN likewise."""
    shared: int
    """How often one view of a pair shares enough with the other, at most twice the number of pairs."""


@dataclass(frozen=True)
class Disagreement:
    """What was found about one scan."""

    median_mm: float | None = None
    """None where it was not measured."""
    not_measured: str = ""
    """Why not."""
    warning: str = ""
    """What is wrong and the remedy, in words that all scans with it share; "" where views agree."""


class Pairs:
    """Picks pairs of views while a scan's frames are decoded, in their order; keeps two depth maps a pair."""

    def __init__(self, scene: SceneFrames, candidates: int) -> None:
        """Nothing picked yet.

        Args:
            scene: whose frames will come.
            candidates: about how many will come.
        """
        self.frames = 0
        """Frames that came and have a camera."""
        self._scale = scene.depth_scale
        self._from_world = np.linalg.inv(_square(np.eye(3) if scene.world is None else scene.world))
        self._spacing = max(APART, candidates // PAIRS)
        self._found: list[tuple[Frame, Frame]] = []
        self._far: list[tuple[Frame, Frame]] = []
        self._still: list[tuple[Frame, Frame]] = []
        self._start: Frame | None = None
        self._last: Frame | None = None

    def add(self, frame: Frame) -> None:
        """One more frame, checked (`poma3d.scenes.checks`) and on its source's grid."""
        if frame.points is not None:
            return
        if self._start is not None:
            pair = (self._start, frame)
            apart = moved(self._start.pose, frame.pose, MOVED_M, MOVED_DEG)
            if moved(self._start.pose, frame.pose, FAR_M, FAR_DEG) > 1:
                self._far.append(pair)
                self._start = None
            elif apart >= 1:
                self._found.append(pair)
                self._start = None
            elif apart < HARDLY_MOVED and self.frames >= (len(self._still) + 1) * self._spacing:
                self._still.append(pair)
        del self._far[PAIRS:], self._still[PAIRS:]
        due = len(self._found) * self._spacing
        if self._start is None and self.frames >= due and len(self._found) < PAIRS:
            self._start = frame
        self._last = frame
        self.frames += 1

    @property
    def why_none(self) -> str:
        """Why there is no pair."""
        if self.frames < MIN_FRAMES:
            return ONE_FRAME if self.frames else NO_FRAME
        return NO_NEIGHBOURS if self._far else HARDLY_MOVES

    def all(self) -> list[Pair]:
        """The pairs; of a camera that hardly moved the one of its first and last view."""
        found = self._found
        if not found and self._start is not None and self._last is not None:
            apart = moved(self._start.pose, self._last.pose, MOVED_M, MOVED_DEG)
            found = [(self._start, self._last)] if apart >= HARDLY_MOVED else []
        return self._looks(found)

    def far(self) -> list[Pair]:
        """Views that follow each other and are no neighbours by their poses, which may be wrong."""
        return self._looks(self._far)

    def still(self) -> list[Pair]:
        """Views between which the camera hardly moved by their poses, which may be wrong."""
        return self._looks(self._still)

    def _looks(self, pairs: Sequence[tuple[Frame, Frame]]) -> list[Pair]:
        return [(self._stored(first), self._stored(second)) for first, second in pairs]

    def _stored(self, frame: Frame) -> Look:
        """The view before its reader turned picture and world; its depth is not copied."""
        depth, camera, axes = frame.depth, frame.intrinsics, _square(frame.pose)
        for _ in range(frame.turns % 4):
            fx, fy, cx, cy = camera
            camera = np.array([fy, fx, len(depth) - 1 - cy, cx])
            axes = axes @ _square(QUARTER)
            depth = np.rot90(depth, -1)
        return Look(depth, self._scale, camera, self._from_world @ axes)


def examine(pairs: Pairs, max_mm: float) -> Disagreement:
    """The disagreement of a scan, or why it has none; a warning where it is larger than `max_mm`.

    Views that share nothing as they stand, and agree once a mistake is undone, are a warning, too; so are
    views that change while their poses do not.
    """
    found = pairs.all()
    if not found:
        return _without_neighbours(pairs, max_mm)
    now = compare(found)
    agree = bool(now.shared) and now.median_mm <= max_mm
    if agree and now.relative <= SHARE:
        return Disagreement(now.median_mm)
    mistake = diagnose(found, now, max_mm)
    if agree and mistake is None:
        return Disagreement(now.median_mm)
    if not now.shared and mistake is None:
        return Disagreement(not_measured=NO_OVERLAP)
    cause = mistake.what if mistake is not None else UNEXPLAINED
    if not now.shared:
        return Disagreement(not_measured=NO_OVERLAP, warning=f"views share nothing: {cause}")
    return Disagreement(now.median_mm, warning=f"views disagree: {cause}")


def _without_neighbours(pairs: Pairs, max_mm: float) -> Disagreement:
    """What can be said where no two views are neighbours by their poses."""
    why, far, still = pairs.why_none, pairs.far(), pairs.still()
    if far:
        mistake = diagnose(far, Comparison(np.nan, np.nan, 0), max_mm)
        return Disagreement(
            not_measured=why, warning=f"views share nothing: {mistake.what}" if mistake else ""
        )
    if still and (now := compare(still)).shared and now.median_mm > max_mm:
        return Disagreement(now.median_mm, warning=f"views disagree: {UNMOVED}")
    return Disagreement(not_measured=why)


def diagnose(pairs: Sequence[Pair], now: Comparison, max_mm: float) -> Mistake | None:
    """The mistake that makes the views agree; None when no single one does.

    Args:
        pairs: of one scan.
        now: how they agree as they stand.
        max_mm: the largest disagreement of views that agree.
    """
    possible = [mistake for mistake in mistakes(pairs[0][0]) if now.shared or mistake.parts]
    tried = [(compare(pairs, mistake.undo), mistake) for mistake in possible]
    needed = KEPT * now.shared if now.shared else max(KEPT * 2 * len(pairs), EVIDENCE)
    open_to = [(found.relative, i) for i, (found, _) in enumerate(tried) if found.shared >= needed]
    if not open_to:
        return None
    _, place = min(open_to)
    best, mistake = tried[place]
    bound = now.relative / CLEARLY if now.shared else SURE
    return mistake if best.relative <= bound and best.median_mm <= max_mm else None


def compare(pairs: Sequence[Pair], undo: Callable[[Look], Look] = lambda look: look) -> Comparison:
    """How the views of pairs agree, after a mistake was undone in each."""
    apart, relative = [], []
    for pair in pairs:
        first, second = (undo(look) for look in pair)
        for one, other in ((first, second), (second, first)):
            z, stored, sampled = seen_by(one, other)
            if len(z) < max(SHARED_PIXELS, SHARED * sampled):
                continue
            difference = np.abs(z - stored)
            apart.append(np.median(difference))
            relative.append(np.median(difference / np.maximum(z, stored)))
    if not apart:
        return Comparison(np.nan, np.nan, 0)
    return Comparison(float(np.median(apart)) * MM, float(np.median(relative)), len(apart))


def seen_by(one: Look, other: Look) -> tuple[np.ndarray, np.ndarray, int]:
    """Sampled pixels of one view in another: their depth z there, and what the other stored, metres [N] each.

    Returns:
        z, stored, and how many pixels were sampled that have depth; N of them lie on pixels of `other` with
        depth, in front of it.
    """
    height, width = one.depth.shape
    step = max(1, width // COLUMNS)
    rows, columns = np.arange(step // 2, height, step), np.arange(step // 2, width, step)
    v, u = np.repeat(rows, len(columns)), np.tile(columns, len(rows))
    depth = one.metres(v, u)
    known = depth > 0
    u, v, depth = u[known], v[known], depth[known]
    fx, fy, cx, cy = one.intrinsics
    local = np.stack([depth * (u - cx) / fx, depth * (v - cy) / fy, depth])
    motion = np.linalg.inv(other.pose) @ one.pose
    x, y, z = motion[:3, :3] @ local + motion[:3, 3:]
    fx, fy, cx, cy = other.intrinsics
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        across, down = np.rint(fx * x / z + cx), np.rint(fy * y / z + cy)
    height, width = other.depth.shape
    inside = (z > 0) & (across >= 0) & (across < width) & (down >= 0) & (down < height)
    z = z[inside]
    stored = other.metres(down[inside].astype(np.intp), across[inside].astype(np.intp))
    return z[stored > 0], stored[stored > 0], len(depth)


def moved(one: np.ndarray, other: np.ndarray, by_m: float, by_deg: float) -> float:
    """How far a camera moved or turned between two poses [3, 4]: 1 at `by_m` or `by_deg`, the larger."""
    cosine = np.clip((np.sum(one[:, :3] * other[:, :3]) - 1) / 2, -1, 1)
    distance = np.linalg.norm(one[:, 3] - other[:, 3])
    return max(float(distance) / by_m, float(np.rad2deg(np.arccos(cosine))) / by_deg)


def _square(matrix: np.ndarray) -> np.ndarray:
    """float64 [4, 4] of a rotation [3, 3] or a rigid motion [3 or 4, 4]."""
    square = np.eye(4)
    square[: matrix.shape[0], : matrix.shape[1]] = matrix
    return square
