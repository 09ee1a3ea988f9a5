import threading

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from plinth.data import stream
from plinth.data.stream import STREAM, sealed, unsealed
from tests.helpers.datasets import toy_table


@settings(deadline=None)
@given(sizes=st.lists(st.integers(1, 7), min_size=1, max_size=5), start=st.integers(0, 4))
def test_tables_come_out_of_a_block_as_they_went_in(sizes: list[int], start: int) -> None:
    """In order, also from a block that Ray Data joined or cut."""
    tables = [toy_table(10 * i, size) for i, size in enumerate(sizes)]
    block = pa.concat_tables([sealed(table) for table in tables]).combine_chunks().slice(start)
    assert block.column_names == [STREAM]
    batches = [batch for chunk in block.column(STREAM).chunks for batch in unsealed(chunk)]
    assert [pa.Table.from_batches([batch]) for batch in batches] == tables[start:]


def test_tables_of_different_columns_share_a_block() -> None:
    """Sources of a mixture may be packed by different codecs, which their fields say."""
    tables = [toy_table(0, 3), toy_table(3, 2).drop_columns("depth")]
    block = pa.concat_tables([sealed(table) for table in tables])
    batches = [batch for chunk in block.column(STREAM).chunks for batch in unsealed(chunk)]
    assert [pa.Table.from_batches([batch]) for batch in batches] == tables


def test_the_scheduler_hurries_while_any_execution_is_asked_for_blocks(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Where one execution follows another, the second has enough while the first is waited for."""
    slept: list[float] = []
    monkeypatch.setattr(stream.time, "sleep", slept.append)
    monkeypatch.setattr(stream, "IDLE_PAUSE_S", 60.0)
    demand = stream._Demand()
    demand.ask("first")
    demand.ask("second")
    demand.rest("second")
    demand.pause()
    assert slept == [stream.SCHEDULING_PAUSE_S], "no shorter either: that would be a busy loop"
    demand.rest("first")
    resting = threading.Thread(target=demand.pause)
    resting.start()
    resting.join(0.2)
    assert resting.is_alive()
    demand.ask("first")
    resting.join(30)
    assert not resting.is_alive()
    assert slept == [stream.SCHEDULING_PAUSE_S]
