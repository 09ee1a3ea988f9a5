"""How fast `poma lift` is without a lifter's cost, and what it takes to find unfinished work.

    python -m benchmarks.lift [--images 2000] [--scan FOLDER] [--workers 2] [--ids 10000 100000 1000000]

The images are broad shapes with grain, or the colour frames of a scan in the layout of 7-Scenes, with depth
and camera: the lifter `given` costs nothing. Beside it a bare loop that does the least that must be done:
read the tar once, decode, resize depth and colour, encode the JPEG, write Parquet. `poma lift` reads every
image twice: once to know what it is (hash, perceptual hash, caption), once to lift it.

Unfinished work is found from synthetic commits of as many ids; then a small set is added to a data set of
that size, whose plan compares its images with all that are there.
"""

from __future__ import annotations

import argparse
import io
import json
import resource
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
from PIL import Image

from jobs.common.objects import names_in, write_table
from jobs.lift import command as lift
from jobs.lift import versions
from jobs.lift.config import LiftJob
from jobs.lift.images.config import ImageSetConfig
from jobs.lift.versions import INDEX_SCHEMA, SEEN_SCHEMA
from plinth.data.shards import write_shard
from plinth.storage import Storage
from poma3d.lift.config import ConventionConfig, FilterConfig
from poma3d.lift.convention import to_sample
from poma3d.lift.given import decode_depth
from poma3d.lift.lifter import InputImage, Lifted
from poma3d.sample import SampleShape, encode

T = TypeVar("T")
WIDTH, HEIGHT = 640, 480
"""Of the synthetic photographs; Conceptual Captions are about so large."""
INTRINSICS = [520.0, 520.0, 319.5, 239.5]
PER_TAR = 500
PER_SHARD = 256
SHAPE = SampleShape(1, 224, 224)
QUALITY = 85


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=int, default=2000, help="photographs; 0 leaves the first table out")
    parser.add_argument("--scan", type=Path, help="take the frames of this scan instead")
    parser.add_argument("--workers", type=int, default=0, help="tasks on Ray; 0 runs in this process")
    parser.add_argument("--ids", type=int, nargs="*", default=[10_000, 100_000, 1_000_000])
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        tars = Path(folder) / "tars"
        if arguments.scan:
            throughput(Path(folder), write_tars(tars, scan_frames(arguments.scan)), arguments.workers)
        elif arguments.images:
            made = write_tars(tars, map(photograph, range(arguments.images)))
            throughput(Path(folder), made, arguments.workers)
        for ids in arguments.ids:
            resume(Path(folder) / str(ids), ids)


def throughput(folder: Path, images: int, workers: int) -> None:
    """Images per second of the bare loop and of the command on the same tars, and bytes a sample."""
    before = time.process_time(), time.monotonic()
    bare(folder / "tars", Storage.from_uri(folder / "bare"))
    loop_cpu_s, loop_s = time.process_time() - before[0], time.monotonic() - before[1]
    job = LiftJob(
        inputs=[ImageSetConfig(uri=str(folder / "tars"))],
        output=str(folder / "out"),
        workers=workers,
        gates=FilterConfig(duplicate_distance=-1),  # neighbouring frames of a scan look alike
    )
    before = time.process_time(), time.monotonic()
    lift.run_job(job)
    cpu_s, took_s = time.process_time() - before[0], time.monotonic() - before[1]
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
    print(f"{images} images, {workers} workers")
    print(f"  bare loop  {images / loop_s:7.0f} images/s  {images / loop_cpu_s:7.0f} per CPU second")
    per_cpu = f"{images / cpu_s:7.0f} per CPU second, " if workers == 0 else ""
    print(f"  poma lift  {images / took_s:7.0f} images/s  {per_cpu}{memory:.0f} MiB in this process at most")


def write_tars(folder: Path, samples: Iterable[dict[str, bytes]]) -> int:
    """WebDataset tars of samples (their files by suffix); returns how many there are."""
    folder.mkdir(parents=True)
    total = 0
    for number, batch in enumerate(batched(samples, PER_TAR)):
        with tarfile.open(folder / f"{number:06d}.tar", "w") as archive:
            for place, files in enumerate(batch):
                for suffix, content in files.items():
                    info = tarfile.TarInfo(f"{total + place:08d}.{suffix}")
                    info.size = len(content)
                    archive.addfile(info, io.BytesIO(content))
        total += len(batch)
    return total


def batched(items: Iterable[dict[str, bytes]], size: int) -> Iterator[list[dict[str, bytes]]]:
    """Lists of `size`, the last one shorter."""
    rest = iter(items)
    while batch := list(islice(rest, size)):
        yield batch


def scan_frames(root: Path) -> Iterator[dict[str, bytes]]:
    """The files of the frames of a scan."""
    matrix = np.loadtxt(root / "camera-intrinsics.txt")
    camera = [matrix[0, 0], matrix[1, 1], matrix[0, 2], matrix[1, 2]]
    for number, depth in enumerate(sorted(root.glob("*.depth.png"))):
        colour = depth.with_name(depth.name.replace(".depth.png", ".color.jpg"))
        yield sample(colour.read_bytes(), depth.read_bytes(), f"frame number {number} of a scan", camera)


def photograph(seed: int) -> dict[str, bytes]:
    """The files of one sample."""
    rng = np.random.default_rng(seed)
    shapes = Image.fromarray(rng.integers(0, 256, (9, 12, 3), np.uint8)).resize(
        (WIDTH, HEIGHT), Image.Resampling.BICUBIC
    )
    grain = rng.normal(0, 6, (HEIGHT, WIDTH, 1))
    pixels = np.clip(np.asarray(shapes) + grain, 0, 255).astype(np.uint8)
    surface = Image.fromarray(rng.random((6, 8), np.float32)).resize(
        (WIDTH, HEIGHT), Image.Resampling.BICUBIC
    )
    depth = (1500 + 2000 * np.asarray(surface)).clip(500, 6000).astype(np.uint16)
    caption = f"broad shapes in a picture that has number {seed}"
    return sample(encoded(pixels, "JPEG", quality=QUALITY), encoded(depth, "PNG"), caption, INTRINSICS)


def sample(jpeg: bytes, depth: bytes, caption: str, intrinsics: Sequence[float]) -> dict[str, bytes]:
    """The files of one sample, by suffix."""
    camera = json.dumps({"intrinsics": list(intrinsics)}).encode()
    return {"jpg": jpeg, "depth.png": depth, "txt": caption.encode(), "json": camera}


def encoded(pixels: np.ndarray, kind: str, **options: Any) -> bytes:
    """A picture as a file."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind, **options)
    return buffer.getvalue()


def bare(folder: Path, output: Storage) -> None:
    """The least that makes the same shards: no ids, no gates, no commits."""
    convention = ConventionConfig()
    samples = []
    for path in sorted(folder.iterdir()):
        with tarfile.open(path) as archive:
            parts: dict[str, bytes] = {}
            for member in archive:
                file = archive.extractfile(member)
                assert file is not None
                parts[member.name.partition(".")[2]] = file.read()
                if len(parts) < 4:
                    continue
                rgb = np.asarray(Image.open(io.BytesIO(parts["jpg"])).convert("RGB"))
                camera = np.array(json.loads(parts["json"])["intrinsics"])
                lifted = Lifted(decode_depth(parts["depth.png"], 0.001), camera, metric=True)
                picture = InputImage(member.name, rgb, [parts["txt"].decode()])
                samples.append(to_sample(picture, lifted, "images", SHAPE, convention))
                parts = {}
                if len(samples) == PER_SHARD:
                    write_shard(output, f"{member.name[:8]}", encode(samples, SHAPE))
                    samples = []
    if samples:
        write_shard(output, "last", encode(samples, SHAPE))


def resume(folder: Path, ids: int) -> None:
    """A build of `ids` images with its last part missing, then a second set: what finding out costs."""
    storage = Storage.from_uri(folder)
    rng = np.random.default_rng(0)
    pieces = [f"{i:06d}" for i in range(max(1, ids // 10_000))]
    for piece, size in zip(pieces, np.diff(np.linspace(0, ids, len(pieces) + 1).astype(int)), strict=True):
        write_table(storage, versions.index_key("r", piece), synthetic(rng, int(size)))
    timed("plan", lambda: plan(storage, "first", pieces, []), ids)
    parts = versions.load_plan(storage, "first").parts
    commits = folder / versions.COMMITS
    commits.mkdir(parents=True)
    for part in parts[:-1]:  # as they are, but without waiting for the disk thousands of times
        (commits / f"{part.name}.json").write_text("{}")

    def unfinished() -> Sequence[str]:
        done = names_in(storage, versions.COMMITS)
        return [p.name for p in versions.load_plan(storage, "first").parts if p.name not in done]

    assert timed("find unfinished work", unfinished, ids) == [parts[-1].name]
    write_table(storage, versions.index_key("r", "new"), synthetic(rng, 1000))
    timed("plan 1000 more", lambda: plan(storage, "second", ["new"], ["first"]), ids)


def plan(storage: Storage, name: str, pieces: Sequence[str], earlier: Sequence[str]) -> object:
    """As the command plans."""
    return versions.make_plan(storage, name, "r", pieces, earlier, PER_SHARD, distance=2)


def synthetic(rng: np.random.Generator, size: int) -> pa.Table:
    """An index of images that never were."""
    hashes = rng.integers(0, 2**64, size, np.uint64)
    strings = [f"{value:024x}" for value in hashes.tolist()]
    seen = pa.table([strings, hashes], schema=SEEN_SCHEMA)
    place = pa.array(["shard-000000.tar at byte 123456789"] * size)
    table = seen.append_column("place", place).append_column("locator", place)
    nothing = pa.nulls(size, pa.string())
    return table.append_column("reason", nothing).append_column("value", nothing).cast(INDEX_SCHEMA)


def timed(what: str, work: Callable[[], T], ids: int) -> T:
    """Run, print wall and CPU seconds, hand back the result."""
    start, cpu = time.monotonic(), time.process_time()
    result = work()
    print(
        f"{ids:9,d} ids: {what:22} {time.monotonic() - start:6.2f} s ({time.process_time() - cpu:.2f} CPU s)"
    )
    return result


if __name__ == "__main__":
    main()
