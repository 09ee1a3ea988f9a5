"""The order of the data: a pure function of (row groups, seed, epoch, step).

    sources      row groups, each source permuted by (seed, source, pass), a pass after the other;
                 an epoch takes the next `round(weight * rows)` rows of each
    epoch        those pieces of row groups, permuted together by (seed, epoch)
    lanes        that sequence cut into `lanes` contiguous parts whose sizes differ by one at most
                 (so a row group may be split between two lanes)
    windows      each lane cut into windows of a few pieces; rows permuted inside a window by seed
    global batch for each lane in order, its next `global_batch_size / lanes` rows

A rank owns consecutive lanes, so any world size that divides the lanes sees the same global batches.
The last batch of an epoch is filled with repeats that are not `valid`: with weight 1 each row is valid
exactly once in an epoch. Nothing here is larger than a few integers per row group; windows are made
when they are needed.

One epoch of 12 row groups, 4 lanes, windows of 2, a global batch of 4 rows (one per lane):

    permuted    g7 g2 g9 | g0 g4 g11 | g5 g8 g1 | g3 g10 g6        cut into lanes
    windows     [g7][g2 g9]  [g0 g4][g11]  [g5][g8 g1]  [g3 g10][g6]      rows shuffled inside a window
    batch 0     lane 0 row 0, lane 1 row 0, lane 2 row 0, lane 3 row 0
    2 ranks     rank 0 owns lanes 0-1, rank 1 lanes 2-3: the same batch, cut elsewhere

A permutation of n things by a key is the order that sorts n random words,

    pi = argsort(w_0 ... w_(n-1)),   w_i = word i of Philox(blake2b(key)),

because raw words of a counter-based generator are promised not to change between NumPy's versions, unlike its
`permutation`, and a run must be able to resume after an upgrade.
"""

from __future__ import annotations

import hashlib
import heapq
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache

import numpy as np

from plinth.errors import DataError
from plinth.world import World

Key = str | int


@dataclass(frozen=True, order=True)
class Cursor:
    """A position in the order: the batch at `step` of `epoch`."""

    epoch: int = 0
    step: int = 0

    def to_dict(self) -> dict[str, int]:
        """For a checkpoint; `Cursor(**d)` reads it back."""
        return {"epoch": self.epoch, "step": self.step}


@dataclass(frozen=True, eq=False)
class SourceRows:
    """What the plan needs to know of a source."""

    row_group_rows: np.ndarray
    """int64 [R]: rows of each row group, over all shards in order."""
    weight: float = 1.0
    """Passes over the source in an epoch."""
    name: str = ""
    """For messages."""
    content: str = ""
    """Hash of the source's manifest, for the fingerprint."""

    @cached_property
    def rows(self) -> int:
        """Rows of the source."""
        return int(self.row_group_rows.sum())

    @cached_property
    def rows_per_epoch(self) -> int:
        """Rows that an epoch takes: the same number in every epoch."""
        return max(1, round(self.weight * self.rows))


@dataclass(frozen=True, eq=False)
class Plan:
    """The order of the data for the whole run. Build it with `make_plan`."""

    sources: tuple[SourceRows, ...]
    lanes: int
    window_row_groups: int
    global_batch_size: int
    seed: int

    @cached_property
    def samples_per_epoch(self) -> int:
        """Valid samples of an epoch."""
        return sum(source.rows_per_epoch for source in self.sources)

    @property
    def steps_per_epoch(self) -> int:
        """Global batches of an epoch, the last one filled with repeats."""
        return -(-self.samples_per_epoch // self.global_batch_size)

    @property
    def rows_per_lane(self) -> int:
        """Rows that each lane gives to a global batch."""
        return self.global_batch_size // self.lanes

    def after(self, cursor: Cursor) -> Cursor:
        """The position of the next batch."""
        if cursor.step + 1 < self.steps_per_epoch:
            return Cursor(cursor.epoch, cursor.step + 1)
        return Cursor(cursor.epoch + 1, 0)

    @cached_property
    def fingerprint(self) -> str:
        """Hash of all that the order depends on: a resumed run must find the same."""
        digest = hashlib.sha256()
        sizes = [self.lanes, self.window_row_groups, self.global_batch_size, self.seed]
        digest.update(json.dumps(sizes).encode())
        for source in self.sources:
            digest.update(json.dumps([source.content, source.weight, len(source.row_group_rows)]).encode())
            digest.update(np.ascontiguousarray(source.row_group_rows, np.dtype("<i8")).tobytes())
        return digest.hexdigest()


@dataclass(frozen=True)
class Window:
    """A few pieces of row groups of one lane, read together and mixed."""

    epoch: int
    lane: int
    first: int
    """Offset in the lane of the window's first row."""
    pieces: np.ndarray
    """int64 [p, 4]: source, row group in the source, first row, end row."""
    order: np.ndarray
    """int64 [m]: the rows of the window in the order of delivery, as offsets into its pieces laid end to
    end. The last window of an epoch repeats rows up to the end of the last batch."""
    valid: int
    """How many of `order` are not repeats."""

    @property
    def rows(self) -> int:
        """Rows of all pieces."""
        return int((self.pieces[:, 3] - self.pieces[:, 2]).sum())


@dataclass(frozen=True)
class EpochPieces:
    """The pieces of row groups of an epoch, in order. Arrays of one entry per piece, int32 because a billion
    views have 16 million pieces."""

    source: np.ndarray
    row_group: np.ndarray
    start: np.ndarray
    stop: np.ndarray
    end: np.ndarray = field(repr=False)
    """int64: offset in the epoch behind each piece, the running sum of the sizes."""


def make_plan(
    sources: Sequence[SourceRows], lanes: int, window_row_groups: int, global_batch_size: int, seed: int
) -> Plan:
    """A plan of sources that have something to read; `lanes` divides the batch (`plinth.world`).

    Raises:
        DataError: no source, an empty source or a weight that is not positive.
    """
    if not sources:
        raise DataError("There is no data source.", "List at least one under data.sources.")
    for source in sources:
        if source.rows == 0:
            raise DataError(f"The data set {source.name} has no samples.", "Build it again or leave it out.")
        if not source.weight > 0:
            raise DataError(
                f"The data set {source.name} has weight {source.weight}, expected more than 0.",
                "Leave a source out rather than giving it no weight.",
            )
    return Plan(tuple(sources), lanes, window_row_groups, global_batch_size, seed)


def permutation(n: int, *key: Key) -> np.ndarray:
    """A permutation of range(n), int64 [n], that depends on `key` alone."""
    digest = hashlib.blake2b(repr(key).encode(), digest_size=16).digest()
    generator = np.random.Philox(key=int.from_bytes(digest, "little"))
    return np.argsort(generator.random_raw(n), kind="stable")


@lru_cache(maxsize=2)
def epoch_pieces(plan: Plan, epoch: int) -> EpochPieces:
    """The pieces of `epoch` in order. The last two epochs asked for are kept."""
    parts = [part for index in range(len(plan.sources)) for part in _source_pieces(plan, index, epoch)]
    order = permutation(sum(len(part[0]) for part in parts), "epoch", plan.seed, epoch)
    source, row_group, start, stop = (np.concatenate(column)[order] for column in zip(*parts, strict=True))
    return EpochPieces(source, row_group, start, stop, np.cumsum(stop - start, dtype=np.int64))


def lane_windows(plan: Plan, epoch: int, lane: int, from_step: int = 0) -> Iterator[Window]:
    """The windows of a lane that the steps from `from_step` on need, in order."""
    pieces = epoch_pieces(plan, epoch)
    total = plan.samples_per_epoch
    begin, end = lane * total // plan.lanes, (lane + 1) * total // plan.lanes
    size = end - begin
    if size == 0:  # fewer rows than lanes: this one repeats some row of the epoch
        begin, end = lane % total, lane % total + 1
    needed = plan.steps_per_epoch * plan.rows_per_lane
    resume = min(begin + from_step * plan.rows_per_lane, end - 1)
    first_piece, resume_piece, last_piece = np.searchsorted(
        pieces.end, [begin, resume, end - 1], side="right"
    )
    # Lanes start with windows of different lengths, so that they do not all turn to the next at once.
    bounds = _WindowBounds(int(first_piece), 1 + lane % plan.window_row_groups, plan.window_row_groups)
    index = bounds.containing(int(resume_piece))
    while (start_piece := bounds.start(index)) <= last_piece:
        stop_piece = min(bounds.start(index + 1), int(last_piece) + 1)
        chosen = slice(start_piece, stop_piece)
        stops = pieces.end[chosen]
        starts = stops - (pieces.stop - pieces.start)[chosen]
        head, tail = np.maximum(begin - starts, 0), np.maximum(stops - end, 0)
        columns = (
            pieces.source[chosen].astype(np.int64),
            pieces.row_group[chosen],
            pieces.start[chosen] + head,
            pieces.stop[chosen] - tail,
        )
        first = max(int(starts[0]), begin) - begin
        rows = int((stops - starts - head - tail).sum())
        order = permutation(rows, "window", plan.seed, epoch, lane, index)
        if stop_piece > last_piece:
            order = np.resize(order, needed - first)
        yield Window(epoch, lane, first, np.stack(columns, axis=1), order, min(rows, size))
        index += 1


def rank_windows(plan: Plan, world: World, start: Cursor) -> Iterator[Window]:
    """All windows of a rank from `start` on, epoch after epoch without end, ordered by the step that
    first needs them and then by lane."""
    cursor = start
    while True:
        yield from heapq.merge(
            *(lane_windows(plan, cursor.epoch, lane, cursor.step) for lane in world.lanes(plan.lanes)),
            key=lambda window: max(window.first // plan.rows_per_lane, cursor.step),
        )
        cursor = Cursor(cursor.epoch + 1, 0)


def global_batch(plan: Plan, cursor: Cursor) -> np.ndarray:
    """The rows of a global batch, int64 [global_batch_size, 4]: source, row group, row, valid (0 or 1).

    For tools and tests: it goes through the windows of every lane.
    """
    rows = []
    skip = cursor.step * plan.rows_per_lane
    for lane in range(plan.lanes):
        taken = 0
        for window in lane_windows(plan, cursor.epoch, lane, cursor.step):
            inside = slice(max(skip + taken - window.first, 0), skip + plan.rows_per_lane - window.first)
            rows.append(window_rows(window)[inside])
            taken += len(rows[-1])
            if taken == plan.rows_per_lane:
                break
    return np.concatenate(rows)


def window_rows(window: Window) -> np.ndarray:
    """What a window delivers, int64 [m, 4]: source, row group, row, valid (0 or 1)."""
    sizes = window.pieces[:, 3] - window.pieces[:, 2]
    ends = np.cumsum(sizes)
    piece = np.searchsorted(ends, window.order, side="right")
    row = window.pieces[piece, 2] + window.order - (ends - sizes)[piece]
    valid = np.arange(len(window.order)) < window.valid
    return np.stack([window.pieces[piece, 0], window.pieces[piece, 1], row, valid], axis=1)


@dataclass(frozen=True)
class _WindowBounds:
    """Where the windows of a lane start, counted in pieces of the epoch."""

    first_piece: int
    first_length: int
    length: int

    def start(self, index: int) -> int:
        """The first piece of window `index`."""
        return self.first_piece + (self.first_length + (index - 1) * self.length if index else 0)

    def containing(self, piece: int) -> int:
        """The window that holds `piece`."""
        beyond_first = piece - self.first_piece - self.first_length
        return 0 if beyond_first < 0 else 1 + beyond_first // self.length


def _source_pieces(plan: Plan, index: int, epoch: int) -> Iterator[tuple[np.ndarray, ...]]:
    """The rows that `epoch` takes of a source, pass by pass: source, row group, first row, end row, each
    int32 [p]."""
    source = plan.sources[index]
    begin = epoch * source.rows_per_epoch
    end = begin + source.rows_per_epoch
    for number in range(begin // source.rows, (end - 1) // source.rows + 1):
        group = permutation(len(source.row_group_rows), "pass", plan.seed, index, number).astype(np.int32)
        sizes = source.row_group_rows[group].astype(np.int32)
        stops = number * source.rows + np.cumsum(sizes, dtype=np.int64)
        first = int(np.searchsorted(stops, begin, side="right"))
        last = min(int(np.searchsorted(stops, end, side="left")), len(stops) - 1)
        chosen = slice(first, last + 1)
        start, stop = np.zeros(last + 1 - first, np.int32), sizes[chosen].copy()
        start[0] = max(begin - int(stops[first] - sizes[first]), 0)
        stop[-1] -= max(int(stops[last]) - end, 0)
        kept = start < stop  # without row groups that have no rows
        yield tuple(
            column[kept] for column in (np.full(len(start), index, np.int32), group[chosen], start, stop)
        )
