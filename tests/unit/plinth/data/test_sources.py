"""Pieces of row groups: neighbours with one request, each bad one by its name."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from plinth.data.bad_rows import PROBLEM
from plinth.data.config import OnBadShard
from plinth.data.sources import OpenSource, PieceReader
from plinth.errors import DataError
from tests.helpers.datasets import COLUMNS, damage, make_data_set, toy_table
from tests.unit.plinth.data.test_shards import Counting


def pieces(*rows: tuple[int, int, int]) -> np.ndarray:
    """Pieces [n, 4] of source 0 from (row group, first row, end row)."""
    return np.array([(0, *row) for row in rows], np.int64)


def rows_of(tables: list[pa.Table]) -> list[list[str]]:
    """Sample ids of each table."""
    return [table.column("sample_id").to_pylist() for table in tables]


def test_neighbours_are_one_request(tmp_path: Path) -> None:
    made = make_data_set(tmp_path)
    storage = Counting(made.storage)
    reader = PieceReader([OpenSource(storage, made.manifest)], COLUMNS, OnBadShard.stop)
    ids = toy_table(0, 37).column("sample_id").to_pylist()
    groups = made.manifest.shards[0].row_group_rows
    assert groups == [4, 4, 4, 4, 4]
    run = reader.read_run(pieces((1, 0, 4), (2, 0, 2), (2, 2, 4), (3, 1, 3)))
    assert rows_of(run) == [ids[4:8], ids[8:10], ids[10:12], ids[13:15]]
    assert len(storage.ranges) == 2, "the footer and three row groups"
    storage.ranges.clear()
    run = reader.read_run(pieces((4, 0, 4), (5, 0, 4), (6, 0, 4)))
    assert rows_of(run) == [ids[16:20], ids[20:24], ids[24:28]]
    assert len(storage.ranges) == 3, "one of the first shard; footer and two row groups of the second"


@pytest.mark.parametrize("on_bad_shard", list(OnBadShard))
def test_a_bad_row_group_of_a_run_is_named_alone(tmp_path: Path, on_bad_shard: OnBadShard) -> None:
    source = make_data_set(tmp_path)
    damage(source, shard=0, row_group=2)
    reader = PieceReader([source], COLUMNS, on_bad_shard)
    run = pieces((1, 0, 4), (2, 0, 4), (3, 0, 4))
    if on_bad_shard is OnBadShard.stop:
        with pytest.raises(DataError, match="row group 2: cannot be decoded"):
            reader.read_run(run)
        return
    found = [table.column(PROBLEM).to_pylist() for table in reader.read_run(run)]
    assert found[0] == found[2] == [None] * 4
    assert all("row group 2" in text for text in found[1])
