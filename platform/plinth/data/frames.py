"""Packed columns: a tensor stored as one compressed frame per view, decoded straight into its place.

Parquet decodes a whole column of a row group at once, into memory from which rows are then copied. A packed
column hands out compressed frames instead, and each is decoded where it is needed: in the batch.

    in memory   fixed-size binary, dtype and shape [V, ...] in the field's metadata
    in a shard  list<binary> of V frames, uncompressed by Parquet; the metadata names the codec too

    frame of zstd, lz4   the bytes of tensor[v], compressed; of lz4 a raw block, without header
    frame of jxl         uint32 bytes of the next part | distinct values | JPEG XL of each pixel's place in
                         them (a depth camera knows a few hundred distances: their numbers are smooth)
"""

from __future__ import annotations

import fnmatch
import json
import struct
from collections.abc import Sequence
from typing import Any

import imagecodecs
import numpy as np
import pyarrow as pa

from plinth.data.config import CODEC_LEVELS, Codec, ShardOptions

CODEC_KEY = b"codec"
"""In a field's metadata: how its frames are compressed."""
_VALUES_LEVEL = 9
_LENGTH = struct.Struct("<I")


class FrameError(ValueError):
    """A frame that cannot be decoded to what its column says."""


def is_packed(field: pa.Field) -> bool:
    """Whether the column is stored as frames."""
    return CODEC_KEY in (field.metadata or {})


def codecs(schema: pa.Schema) -> dict[str, str]:
    """Packed column -> its codec."""
    return {f.name: f.metadata[CODEC_KEY].decode() for f in schema if is_packed(f)}


def tensor_spec(field: pa.Field) -> tuple[np.dtype[Any], tuple[int, ...]]:
    """dtype and shape of a row of a tensor column, from the field's metadata."""
    return np.dtype(field.metadata[b"dtype"].decode()), tuple(json.loads(field.metadata[b"shape"]))


def pack(table: pa.Table, options: ShardOptions) -> pa.Table:
    """The table as it is stored: tensor columns that `options.packed` names become frames.

    A column is a tensor column if its type is fixed-size binary and its metadata give dtype and shape; of
    one dimension or none it has no frames and stays.
    """
    for index, field in enumerate(table.schema):
        metadata = field.metadata or {}
        named = any(fnmatch.fnmatch(field.name, pattern) for pattern in options.packed)
        if not named or b"shape" not in metadata or not pa.types.is_fixed_size_binary(field.type):
            continue
        dtype, shape = tensor_spec(field)
        if len(shape) < 2:
            continue
        codec = options.depth_codec
        if codec is Codec.jxl and not (dtype == np.uint16 and len(shape) == 3):
            codec = Codec.zstd
        level = options.depth_level if codec is options.depth_codec else None
        rows = _rows(table.column(index), dtype, shape)
        frames = [[encode(frame, codec, level) for frame in row] for row in rows]
        packed = field.with_type(pa.list_(pa.binary())).with_metadata(
            {**metadata, CODEC_KEY: codec.value.encode()}
        )
        table = table.set_column(index, packed, pa.array(frames, packed.type))
    return table


def unpacked_field(field: pa.Field) -> pa.Field:
    """The field of a packed column once it is decoded."""
    dtype, shape = tensor_spec(field)
    metadata = {key: value for key, value in field.metadata.items() if key != CODEC_KEY}
    width = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
    return pa.field(field.name, pa.binary(width), nullable=field.nullable, metadata=metadata)


def unpack(table: pa.Table, problems: list[str] | None = None) -> pa.Table:
    """The table with its packed columns decoded: the inverse of `pack`.

    Args:
        problems: one text per row. Rows with a text are not decoded and are zeros, and those that cannot be
            decoded get one. Without it they raise.

    Raises:
        FrameError: naming row, view and column.
    """
    for index, field in enumerate(table.schema):
        if not is_packed(field):
            continue
        decoded = unpacked_field(field)
        memory = np.zeros((len(table), decoded.type.byte_width), np.uint8)
        done = 0
        for chunk in table.column(index).chunks:
            column = FrameColumn(chunk, field)
            rows = memory[done : done + len(column)]
            for row, out in enumerate(rows.view(column.dtype).reshape(len(column), *column.shape)):
                if problems is not None and problems[done + row]:
                    continue
                try:
                    column.read_row(row, out)
                except FrameError as error:
                    if problems is None:
                        raise FrameError(f"row {done + row}, {error}") from error
                    problems[done + row] = str(error)
            done += len(column)
        array = pa.Array.from_buffers(decoded.type, len(table), [None, pa.py_buffer(memory)])
        table = table.set_column(index, decoded, array)
    return table


class FrameColumn:
    """The rows of a packed column in compressed memory. Safe to use from several threads.

    Args:
        column: list<binary> [n].
        field: names the codec, dtype and shape.
    """

    def __init__(self, column: pa.ListArray | pa.ChunkedArray, field: pa.Field) -> None:
        if isinstance(column, pa.ChunkedArray):
            column = column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()
        self.name = field.name
        self.dtype, self.shape = tensor_spec(field)
        self._codec = Codec(field.metadata[CODEC_KEY].decode())
        self._column = column  # owns the memory below
        self._rows = _offsets(column)
        frames = column.values
        self._frames: list[int] = _offsets(frames)[self._rows[0] : self._rows[-1] + 1].tolist()
        data = frames.buffers()[2]
        self._data = memoryview(data if data is not None else b"").cast("B")

    def __len__(self) -> int:
        return len(self._rows) - 1

    def read_row(self, row: int, out: np.ndarray) -> None:
        """Decode a row.

        Args:
            out: array of the column's dtype and shape, contiguous.

        Raises:
            FrameError: naming column and view; `out` may be half written then.
        """
        first, end = (self._rows[row : row + 2] - self._rows[0]).tolist()
        if end - first != self.shape[0]:
            raise FrameError(f"{self.name}: {end - first} frames, expected {self.shape[0]}")
        for view in range(self.shape[0]):
            frame = self._data[self._frames[first + view] : self._frames[first + view + 1]]
            try:
                decode_into(frame, self._codec, out[view])
            except (RuntimeError, ValueError, TypeError, struct.error) as error:  # as codecs say it
                reason = str(error).splitlines()[0] if str(error) else type(error).__name__
                raise FrameError(f"view {view}: {self.name} cannot be decoded ({reason})") from error


def encode(frame: np.ndarray, codec: Codec, level: int | None = None) -> bytes:
    """One frame.

    Args:
        frame: for jxl uint16 [H, W].
        level: see `ShardOptions.depth_level`.
    """
    level = CODEC_LEVELS[codec][0] if level is None else level
    if codec is Codec.zstd:
        return bytes(imagecodecs.zstd_encode(np.ascontiguousarray(frame).tobytes(), level=level))
    if codec is Codec.lz4:
        return bytes(imagecodecs.lz4_encode(np.ascontiguousarray(frame).tobytes(), level=level, hc=True))
    values, places = np.unique(frame, return_inverse=True)
    steps = np.diff(values, prepend=values.dtype.type(0))
    packed_values = imagecodecs.zstd_encode(steps.astype("<u2").tobytes(), level=_VALUES_LEVEL)
    image = imagecodecs.jpegxl_encode(
        places.reshape(frame.shape).astype(np.uint16), lossless=True, effort=level, numthreads=1
    )
    return _LENGTH.pack(len(packed_values)) + bytes(packed_values) + bytes(image)


def decode_into(data: Any, codec: Codec, out: np.ndarray) -> None:
    """Decode a frame to `out`, which says how large it must be. Lets other threads run meanwhile.

    Raises:
        ValueError, RuntimeError: it is damaged, or of another size.
    """
    if codec is Codec.jxl:
        _decode_jxl(data, out)
        return
    flat = out.reshape(-1).view(np.uint8)
    decode: Any = imagecodecs.zstd_decode if codec is Codec.zstd else imagecodecs.lz4_decode
    got = len(decode(data, out=flat))
    if got != len(flat):
        raise ValueError(f"{got} bytes, expected {len(flat)}")


def _decode_jxl(data: Any, out: np.ndarray) -> None:
    (length,) = _LENGTH.unpack_from(data)
    head = data[_LENGTH.size : _LENGTH.size + length]
    if len(head) != length:
        raise ValueError(f"{len(head)} bytes of values, expected {length}")
    steps = np.frombuffer(imagecodecs.zstd_decode(head, out=2 * out.size), "<u2")
    values = np.cumsum(steps, dtype=np.uint16)
    places = imagecodecs.jpegxl_decode(data[_LENGTH.size + length :], numthreads=1)
    if places.shape != out.shape or places.dtype != np.uint16:
        raise ValueError(f"{places.dtype} {list(places.shape)}, expected uint16 {list(out.shape)}")
    if len(values) <= int(places.max()):
        raise ValueError(f"place {places.max()} among {len(values)} values")
    np.take(values, places, out=out, mode="clip")


def _rows(column: pa.ChunkedArray, dtype: np.dtype[Any], shape: Sequence[int]) -> np.ndarray:
    """A column of fixed-size binary as an array [n, *shape]."""
    joined = column.combine_chunks()
    if isinstance(joined, pa.ChunkedArray):
        joined = joined.chunk(0) if joined.num_chunks else pa.array([], column.type)
    width = joined.type.byte_width
    data = memoryview(joined.buffers()[1])[joined.offset * width :][: len(joined) * width]
    return np.frombuffer(data, dtype).reshape(len(joined), *shape)


def _offsets(array: pa.Array) -> np.ndarray:
    """Where the values of a list or binary array begin and end, int32 [n + 1]."""
    buffer = array.buffers()[1]
    if buffer is None:
        return np.zeros(1, np.int32)
    return np.frombuffer(buffer, np.int32)[array.offset : array.offset + len(array) + 1]
