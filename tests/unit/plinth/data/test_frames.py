"""Frames: what goes in comes out, for every codec; what is damaged is named by view; nothing else is."""

from __future__ import annotations

import json
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from plinth.data import frames
from plinth.data.config import CODEC_LEVELS, Codec, ShardOptions
from plinth.data.frames import FrameColumn, FrameError, decode_into, encode, pack, unpack

CODECS = list(Codec)


def table_of(values: np.ndarray, name: str = "depth") -> pa.Table:
    """A table of one tensor column."""
    metadata = {"dtype": str(values.dtype), "shape": json.dumps(values.shape[1:])}
    width = values[0].nbytes if len(values) else int(np.prod(values.shape[1:])) * values.itemsize
    field = pa.field(name, pa.binary(width), nullable=False, metadata=metadata)
    return pa.Table.from_arrays(
        [pa.array([row.tobytes() for row in values], field.type)], schema=pa.schema([field])
    )


def images(rows: int, views: int = 2, distinct: int = 300, seed: int = 0) -> np.ndarray:
    """Depth that repeats a few distinct values, uint16 [rows, views, 9, 7]."""
    rng = np.random.default_rng(seed)
    values = rng.integers(0, 2**16, distinct).astype(np.uint16)
    return values[rng.integers(0, distinct, (rows, views, 9, 7))]


def options(codec: Codec) -> ShardOptions:
    return ShardOptions(depth_codec=codec)


def replaced(table: pa.Table, row: int, view: int, frame: bytes) -> pa.Table:
    """The packed table with one frame replaced."""
    rows = table.column(0).to_pylist()
    rows[row][view] = frame
    return table.set_column(0, table.schema.field(0), pa.array(rows, table.schema.field(0).type))


FRAMES = {
    "zeros": np.zeros((5, 4), np.uint16),
    "ones": np.full((5, 4), 65535, np.uint16),
    "ends": np.array([[0, 65535], [65535, 0]], np.uint16),
    "all values": np.arange(2**16, dtype=np.uint16).reshape(256, 256),
    "noise": np.random.default_rng(1).integers(0, 2**16, (33, 47)).astype(np.uint16),
    "one pixel": np.zeros((1, 1), np.uint16),
}
LEVELS = [(codec, level) for codec, levels in CODEC_LEVELS.items() for level in levels]


@pytest.mark.parametrize(("codec", "level"), LEVELS)
@pytest.mark.parametrize("name", FRAMES)
def test_a_frame_comes_back_bit_for_bit(codec: Codec, level: int, name: str) -> None:
    frame = FRAMES[name]
    if codec is Codec.jxl and level == CODEC_LEVELS[codec][2]:
        frame = frame[:64, :64]  # its search for the last bytes takes minutes on larger ones
    out = np.full_like(frame, 7, order="C")
    decode_into(encode(frame, codec, level), codec, out)
    np.testing.assert_array_equal(out, frame)


@settings(max_examples=40, deadline=None)
@given(
    rows=st.integers(0, 5),
    views=st.integers(1, 3),
    distinct=st.integers(1, 400),
    codec=st.sampled_from(CODECS),
    cuts=st.lists(st.integers(0, 5), max_size=3),
    seed=st.integers(0, 9),
)
def test_columns_come_back_however_they_are_cut(
    rows: int, views: int, distinct: int, codec: Codec, cuts: list[int], seed: int
) -> None:
    values = images(rows, views, distinct, seed)
    plain = table_of(values)
    packed = pack(plain, options(codec))
    assert frames.codecs(packed.schema) == {"depth": codec.value}
    assert unpack(packed).equals(plain)
    assert unpack(packed).schema.equals(plain.schema, check_metadata=True)
    ends = [0, *sorted(min(cut, rows) for cut in cuts), rows]
    pieces = [packed.slice(a, b - a) for a, b in pairwise(ends)]
    assert unpack(pa.concat_tables(pieces)).equals(plain)
    for start, piece in zip(ends, pieces, strict=False):
        column = FrameColumn(piece.column(0), piece.schema.field(0))
        for row in range(len(column)):
            out = np.empty(column.shape, column.dtype)
            column.read_row(row, out)
            np.testing.assert_array_equal(out, values[start + row])


def test_what_is_no_tensor_of_views_stays() -> None:
    vectors = table_of(np.ones((3, 4), np.float32))
    assert pack(vectors, ShardOptions()).equals(vectors)
    poses = table_of(np.ones((3, 3, 4), np.float32), "pose")
    assert pack(poses, ShardOptions()).equals(poses)
    text = pa.table({"depth": ["a", "b"]})
    assert pack(text, ShardOptions()).equals(text)


def test_points_are_zstd_where_depth_is_jxl() -> None:
    points = np.random.default_rng(0).normal(size=(2, 2, 4, 5, 3)).astype(np.float16)
    packed = pack(table_of(points, "xyz"), options(Codec.jxl))
    assert frames.codecs(packed.schema) == {"xyz": "zstd"}
    assert unpack(packed).equals(table_of(points, "xyz"))


@pytest.mark.parametrize("codec", CODECS)
def test_a_damaged_frame_is_named_by_row_view_and_column(codec: Codec) -> None:
    values = images(3)
    packed = pack(table_of(values), options(codec))
    whole = packed.column(0).to_pylist()[1][1]
    small = encode(values[0, 0, :4, :4], codec)
    large = encode(np.zeros((40, 40), np.uint16), codec)
    for bad in (whole[: len(whole) // 2], b"", b"\0" * 40, small, large):
        table = replaced(packed, 1, 1, bad)
        with pytest.raises(FrameError, match=r"^row 1, view 1: depth cannot be decoded \("):
            unpack(table)
        problems = ["", "", ""]
        decoded = unpack(table, problems)
        assert [bool(text) for text in problems] == [False, True, False]
        assert problems[1].startswith("view 1: depth cannot be decoded")
        good = table_of(values).column(0).to_pylist()
        assert decoded.column(0).to_pylist()[::2] == good[::2]


def test_too_few_frames_are_named() -> None:
    packed = pack(table_of(images(2)), ShardOptions())
    rows = packed.column(0).to_pylist()
    field = packed.schema.field(0)
    table = packed.set_column(0, field, pa.array([rows[0], rows[1][:1]], field.type))
    with pytest.raises(FrameError, match="row 1, depth: 1 frames, expected 2"):
        unpack(table)


def test_rows_with_a_problem_are_not_decoded() -> None:
    packed = pack(table_of(images(2)), ShardOptions())
    table = replaced(packed, 0, 0, b"broken")
    problems = ["left out", ""]
    decoded = unpack(table, problems)
    assert problems == ["left out", ""]
    assert decoded.column(0).to_pylist()[0] == b"\0" * images(1)[0].nbytes
