"""Rows that cannot be trained on: those of damaged row groups, and those that a run was told to leave out.

They keep their places in the order, so that no other row moves; there they are not valid and hold the
tensors of another row of the batch, because zeros would turn into NaN further on (intrinsics of 0).

A row group that cannot be read is replaced where it was to be read, by a table of the same columns with
zeros, the rows' places for ids, and the column `PROBLEM`, which says what is wrong. It travels like any
other table, through threads as through Ray.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from plinth.data.plan import Window
from plinth.errors import DataError

log = logging.getLogger(__name__)

SAMPLE_ID = "sample_id"
"""The column by which every row of every data set is known."""
PROBLEM = "plinth_problem"
"""Column of what a reader hands over where bad row groups are skipped: null for good rows."""
LEFT_OUT = "left out by the run"


@dataclass(frozen=True)
class Skips:
    """What a run leaves out, whatever its world size."""

    sample_ids: frozenset[str] = frozenset()


NO_SKIPS = Skips()


def place_id(uri: str, shard: str, row_group: int, row: int) -> str:
    """Stands for the id of a row that could not be read; the row counts from the row group's start."""
    return f"{uri}#{shard}/{row_group}/{row}"


def with_no_problem(table: pa.Table) -> pa.Table:
    """A good table, in the form that bad ones have."""
    return table.append_column(PROBLEM, pa.nulls(len(table), pa.string()))


def stand_in(schema: pa.Schema, ids: Sequence[str], problem: str) -> pa.Table:
    """A table in place of one that cannot be read: zeros in all columns of `schema` but the id."""
    columns = [
        pa.array(ids, pa.string()) if f.name == SAMPLE_ID else pa.nulls(len(ids), f.type) for f in schema
    ]
    table = pa.Table.from_arrays(columns, schema=schema)
    return table.append_column(PROBLEM, pa.array([problem] * len(ids), pa.string()))


def problems(tables: Iterable[pa.Table], ids: Sequence[str], skips: Skips) -> list[str]:
    """Why each row of these tables cannot be trained on, empty where it can; no list at all if all can."""
    found: list[str] = []
    for table in tables:
        if PROBLEM in table.schema.names and table.column(PROBLEM).null_count < len(table):
            found.extend(text or "" for text in table.column(PROBLEM).to_pylist())
        else:
            found.extend([""] * len(table))
    for row, sample_id in enumerate(ids):
        if sample_id in skips.sample_ids:
            found[row] = found[row] or LEFT_OUT
    return found if any(found) else []


class Budget:
    """Counts the row groups that a rank has skipped."""

    def __init__(self, max_bad_row_groups: int) -> None:
        self._most = max_bad_row_groups
        self._seen: set[tuple[int, int]] = set()

    def spend(self, window: Window, problems: Sequence[str]) -> None:
        """Take note of the row groups of a window that could not be read.

        Args:
            problems: of each row of the window's pieces, in their order.

        Raises:
            DataError: there were more than the job allows.
        """
        ends = np.cumsum(window.pieces[:, 3] - window.pieces[:, 2])
        begin = 0
        for (source, row_group), end in zip(window.pieces[:, :2].tolist(), ends.tolist(), strict=True):
            problem = next((text for text in problems[begin:end] if text not in ("", LEFT_OUT)), "")
            if problem:
                self.spend_row(source, row_group, problem)
            begin = end

    def spend_row(self, source: int, row_group: int, problem: str) -> None:
        """Take note of a row group of which at least one row cannot be read.

        Raises:
            DataError: there were more than the job allows.
        """
        if (source, row_group) in self._seen:
            return
        self._seen.add((source, row_group))
        if len(self._seen) > self._most:
            raise DataError(
                f"More than {self._most} row groups cannot be read. The last one: {problem}",
                "Run `poma shards verify`, or raise data.max_bad_row_groups.",
            )
        log.warning("skipped (%d of at most %d): %s", len(self._seen), self._most, problem)
