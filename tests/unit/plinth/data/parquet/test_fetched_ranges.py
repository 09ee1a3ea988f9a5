import pyarrow as pa

from plinth.data.parquet.fetched_ranges import FetchedRanges


def test_arrow_reads_what_was_fetched_without_a_copy() -> None:
    content = bytes(range(200))
    file = FetchedRanges(1000)
    file.add(100, content)
    file.add(600, content[:50])
    arrow = pa.PythonFile(file, mode="r")
    assert arrow.size() == 1000
    arrow.seek(110)
    assert arrow.read(20) == content[10:30]
    assert arrow.tell() == 130
    arrow.seek(640)
    assert arrow.read(100) == content[40:50], "no more than was fetched"
    assert file.view(120, 130).obj is content


def test_what_was_not_fetched_is_empty() -> None:
    file = FetchedRanges(1000)
    file.add(100, b"abc")
    assert bytes(file.view(0, 10)) == b""
    file.seek(500)
    assert file.read(10) == b""
