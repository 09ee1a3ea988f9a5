"""What is read: views of made or real depth with camera and embeddings, as data sets and for the peers."""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from infra import objectstore
from plinth.data import manifest
from plinth.data.bad_rows import SAMPLE_ID
from plinth.data.config import Codec, ShardOptions
from plinth.data.manifest import Manifest, ShardEntry
from plinth.data.shards import write_shard
from plinth.storage import Storage, StorageOptions
from plinth.storage.arrow import arrow_filesystem
from poma3d.sample import Sample, SampleShape, decode, encode

SIZE, EMBEDDING, ROW_GROUP_VIEWS, SHARD_VIEWS = 224, 512, 64, 512
DISTINCT_VIEWS = 256  # of made depth; pyarrow does not know that they come again
ACCESS_KEY_ENV, SECRET_KEY_ENV = "BENCHMARK_ACCESS_KEY", "BENCHMARK_SECRET_KEY"
SHAPE = SampleShape(views=1, height=SIZE, width=SIZE, embedding=EMBEDDING)


@dataclass(frozen=True)
class DataSet:
    """One that is written."""

    storage: Storage
    bytes_per_view: float


def made_depth(count: int) -> np.ndarray:
    """uint16 millimetres [count, SIZE, SIZE] that compress like those of a depth camera."""
    rng = np.random.default_rng(0)
    v, u = np.mgrid[0:SIZE, 0:SIZE] / SIZE
    focal_times_baseline, steps = 43.5, 8  # metre-pixels; steps of disparity in a pixel
    depth = np.empty((count, SIZE, SIZE), np.uint16)
    for view in depth:
        planes = [
            1.5 + a * a + b * u + c * v + 0.4 * np.sin(3 * d * u + e) * np.cos(3 * d * v)
            for a, b, c, d, e in rng.uniform(-1, 1, (3, 5))
        ]
        disparity = focal_times_baseline / np.min(planes, axis=0).clip(0.4) + rng.normal(0, 0.03, v.shape)
        view[:] = 1000 * focal_times_baseline / (np.round(disparity * steps) / steps)
        view[rng.random(v.shape) < 0.002] = 0
    return depth


def scan_depth(folder: Path) -> np.ndarray:
    """The depth images of a scan in the style of 7-Scenes, nearest neighbour to SIZE x SIZE."""
    views = []
    for path in sorted(folder.glob("*.depth.png")):
        depth = np.array(Image.open(path)).astype(np.uint16)
        depth[depth == np.iinfo(np.uint16).max] = 0
        rows, cols = (np.arange(SIZE) * n // SIZE for n in depth.shape)
        views.append(depth[rows][:, cols])
    return np.stack(views)


def tables(depth: np.ndarray, count: int) -> Iterator[pa.Table]:
    """Rows of `count` samples of one view, over and over again from `depth`, a shard at a time."""
    rng = np.random.default_rng(0)
    for first in range(0, count, SHARD_VIEWS):
        samples = [
            Sample(
                scene_id=f"view-{i}", source="benchmark", depth=depth[i % len(depth)][None],
                intrinsics=np.ones((1, 4)), pose=rng.normal(size=(1, 3, 4)), view_valid=np.ones(1),
                view_captions=[[f"caption of {i}"]], scene_captions=[],
                image_embedding=rng.normal(size=(1, EMBEDDING)),
                caption_embedding=rng.normal(size=(1, SHAPE.captions, EMBEDDING)),
            )
            for i in range(first, min(first + SHARD_VIEWS, count))
        ]  # fmt: skip
        yield encode(samples, SHAPE)


def make_data_sets(storage: Storage, depth: np.ndarray, count: int, codec: Codec) -> tuple[DataSet, DataSet]:
    """The same rows as whole columns, as format 1 had them, and as frames of `codec`."""
    whole = ShardOptions(row_group_rows=ROW_GROUP_VIEWS, packed=[])
    frames = ShardOptions(row_group_rows=ROW_GROUP_VIEWS, packed=["depth"], depth_codec=codec)
    kinds = {"whole-columns": whole, "frames": frames}
    entries: dict[str, list[ShardEntry]] = {name: [] for name in kinds}
    for number, table in enumerate(tables(depth, count)):
        for name, options in kinds.items():
            entries[name].append(write_shard(storage.child(name), f"part-{number:05d}", table, options))
    made = []
    for name in kinds:
        written = Manifest(entries[name])
        manifest.commit(storage.child(name), written)
        size_bytes = sum(shard.size_bytes for shard in written.shards)
        made.append(DataSet(storage.child(name), size_bytes / count))
    return made[0], made[1]


def write_columns(folder: Path, depth: np.ndarray, count: int) -> None:
    """The same rows for the peers' converters, which have no pyarrow: NumPy files and a list of ids."""
    columns: dict[str, list[np.ndarray]] = {}
    ids: list[str] = []
    for table in tables(depth, count):
        ids += table.column(SAMPLE_ID).to_pylist()
        for name, array in decode(table).items():
            if name != "depth":
                columns.setdefault(name, []).append(array)
    np.save(folder / "depth.npy", depth[:, None])
    for name, parts in columns.items():
        if name in (
            "depth_scale",
            "intrinsics",
            "pose",
            "view_valid",
            "image_embedding",
            "caption_embedding",
        ):
            np.save(folder / f"{name}.npy", np.concatenate(parts))
    (folder / "ids.json").write_text(json.dumps(ids))


@contextlib.contextmanager
def place(on_s3: bool, folder: Path) -> Iterator[Storage]:
    """An empty folder, local (in `folder`) or on an S3 server of this machine."""
    if not on_s3:
        with tempfile.TemporaryDirectory(dir=folder) as empty:
            yield Storage.from_uri(empty)
        return
    with objectstore.running() as store:
        os.environ |= {ACCESS_KEY_ENV: store.access_key, SECRET_KEY_ENV: store.secret_key}
        options = StorageOptions(
            endpoint_url=store.endpoint_url, region=store.region,
            access_key_env=ACCESS_KEY_ENV, secret_key_env=SECRET_KEY_ENV,
        )  # fmt: skip
        yield Storage.from_uri(store.create_bucket("streaming"), options)


def sample_ids(storage: Storage) -> list[str]:
    """Of all samples of a data set."""
    filesystem, root = arrow_filesystem(storage)
    names = [f"{root}/{shard.name}" for shard in manifest.load(storage).shards]
    read = [pq.read_table(name, columns=[SAMPLE_ID], filesystem=filesystem) for name in names]
    return [str(x) for table in read for x in table.column(SAMPLE_ID).to_pylist()]
