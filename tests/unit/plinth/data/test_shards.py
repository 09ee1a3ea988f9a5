"""Shards: what is written comes back by row group and column; what is damaged is named."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from plinth.data.config import ShardOptions
from plinth.data.manifest import ShardEntry
from plinth.data.shards import RowGroupReader, verify, write_shard
from plinth.data.sources import OpenSource
from plinth.errors import ConfigError, DataError
from plinth.storage import Storage
from tests.helpers.datasets import COLUMNS, SHAPES, make_data_set, toy_table, with_bad_frame

ALL = ["sample_id", *COLUMNS, "captions"]


class Counting(Storage):
    """Notes the ranges that are asked for."""

    def __init__(self, storage: Storage) -> None:
        super().__init__(storage.protocol, storage.root, storage.options)
        self.ranges: list[tuple[int, int]] = []

    def read_range(self, key: str, start: int, stop: int) -> bytes:
        self.ranges.append((start, stop))
        return super().read_range(key, start, stop)


@pytest.fixture
def source(tmp_path: Path) -> OpenSource:
    return make_data_set(tmp_path)


def test_row_groups_come_back(source: OpenSource) -> None:
    reader = RowGroupReader(source.storage)
    shard = source.manifest.shards[1]
    table = toy_table(20, 17)
    assert shard.rows == 17
    assert shard.row_group_rows == [4, 4, 4, 4, 1]
    for group, start in enumerate(range(0, 17, 4)):
        for columns in (ALL, ["pose", "sample_id"], ["captions"]):
            got = reader.read(shard, group, columns)
            assert got.equals(table.slice(start, 4).select(columns))
            assert all(column.num_chunks == 1 for column in got.columns)
            assert got.schema.field(columns[0]).metadata == table.schema.field(columns[0]).metadata
    assert reader.read_shard(shard).equals(table)


def test_one_request_for_a_row_group_and_one_for_the_footer(source: OpenSource) -> None:
    storage = Counting(source.storage)
    reader = RowGroupReader(storage)
    shard = source.manifest.shards[0]
    for group in range(3):
        reader.read(shard, group, ["sample_id", *COLUMNS])
    footer, *groups = storage.ranges
    assert footer == (shard.size_bytes - shard.footer_bytes, shard.size_bytes)
    assert len(groups) == 3
    assert all(a[1] <= b[0] for a, b in pairwise(groups)), "no byte twice"
    storage.ranges.clear()
    reader.read(shard, 0, ["pose"])
    [(start, stop)] = storage.ranges
    assert stop - start < 400, "only the wanted column"


def test_footers_are_kept_within_bounds(source: OpenSource) -> None:
    storage = Counting(source.storage)
    reader = RowGroupReader(storage, max_footers=2)
    for shard in [*source.manifest.shards, source.manifest.shards[2], source.manifest.shards[0]]:
        reader.read(shard, 0, ["pose"])
    assert len(storage.ranges) == 5 + 4, "the first shard's footer was let go"


def test_parquet_settings(source: OpenSource) -> None:
    """No dictionary and no statistics; zstd except where it cannot help; each page with a checksum."""
    shard = source.manifest.shards[0]
    metadata = pq.read_metadata(Path(source.storage.root, shard.name))
    assert metadata.num_row_groups == 5
    group = metadata.row_group(0)
    codecs = {}
    for i in range(group.num_columns):
        column = group.column(i)
        codecs[column.path_in_schema.split(".")[0]] = column.compression
        assert not column.is_stats_set
        assert not column.has_dictionary_page
    assert codecs == {
        "sample_id": "ZSTD", "pose": "ZSTD", "captions": "ZSTD",
        "depth": "UNCOMPRESSED", "image_embedding": "UNCOMPRESSED",
    }  # fmt: skip


def test_any_parquet_reader_can_read_them(source: OpenSource) -> None:
    """Frames are raw blocks of LZ4: no program of ours is needed."""
    stored = pq.read_table(Path(source.storage.root, source.manifest.shards[2].name))
    written = toy_table(37, 9)
    assert stored.drop_columns("depth").equals(written.drop_columns("depth"))
    size = 96 * 48 * 2
    decoded = [
        b"".join(pa.Codec("lz4_raw").decompress(frame, size, asbytes=True) for frame in views)
        for views in stored["depth"].to_pylist()
    ]
    assert decoded == written["depth"].to_pylist()


def test_tools_get_decoded_columns_and_a_bad_frame_by_name(tmp_path: Path) -> None:
    source = make_data_set(tmp_path / "good")
    shard = source.manifest.shards[0]
    assert RowGroupReader(source.storage).read_shard(shard).equals(toy_table(0, 20))
    assert shard.codecs == {"depth": "lz4"}
    assert "codec" not in shard.columns["depth"]
    broken = with_bad_frame(tmp_path / "bad", sample=6, view=1)
    with pytest.raises(DataError, match=r"row group 1, row 2, view 1: depth cannot be decoded"):
        RowGroupReader(broken.storage).read(broken.manifest.shards[0], 1, ["depth"])


def flip(source: OpenSource, shard: ShardEntry, offset: int) -> None:
    """Change one byte of a shard."""
    content = bytearray(source.storage.read(shard.name))
    content[offset] ^= 0xFF
    source.storage.write(shard.name, bytes(content))


def test_verify_names_what_is_wrong(source: OpenSource) -> None:
    a, b, c = source.manifest.shards
    assert verify(source.storage, source.manifest) == []
    source.storage.delete(a.name)
    source.storage.write(b.name, source.storage.read(b.name)[:-100])
    flip(source, c, c.size_bytes // 2)
    problems = {p.shard: p.kind for p in verify(source.storage, source.manifest)}
    assert problems == {a.name: "missing", b.name: "truncated", c.name: "altered"}
    source.storage.write(c.name, source.storage.read(c.name) + b"more")
    assert "altered" in [str(p) for p in verify(source.storage, source.manifest)][2]


def test_reading_names_what_is_wrong(source: OpenSource) -> None:
    a, b, c = source.manifest.shards
    reader = RowGroupReader(source.storage)
    source.storage.delete(a.name)
    source.storage.write(b.name, source.storage.read(b.name)[: b.size_bytes // 2])
    with pytest.raises(DataError, match=f"{a.name}, footer: the shard is missing"):
        reader.read(a, 0, ALL)
    with pytest.raises(DataError, match=f"{b.name}, footer: truncated: [0-9]+ of {b.footer_bytes} bytes"):
        reader.read(b, 0, ALL)
    with pytest.raises(
        DataError, match=rf"{c.name}, row group 1: no column colour; there are sample_id, .*captions"
    ):
        reader.read(c, 1, ["colour"])


def test_a_flipped_byte_of_data_is_found_while_reading(source: OpenSource) -> None:
    shard = source.manifest.shards[0]
    depth = pq.read_metadata(Path(source.storage.root, shard.name)).row_group(0).column(1)
    flip(source, shard, depth.data_page_offset + depth.total_compressed_size // 2)
    reader = RowGroupReader(source.storage)
    with pytest.raises(DataError, match=f"{shard.name}, row group 0: cannot be decoded"):
        reader.read(shard, 0, ALL)
    assert reader.read(shard, 1, ALL).num_rows == 4


def test_no_flipped_byte_goes_unnoticed(tmp_path: Path) -> None:
    """Whichever byte of a shard is another one, each row group is as it was written or is named."""
    shapes = {name: SHAPES[name] for name in ("pose", "image_embedding")}
    source = make_data_set(tmp_path, (4,), row_group_rows=2, shapes=shapes)
    [shard] = source.manifest.shards
    path = Path(source.storage.root, shard.name)
    content = path.read_bytes()
    groups = [toy_table(0, 4, shapes=shapes).slice(start, 2) for start in (0, 2)]
    data = pq.read_metadata(path).row_group(1)
    end_of_data = data.column(data.num_columns - 1).data_page_offset
    named = 0
    for offset in range(len(content)):
        altered = bytearray(content)
        altered[offset] ^= 1 << offset % 8
        path.write_bytes(altered)
        reader = RowGroupReader(source.storage)
        for number, group in enumerate(groups):
            try:
                table = reader.read(shard, number, group.schema.names)
            except DataError as error:
                named += shard.name in str(error)
            else:
                assert table.equals(group), offset
    assert named > end_of_data, "most bytes matter"


class FlipsOnce(Counting):
    """Alters the first answer that holds row group data; the store itself is whole."""

    def read_range(self, key: str, start: int, stop: int) -> bytes:
        content = super().read_range(key, start, stop)
        if len(self.ranges) != 2:
            return content
        return content[: len(content) // 2] + b"\xff" + content[len(content) // 2 + 1 :]


def test_what_was_altered_on_its_way_is_read_again(source: OpenSource) -> None:
    storage = FlipsOnce(source.storage)
    table = RowGroupReader(storage).read(source.manifest.shards[0], 1, ALL)
    assert table.equals(toy_table(4, 4).select(ALL))
    assert len(storage.ranges) == 4, "footer and row group, twice"


def test_a_shard_that_ends_early_after_its_footer_was_read(source: OpenSource) -> None:
    shard = source.manifest.shards[0]
    reader = RowGroupReader(source.storage)
    reader.read(shard, 0, ALL)
    end = pq.read_metadata(Path(source.storage.root, shard.name)).row_group(4).column(0).data_page_offset
    source.storage.write(shard.name, source.storage.read(shard.name)[: end + 10])
    with pytest.raises(DataError, match=f"{shard.name}, row group 4: truncated"):
        reader.read(shard, 4, ALL)


def test_bad_footers(source: OpenSource, tmp_path: Path) -> None:
    first, second, _ = source.manifest.shards
    flip(source, first, first.size_bytes - first.footer_bytes + 30)
    flip(source, first, first.size_bytes - 1)
    with pytest.raises(DataError, match=f"{first.name}, footer: cannot be decoded"):
        RowGroupReader(source.storage).read(first, 0, ALL)
    other = make_data_set(tmp_path / "other", (17,), row_group_rows=6).manifest.shards[0]
    content = Path(tmp_path, "other", other.name).read_bytes()
    source.storage.write(second.name, content)
    moved = ShardEntry(**{**vars(other), "name": second.name, "row_group_rows": second.row_group_rows})
    with pytest.raises(
        DataError, match=r"footer: row groups of \[6, 6, 5\] rows, the manifest says \[4, 4, 4, 4, 1\]"
    ):
        RowGroupReader(source.storage).read(moved, 0, ALL)


def test_what_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="shard empty has no rows"):
        write_shard(Storage.from_uri(tmp_path), "empty", pa.table({"sample_id": pa.array([], pa.string())}))
    with pytest.raises(ConfigError, match="row_group_rows is 0"):
        ShardOptions(row_group_rows=0).validate()
    with pytest.raises(ConfigError, match="zstd_level is 99"):
        ShardOptions(zstd_level=99).validate()
    assert not list(tmp_path.iterdir())
