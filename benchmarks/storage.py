"""Bytes of a view in our shards beside the point map itself: fp16 xyz with zstd, and nothing else.

    python -m benchmarks.storage FOLDER_OF_A_SCAN

Both store the same views of the same scan at the same size in one Parquet file, without colour and
embeddings; ours is depth + camera with captions. Also the largest error that each makes of a coordinate.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from plinth.data.config import Codec, ShardOptions
from plinth.data.shards import write_shard
from plinth.storage import Storage
from poma3d.geometry import unproject
from poma3d.sample import Sample, SampleShape, encode
from poma3d.scenes.config import SevenScenesConfig, ViewConfig
from poma3d.scenes.layouts.seven_scenes import SevenScenesReader
from poma3d.scenes.views import to_samples

XYZ_ZSTD_LEVEL = 3
LEVELS = ((Codec.lz4, 9), (Codec.zstd, 3), (Codec.zstd, 6), (Codec.zstd, 9), (Codec.jxl, 1), (Codec.jxl, 2))
"""Codecs of a view's frame, each with a level."""


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("scan", type=Path, help="a scan in the layout of 7-Scenes")
    parser.add_argument("--size", type=int, default=224, help="height and width of a point map")
    arguments = parser.parse_args()
    shape = SampleShape(views=8, height=arguments.size, width=arguments.size)
    samples = read(arguments.scan, shape)
    views = sum(int(sample.view_valid.sum()) for sample in samples)
    maps = [points(sample) for sample in samples]
    with tempfile.TemporaryDirectory() as folder:
        rows = [("fp16 xyz, zstd 3", xyz_bytes(maps, Path(folder)), max(half_error(m) for m in maps))]
        for codec, level in LEVELS:
            options = ShardOptions(depth_codec=codec, depth_level=level)
            name = f"{codec.value}-{level}"
            entry = write_shard(Storage.from_uri(folder), name, encode(samples, shape), options)
            rows.append((f"depth + camera, {codec.value} {level}", entry.size_bytes, 0.0))  # exact
    print(f"{views} views of {arguments.size} x {arguments.size}")
    print(f"{'stored as':24} {'KiB/view':>9} {'times fewer':>12} {'largest error':>14}")
    for name, size, error in rows:
        print(f"{name:24} {size / views / 1024:9.1f} {rows[0][1] / size:12.1f} {error * 1000:11.1f} mm")


def read(scan: Path, shape: SampleShape) -> list[Sample]:
    """Sub-scenes of the scan, without colour."""
    reader = SevenScenesReader(SevenScenesConfig(root=str(scan)))
    config = ViewConfig(candidate_step=1, chunk_frames=20, colour=False)
    return [s for scene in reader.scene_ids() for s in to_samples(reader.read(scene), shape, config)[0]]


def points(sample: Sample) -> np.ndarray:
    """float32 [V, H, W, 3]."""
    depth, intrinsics, pose = (
        torch.from_numpy(np.asarray(getattr(sample, n))) for n in ("depth", "intrinsics", "pose")
    )
    return unproject(depth, sample.depth_scale, intrinsics, pose).numpy()


def xyz_bytes(maps: list[np.ndarray], folder: Path) -> int:
    """Size of the point maps as fp16 in Parquet."""
    path = folder / "xyz.parquet"
    rows = [m.astype(np.float16).tobytes() for m in maps]
    table = pa.table({"points": pa.array(rows, pa.binary(len(rows[0])))})
    level = XYZ_ZSTD_LEVEL
    pq.write_table(table, path, compression="zstd", compression_level=level, use_dictionary=False)
    return path.stat().st_size


def half_error(maps: np.ndarray) -> float:
    """Largest rounding of a coordinate to fp16, metres."""
    return float(np.abs(maps - maps.astype(np.float16).astype(np.float32)).max())


if __name__ == "__main__":
    main()
