import threading
import time
from collections.abc import Iterator
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from plinth.data.stream_threads import Ahead, read_pieces, read_windows, runs

PIECES = st.lists(st.tuples(st.integers(0, 2), st.integers(0, 9)), min_size=1, max_size=12)


def pieces_of(pairs: list[tuple[int, int]]) -> np.ndarray:
    """Pieces [n, 4] of these (source, row group)."""
    return np.array([(source, group, 0, 1) for source, group in pairs], np.int64)


@settings(deadline=None)
@given(pairs=PIECES)
def test_runs_are_of_neighbours_and_lose_nothing(pairs: list[tuple[int, int]]) -> None:
    found = runs(pieces_of(pairs))
    assert sorted(number for run in found for number in run) == list(range(len(pairs)))
    for run in found:
        assert len({pairs[number][0] for number in run}) == 1
        groups = [pairs[number][1] for number in run]
        assert all(b - a in (0, 1) for a, b in pairwise(groups))
    starts = {pairs[run[0]] for run in found}
    assert not any((source, group - 1) in pairs for source, group in starts), "no run could be longer"


@settings(deadline=None)
@given(pairs=PIECES, threads=st.integers(1, 3))
def test_tables_come_in_the_order_of_the_pieces(pairs: list[tuple[int, int]], threads: int) -> None:
    requests = []

    def read(pieces: np.ndarray) -> list[pa.Table]:
        requests.append(len(pieces))
        return [pa.table({"at": [tuple(piece[:2])]}) for piece in pieces.tolist()]

    tables = read_pieces(pieces_of(pairs), read, threads)
    assert [tuple(table["at"][0].as_py()) for table in tables] == pairs
    assert len(requests) == len(runs(pieces_of(pairs)))


class Store:
    """Answers after a while; remembers how many requests were under way at once, and for which windows."""

    def __init__(self, delay_s: float) -> None:
        self._delay_s = delay_s
        self._lock = threading.Lock()
        self._now = 0
        self.most = 0
        self.asked = 0

    def read(self, pieces: np.ndarray) -> list[pa.Table]:
        with self._lock:
            self._now += 1
            self.asked += 1
            self.most = max(self.most, self._now)
        time.sleep(self._delay_s)
        with self._lock:
            self._now -= 1
        return [pa.table({"at": [int(piece[1])]}) for piece in pieces]


def windows(count: int) -> Iterator[Any]:
    """Windows of one piece; no two are neighbours."""
    return (SimpleNamespace(pieces=pieces_of([(0, 2 * i)])) for i in range(count))


@pytest.mark.parametrize(("delay_s", "pause_s", "grows"), [(0.03, 0.0, True), (0.0, 0.01, False)])
def test_a_slow_store_is_asked_for_more_at_once(delay_s: float, pause_s: float, grows: bool) -> None:
    store = Store(delay_s)
    ahead = Ahead(threads=1, least=2, most=8)
    furthest, got = 0, []
    for number, (_, tables) in enumerate(read_windows(windows(40), store.read, ahead)):
        got.append(tables[0]["at"][0].as_py())
        furthest = max(furthest, store.asked - number - 1)
        time.sleep(pause_s)
    assert got == list(range(0, 80, 2))
    assert store.most == (ahead.most_threads if grows else 1)
    assert furthest <= ahead.most
    if not grows:
        assert furthest <= ahead.least


def test_an_error_comes_where_its_window_would() -> None:
    def read(pieces: np.ndarray) -> list[pa.Table]:
        if pieces[0, 1] == 6:
            raise ValueError("third")
        return [pa.table({"at": [int(piece[1])]}) for piece in pieces]

    stream = read_windows(windows(9), read, Ahead(2, 4, 4))
    assert [next(stream)[1][0]["at"][0].as_py() for _ in range(3)] == [0, 2, 4]
    with pytest.raises(ValueError, match="third"):
        next(stream)
