"""The features of a scene's views as a row of Parquet, as a frozen encoder gives them.

    column        dtype    shape      meaning
    sample_id     string              of the sample that was encoded
    scene_id      string
    source        string
    views         float16  [V,E]      projected features, not normalised
    view_valid    uint8    [V]        0 where a view is a repeat that fills a short scene
    patches       float16  [V,P,D]    patch tokens; only where they were asked for

Legend: V views, E width of a feature, P patches, D width of a patch token.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass

import numpy as np
import pyarrow as pa

SCHEMA_VERSION = 1
STRINGS = ("sample_id", "scene_id", "source")
LARGEST = float(np.finfo(np.float16).max)


@dataclass(frozen=True)
class FeatureShape:
    """The sizes that all rows of a data set share; without patches, `patches` is 0."""

    views: int
    embedding: int
    patches: int = 0
    patch_width: int = 0

    def to_dict(self) -> dict[str, int]:
        """For a manifest."""
        return asdict(self)


def encode(ids: dict[str, list[str]], arrays: dict[str, np.ndarray], shape: FeatureShape) -> pa.Table:
    """Rows for a shard.

    Args:
        ids: the string columns.
        arrays: `views` [n, V, E], `view_valid` [n, V], and `patches` [n, V, P, D] where the shape has any.

    Raises:
        ValueError: a feature that is not finite, or larger than float16 holds: names the scene.
    """
    tensors: dict[str, tuple[str, tuple[int, ...], str]] = {
        "views": ("float16", (shape.views, shape.embedding), "projected features, not normalised"),
        "view_valid": ("uint8", (shape.views,), "0 = repeat"),
    }
    if shape.patches:
        of_patches = (shape.views, shape.patches, shape.patch_width)
        tensors["patches"] = ("float16", of_patches, "tokens of the last layer")
    fields = [pa.field(name, pa.string(), nullable=False) for name in STRINGS]
    columns = [pa.array(ids[name], pa.string()) for name in STRINGS]
    for name, (dtype, dims, unit) in tensors.items():
        found = arrays[name].reshape(len(ids["scene_id"]), *dims)
        for scene_id, values in zip(ids["scene_id"], found, strict=True):
            if not np.all(np.abs(values.astype(np.float32)) <= LARGEST):  # NaN is not, either
                raise ValueError(f"scene {scene_id}: the encoder gives {name} that are not finite in float16")
        size = int(np.prod(dims, dtype=np.int64)) * np.dtype(dtype).itemsize
        metadata = {"dtype": dtype, "shape": json.dumps(dims), "unit": unit}
        fields.append(pa.field(name, pa.binary(size), nullable=False, metadata=metadata))
        rows = [np.ascontiguousarray(values, dtype).tobytes() for values in found]
        columns.append(pa.array(rows, pa.binary(size)))
    metadata = {"poma3d_feature_schema_version": str(SCHEMA_VERSION)}
    return pa.Table.from_arrays(columns, schema=pa.schema(fields, metadata=metadata))
