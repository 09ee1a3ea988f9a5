"""Chunks of utterances as the follow-up makes them."""

from __future__ import annotations

import pytest

from poma3d.evaluate.zero_shot.chunks import Query, chunk_queries, utterances_by_scene
from poma3d.evaluate.zero_shot.config import LastChunk


def test_six_utterances_of_five_are_two_queries_or_one() -> None:
    said = {"a": list("123456")}
    assert chunk_queries(said, 5, LastChunk.keep) == [Query("a", "1 2 3 4 5", 5), Query("a", "6", 1)]
    assert chunk_queries(said, 5, LastChunk.drop) == [Query("a", "1 2 3 4 5", 5)]


def test_a_query_for_each_chunk_not_for_each_scene() -> None:
    said = {"a": list("1234"), "b": ["5"]}
    assert [q.text for q in chunk_queries(said, 2, LastChunk.keep)] == ["1 2", "3 4", "5"]
    assert [q.text for q in chunk_queries(said, 2, LastChunk.drop)] == ["1 2", "3 4"]
    assert [q.text for q in chunk_queries(said, 1, LastChunk.drop)] == list("12345")


def test_rows_that_are_mixed_keep_the_order_of_the_file() -> None:
    rows = [("b", "one"), ("a", "two"), ("b", " three  "), ("a", "  "), ("c", ""), ("b", "one")]
    found = utterances_by_scene(rows)
    assert list(found.items()) == [("b", ["one", "three", "one"]), ("a", ["two"])], "stripped, repeats kept"


@pytest.mark.parametrize("last", list(LastChunk))
def test_nothing_said_gives_no_query(last: LastChunk) -> None:
    assert chunk_queries({}, 3, last) == []
