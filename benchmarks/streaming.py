"""Streaming alone: views per second of both readers beside what one would use instead, on the same views.

python -m benchmarks.streaming [--scan FOLDER] [--views 8192] [--rounds 5] [--codec zstd] [--s3] [--json FILE]

    bare pyarrow     whole columns, row group by row group in 2 threads, thrown away: no order, no batches
    threads, ray     ours: batches in the order of the plan, from frames
    DataLoader       torch's, 2 worker processes that each read every second row group of the whole columns
                     and hand over ready batches; local files only
    plain Ray Data   read_parquet of the whole columns and iter_batches; local files only

Depth at 224 x 224 with camera and embeddings, one view per sample, row groups of 64 views; made here
(planes and bumps with the noise of a disparity sensor) or from the depth images of a scan, repeated.
Rounds are interleaved and the medians shown, because the machine may be busy; CPU seconds are those of
this process and of its children, and count more than the clock where other work runs beside.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
import psutil
import pyarrow.fs
import pyarrow.parquet as pq
import ray
import ray.data
import torch
import torch.utils.data
from PIL import Image

from infra import objectstore
from plinth.data import manifest
from plinth.data.bad_rows import SAMPLE_ID
from plinth.data.batches import open_batches
from plinth.data.config import Codec, DataConfig, ReaderKind, ShardOptions
from plinth.data.manifest import Manifest
from plinth.data.plan import Cursor
from plinth.data.shards import write_shard
from plinth.data.sources import OpenSource, mix
from plinth.storage import Storage, StorageOptions
from plinth.storage.arrow import arrow_filesystem
from plinth.world import World
from poma3d.sample import Sample, SampleShape, decode, encode

SIZE, EMBEDDING, ROW_GROUP_VIEWS, SHARD_VIEWS, BATCH, THREADS = 224, 512, 64, 512, 256, 2
DISTINCT_VIEWS = 256  # of made depth; pyarrow does not know that they come again
COLUMNS = ["depth", "depth_scale", "intrinsics", "pose", "view_valid", "image_embedding", "caption_embedding"]
ACCESS_KEY_ENV, SECRET_KEY_ENV = "BENCHMARK_ACCESS_KEY", "BENCHMARK_SECRET_KEY"
CONFIG = DataConfig(lanes=16, window_row_groups=2, read_threads=THREADS)
Work = Callable[[], float]
"""Reads all views once; returns the seconds until the first of them."""


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


def make_data_set(storage: Storage, depth: np.ndarray, count: int, options: ShardOptions) -> OpenSource:
    """`count` samples of one view, over and over again from `depth`."""
    rng = np.random.default_rng(0)
    shape = SampleShape(views=1, height=SIZE, width=SIZE, embedding=EMBEDDING)
    entries = []
    for first in range(0, count, SHARD_VIEWS):
        samples = [
            Sample(
                scene_id=f"view-{i}", source="benchmark", depth=depth[i % len(depth)][None],
                intrinsics=np.ones((1, 4)), pose=rng.normal(size=(1, 3, 4)), view_valid=np.ones(1),
                view_captions=[[f"caption of {i}"]], scene_captions=[],
                image_embedding=rng.normal(size=(1, EMBEDDING)),
                caption_embedding=rng.normal(size=(1, shape.captions, EMBEDDING)),
            )
            for i in range(first, min(first + SHARD_VIEWS, count))
        ]  # fmt: skip
        entries.append(write_shard(storage, f"part-{first:07d}", encode(samples, shape), options))
    written = Manifest(entries)
    manifest.commit(storage, written)
    return OpenSource(storage, written)


def bare_pyarrow(source: OpenSource) -> Work:
    """Every row group by itself, in threads, thrown away: no order, no batches."""
    groups = [(shard, g) for shard in source.manifest.shards for g in range(len(shard.row_group_rows))]
    storage = source.storage
    filesystem, root = arrow_filesystem(storage)
    if not storage.is_local:  # the fastest that pyarrow has
        endpoint = str(storage.options.endpoint_url).removeprefix("http://")
        filesystem = pyarrow.fs.S3FileSystem(
            access_key=os.environ[ACCESS_KEY_ENV],
            secret_key=os.environ[SECRET_KEY_ENV],
            region=storage.options.region,
            endpoint_override=endpoint,
            scheme="http",
        )

    def read(shard_name: str, group: int) -> float:
        with filesystem.open_input_file(f"{root}/{shard_name}") as file:
            pq.ParquetFile(file, pre_buffer=True).read_row_group(
                group, columns=[SAMPLE_ID, *COLUMNS], use_threads=False
            )
        return time.perf_counter()

    def work() -> float:
        started = time.perf_counter()
        with ThreadPoolExecutor(THREADS) as pool:
            return min(pool.map(read, *zip(*((s.name, g) for s, g in groups), strict=True))) - started

    return work


def ours(source: OpenSource, reader: ReaderKind) -> Work:
    """Batches of one rank in plan order, with every tensor in its place."""
    config = DataConfig(**{**vars(CONFIG), "reader": reader})

    def work() -> float:
        started = time.perf_counter()
        first = 0.0
        mixture = mix(config, [source], 0, BATCH)
        with open_batches(mixture, World(0, 1), Cursor(), COLUMNS, decode) as batches:
            for _ in islice(batches, batches.plan.steps_per_epoch):
                first = first or time.perf_counter() - started
        return first

    return work


class RowGroups(torch.utils.data.IterableDataset[dict[str, torch.Tensor]]):
    """Batches made of the row groups of Parquet files, every N-th one in each of N worker processes."""

    def __init__(self, files: list[str], groups: int) -> None:
        self._groups = [(file, group) for file in files for group in range(groups)]

    def __iter__(self) -> Iterator[dict[str, torch.Tensor]]:
        worker = torch.utils.data.get_worker_info()
        assert worker is not None
        parts = []
        for file, group in self._groups[worker.id :: worker.num_workers]:
            table = pq.ParquetFile(file).read_row_group(group, columns=COLUMNS, use_threads=False)
            parts.append(decode(table, COLUMNS))
            if len(parts) * ROW_GROUP_VIEWS == BATCH:
                yield joined(parts)
                parts = []
        if parts:
            yield joined(parts)


def joined(parts: list[dict[str, np.ndarray]]) -> dict[str, torch.Tensor]:
    """One batch of several row groups. As int16: torch's processes cannot hand over uint16."""
    arrays = {name: np.concatenate([part[name] for part in parts]) for name in COLUMNS}
    return {n: torch.from_numpy(a.view(np.int16) if a.dtype == np.uint16 else a) for n, a in arrays.items()}


def data_loader(source: OpenSource) -> Work:
    """Ready batches from worker processes that start anew for each epoch, as by default."""
    files = [f"{source.storage.root}/{shard.name}" for shard in source.manifest.shards]
    groups = SHARD_VIEWS // ROW_GROUP_VIEWS

    def work() -> float:
        started = time.perf_counter()
        loader = torch.utils.data.DataLoader(RowGroups(files, groups), batch_size=None, num_workers=THREADS)
        first = 0.0
        for _ in loader:
            first = first or time.perf_counter() - started
        return first

    return work


def plain_ray_data(source: OpenSource) -> Work:
    """What Ray Data's guide shows: batches of NumPy arrays, in no given order."""
    files = [f"{source.storage.root}/{shard.name}" for shard in source.manifest.shards]

    def work() -> float:
        started = time.perf_counter()
        first = 0.0
        data = ray.data.read_parquet(files, columns=COLUMNS)
        for _ in data.iter_batches(batch_size=BATCH, batch_format="numpy"):
            first = first or time.perf_counter() - started
        return first

    return work


def cpu_s() -> float:
    """CPU seconds so far of this process and of its children, those that have ended included."""
    ended = psutil.Process().cpu_times()
    total = ended.children_user + ended.children_system
    for process in (me := psutil.Process(), *me.children(recursive=True)):
        with contextlib.suppress(psutil.Error):
            if any("swift" in word for word in process.cmdline()):
                continue
            times = process.cpu_times()
            total += times.user + times.system
    return total


def compare(works: dict[str, Work], views: int, rounds: int) -> dict[str, dict[str, float]]:
    """Run them in turn, once to warm up; print and return medians and ratios to the first."""
    seconds: dict[str, list[float]] = {name: [] for name in works}
    cpu: dict[str, list[float]] = {name: [] for name in works}
    first: dict[str, list[float]] = {name: [] for name in works}
    for number in range(rounds + 1):
        for name, work in works.items():
            cpu_before, started = cpu_s(), time.perf_counter()
            until_first = work()
            if number:
                seconds[name].append(time.perf_counter() - started)
                cpu[name].append(cpu_s() - cpu_before)
                first[name].append(until_first)
    base = statistics.median(next(iter(seconds.values())))
    found = {
        name: {
            "views_per_s": views / statistics.median(seconds[name]),
            "ratio": base / statistics.median(seconds[name]),
            "cpu_s_per_1000": statistics.median(cpu[name]) / views * 1000,
            "first_s": statistics.median(first[name]),
        }
        for name in works
    }
    print(
        f"{'':16}{'views/s':>10}{'ratio':>8}{'slowest, fastest':>22}{'CPU-s per 1,000':>18}{'first, s':>10}"
    )
    for name, row in found.items():
        spread = f"{views / max(seconds[name]):.0f} to {views / min(seconds[name]):.0f}"
        print(
            f"{name:16}{row['views_per_s']:10.0f}{row['ratio']:8.2f}{spread:>22}"
            f"{row['cpu_s_per_1000']:18.3f}{row['first_s']:10.2f}"
        )
    return found


@contextlib.contextmanager
def place(on_s3: bool) -> Iterator[Storage]:
    """An empty folder, local or on an S3 server of this machine."""
    if not on_s3:
        with tempfile.TemporaryDirectory() as folder:
            yield Storage.from_uri(folder)
        return
    with objectstore.running() as store:
        os.environ |= {ACCESS_KEY_ENV: store.access_key, SECRET_KEY_ENV: store.secret_key}
        options = StorageOptions(
            endpoint_url=store.endpoint_url, region=store.region,
            access_key_env=ACCESS_KEY_ENV, secret_key_env=SECRET_KEY_ENV,
        )  # fmt: skip
        yield Storage.from_uri(store.create_bucket("streaming"), options)


def main() -> None:
    """Make the data set, read it in turns, print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--scan", type=Path, help="folder of a scan whose depth is used")
    parser.add_argument("--views", type=int, default=8192)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--codec", choices=[codec.value for codec in Codec], default="zstd")
    parser.add_argument("--json", type=Path, help="file that gets {name: {views_per_s, ratio, ...}}")
    parser.add_argument("--s3", action="store_true", help="read from a local S3 server over HTTP")
    arguments = parser.parse_args()
    depth = scan_depth(arguments.scan) if arguments.scan else made_depth(DISTINCT_VIEWS)
    with place(arguments.s3) as storage:
        whole = ShardOptions(row_group_rows=ROW_GROUP_VIEWS, packed=[])  # as format 1 had it
        plain = make_data_set(storage.child("whole-columns"), depth, arguments.views, whole)
        options = replace(whole, packed=["depth"], depth_codec=Codec(arguments.codec))
        source = make_data_set(storage.child("frames"), depth, arguments.views, options)
        for name, made in (("whole columns", plain), (f"frames of {arguments.codec}", source)):
            size_bytes = sum(shard.size_bytes for shard in made.manifest.shards)
            print(f"{name}: {arguments.views} views, {size_bytes / arguments.views / 1024:.1f} KiB each")
        ray.init(address="local", num_cpus=THREADS, object_store_memory=2 << 30, logging_level="warning")
        works = {
            "bare pyarrow": bare_pyarrow(plain),
            "threads": ours(source, ReaderKind.threads),
            "ray": ours(source, ReaderKind.ray),
        }
        if not arguments.s3:
            works |= {"DataLoader": data_loader(plain), "plain Ray Data": plain_ray_data(plain)}
            ray.data.DataContext.get_current().enable_progress_bars = False
        found = compare(works, arguments.views, arguments.rounds)
        ray.shutdown()
    if arguments.json:
        arguments.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
