"""The sample: one scene of V views, as a row of Parquet.

Depth + camera is stored, not xyz: ten times fewer bytes than fp16 xyz, exact to the unit of the
sensor, and unprojected on the training device (`poma3d.geometry`).

    column                    dtype    shape      unit / meaning
    sample_id                 string              hash of the content; the key of all randomness
    scene_id, source          string              where it comes from
    depth                     uint16   [V,H,W]    depth on the optical axis, in `depth_scale` m; 0 = none
    depth_scale               float32  []         metres per unit of depth (0.001: millimetres)
    intrinsics                float32  [V,4]      fx, fy, cx, cy in pixels of the stored grid
    pose                      float32  [V,3,4]    camera -> world, metres; world is z-up
    xyz                       float16  [V,H,W,3]  world coordinates in metres, (0,0,0) = none: only of sources
                                                  without a pinhole camera, in place of the four above
    view_valid                uint8    [V]        0 where a view is a repeat that fills a short scene
    image_embedding           float16  [V,E]      teacher, of the view's colour image, L2-normalised
    caption_embedding         float16  [V,C,E]    teacher, of the view's captions
    caption_count             uint8    [V]        how many of the C captions exist (0: the view has none)
    scene_caption_embedding   float16  [S,E]      teacher, of the scene's captions
    scene_caption_count       uint8    []         how many of the S exist
    image_tokens              float16  [V,P,D]    teacher, layer-normed patch tokens of the image; only for
                                                  dense distillation, which the paper does not have
    view_captions             list<list<string>>  the captions themselves
    scene_captions            list<string>
    colour                    list<binary>        JPEG per view; empty list when not kept

Legend: V views, H W pixels, C captions of a view, S captions of a scene, E the teacher's joint space.
P patches and D width of the teacher's image tower. Columns of size 0 are absent: E = 0 until `poma embed`
has run, P = 0 unless it was asked for tokens; and so are the geometry columns of the other kind. Tensor
columns are fixed-size binary (Parquet would store uint16 as int32, and FixedShapeTensor decodes five times
slower); dtype, shape and unit are in the field's metadata.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import pyarrow as pa  # imported where rows are made: an exported encoder runs where there is none

SCHEMA_VERSION = 1
MILLIMETRE = 0.001
Classes = dict[str, list[str]]
"""Classes that captions name -> the words or phrases that name each: {"chair": ["chair", "chairs"]}."""

TENSOR_COLUMNS = (
    "depth", "depth_scale", "intrinsics", "pose", "view_valid",
    "image_embedding", "caption_embedding", "caption_count",
    "scene_caption_embedding", "scene_caption_count", "image_tokens",
)  # fmt: skip
XYZ = "xyz"
CAMERA_COLUMNS = ("depth", "depth_scale", "intrinsics", "pose")
"""Geometry as depth + camera; data sets without a camera have `XYZ` instead."""
_TENSORS = (*TENSOR_COLUMNS, XYZ)


@dataclass(frozen=True)
class SampleShape:
    """The sizes that all samples of a data set share (see the module's legend)."""

    views: int
    height: int
    width: int
    captions: int = 5
    scene_captions: int = 4
    embedding: int = 0
    image_tokens: int = 0
    token_width: int = 0
    xyz: bool = False
    """Whether points are stored in place of depth and camera."""

    @property
    def geometry(self) -> tuple[str, ...]:
        """The columns that say where the points are."""
        return (XYZ,) if self.xyz else CAMERA_COLUMNS

    def to_dict(self) -> dict[str, int]:
        """For a manifest and a run's record; without `xyz` where it is False, as in older ones."""
        return {name: value for name, value in asdict(self).items() if name != XYZ or value}


@dataclass
class Sample:
    """One row in memory; arrays as in the module's table.

    With `xyz`, depth says only where there is a point (1) and where there is none (0); camera and pose mean
    nothing.
    """

    scene_id: str
    source: str
    depth: np.ndarray
    intrinsics: np.ndarray
    pose: np.ndarray
    view_valid: np.ndarray
    view_captions: list[list[str]]
    scene_captions: list[str]
    colour: list[bytes] = field(default_factory=list)
    depth_scale: float = MILLIMETRE
    image_embedding: np.ndarray | None = None
    caption_embedding: np.ndarray | None = None
    scene_caption_embedding: np.ndarray | None = None
    image_tokens: np.ndarray | None = None
    xyz: np.ndarray | None = None

    @property
    def sample_id(self) -> str:
        """Hash of scene, geometry and captions: the same input gives the same id in every build."""
        digest = hashlib.blake2b(digest_size=12)
        digest.update(f"{self.source}\0{self.scene_id}\0".encode())
        if self.xyz is not None:
            digest.update(np.ascontiguousarray(self.xyz, np.float16).tobytes())
        else:
            digest.update(np.ascontiguousarray(self.depth, np.uint16).tobytes())
            for array in (self.intrinsics, self.pose, self.depth_scale):
                digest.update(np.ascontiguousarray(array, np.float32).tobytes())
        digest.update(json.dumps([self.view_captions, self.scene_captions]).encode())
        return digest.hexdigest()


def schema(shape: SampleShape) -> pa.Schema:
    """The Arrow schema for samples of `shape`."""
    import pyarrow as pa

    v, h, w, c, s, e = (
        shape.views, shape.height, shape.width, shape.captions, shape.scene_captions, shape.embedding,
    )  # fmt: skip
    tensors = {
        "depth": ("uint16", (v, h, w), "depth_scale metres along the optical axis, 0 = none"),
        "depth_scale": ("float32", (), "metres per unit of depth"),
        "intrinsics": ("float32", (v, 4), "fx fy cx cy in pixels"),
        "pose": ("float32", (v, 3, 4), "camera -> world, metres, z-up"),
        XYZ: ("float16", (v, h, w, 3), "world, metres, z-up, (0, 0, 0) = none"),
        "view_valid": ("uint8", (v,), "0 = repeat"),
        "image_embedding": ("float16", (v, e), "unit vectors"),
        "caption_embedding": ("float16", (v, c, e), "unit vectors"),
        "caption_count": ("uint8", (v,), "captions"),
        "scene_caption_embedding": ("float16", (s, e), "unit vectors"),
        "scene_caption_count": ("uint8", (), "captions"),
        "image_tokens": ("float16", (v, shape.image_tokens, shape.token_width), "layer-normed"),
    }
    fields = [pa.field(name, pa.string(), nullable=False) for name in ("sample_id", "scene_id", "source")]
    absent = CAMERA_COLUMNS if shape.xyz else (XYZ,)
    for name in tensors:
        if name in absent:
            continue
        dtype, dims, unit = tensors[name]
        size = int(np.prod(dims, dtype=np.int64)) * np.dtype(dtype).itemsize
        if size == 0:  # Parquet has no fixed-size binary of length 0
            continue
        metadata = {"dtype": dtype, "shape": json.dumps(dims), "unit": unit}
        fields.append(pa.field(name, pa.binary(size), nullable=False, metadata=metadata))
    fields.append(pa.field("view_captions", pa.list_(pa.list_(pa.string()))))
    fields.append(pa.field("scene_captions", pa.list_(pa.string())))
    fields.append(pa.field("colour", pa.list_(pa.binary())))
    return pa.schema(fields, metadata={"poma3d_schema_version": str(SCHEMA_VERSION)})


def tensor_spec(f: pa.Field) -> tuple[np.dtype, tuple[int, ...]]:
    """dtype and shape of a tensor column, from its metadata."""
    metadata = f.metadata or {}
    return np.dtype(metadata[b"dtype"].decode()), tuple(json.loads(metadata[b"shape"]))


def encode(samples: Sequence[Sample], shape: SampleShape) -> pa.Table:
    """Rows for a shard.

    Raises:
        ValueError: naming the scene, the column, the shape found and the shape expected; also for an
            empty caption.
    """
    import pyarrow as pa

    target = schema(shape)
    rows = [_arrays(sample, shape) for sample in samples]
    columns: list[pa.Array] = []
    for f in target:
        if f.name in _TENSORS:
            values = [_tensor_bytes(row[f.name], f, s.scene_id) for row, s in zip(rows, samples, strict=True)]
            columns.append(pa.array(values, f.type))
        else:
            columns.append(pa.array([getattr(s, f.name) for s in samples], f.type))
    return pa.Table.from_arrays(columns, schema=target)


def decode(table: pa.Table | pa.RecordBatch, columns: Iterable[str] | None = None) -> dict[str, np.ndarray]:
    """Tensor columns [n, ...] of a table, without a copy where the table has one chunk.

    Args:
        columns: which ones; all tensor columns of the table when None.
    """
    import pyarrow as pa

    wanted = [n for n in table.schema.names if n in _TENSORS] if columns is None else list(columns)
    out = {}
    for name in wanted:
        dtype, dims = tensor_spec(table.schema.field(name))
        column = table.column(name)
        if isinstance(column, pa.ChunkedArray):
            column = column.chunk(0) if column.num_chunks == 1 else pa.concat_arrays(column.chunks)
        width = column.type.byte_width
        start = column.offset * width
        data = memoryview(column.buffers()[1])[start : start + len(column) * width]
        out[name] = np.frombuffer(data, dtype).reshape(len(column), *dims)
    return out


def to_samples(table: pa.Table) -> list[Sample]:
    """The rows of a shard as samples; the inverse of `encode`."""
    arrays = decode(table)
    strings = {
        name: table.column(name).to_pylist()
        for name in ("scene_id", "source", "view_captions", "scene_captions", "colour")
    }
    if XYZ in arrays:
        arrays |= _without_camera(arrays[XYZ])
    optional = (XYZ, "image_embedding", "caption_embedding", "scene_caption_embedding", "image_tokens")
    return [
        Sample(
            **{name: values[i] for name, values in strings.items()},
            **{name: arrays[name][i] for name in ("depth", "intrinsics", "pose", "view_valid")},
            depth_scale=float(arrays["depth_scale"][i]),
            **{name: arrays[name][i] for name in optional if name in arrays},
        )
        for i in range(len(table))
    ]


def _without_camera(xyz: np.ndarray) -> dict[str, np.ndarray]:
    """What stands for depth and camera of points [n, V, H, W, 3]: where there is one, and nothing."""
    n, v = xyz.shape[:2]
    return {
        "depth": np.any(xyz, axis=-1).astype(np.uint16),
        "depth_scale": np.ones(n, np.float32),
        "intrinsics": np.zeros((n, v, 4), np.float32),
        "pose": np.zeros((n, v, 3, 4), np.float32),
    }


def _arrays(sample: Sample, shape: SampleShape) -> dict[str, np.ndarray]:
    """The tensor columns of one sample; captions and embeddings padded to C and S."""
    for caption in [c for view in sample.view_captions for c in view] + sample.scene_captions:
        if not caption.strip():
            raise ValueError(f"scene {sample.scene_id}: an empty caption; drop it or give it words")
    if (sample.xyz is not None) != shape.xyz:
        kinds = "points", "depth and camera"
        found, expected = kinds if sample.xyz is not None else kinds[::-1]
        raise ValueError(f"scene {sample.scene_id} has {found}, the data set stores {expected}")
    e = shape.embedding
    caption_count = np.array([min(len(c), shape.captions) for c in sample.view_captions], np.uint8)
    scene_count = np.array(min(len(sample.scene_captions), shape.scene_captions), np.uint8)

    def or_zeros(array: np.ndarray | None, dims: tuple[int, ...]) -> np.ndarray:
        return np.zeros(dims, np.float16) if array is None else array

    return {
        "depth": sample.depth,
        "depth_scale": np.array(sample.depth_scale, np.float32),
        "intrinsics": sample.intrinsics,
        "pose": sample.pose,
        XYZ: or_zeros(sample.xyz, (0,)),
        "view_valid": sample.view_valid,
        "image_embedding": or_zeros(sample.image_embedding, (shape.views, e)),
        "caption_embedding": or_zeros(sample.caption_embedding, (shape.views, shape.captions, e)),
        "caption_count": caption_count,
        "scene_caption_embedding": or_zeros(sample.scene_caption_embedding, (shape.scene_captions, e)),
        "scene_caption_count": scene_count,
        "image_tokens": or_zeros(sample.image_tokens, (shape.views, shape.image_tokens, shape.token_width)),
    }


def _tensor_bytes(array: np.ndarray, f: pa.Field, scene_id: str) -> bytes:
    dtype, dims = tensor_spec(f)
    if array.shape != dims:
        raise ValueError(f"scene {scene_id}: {f.name} has shape {array.shape}, expected {dims}")
    return np.ascontiguousarray(array, dtype).tobytes()
