"""Writes small sets of captioned images in the layouts that `poma lift` reads."""

from __future__ import annotations

import io
import json
import tarfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from jobs.common.datasets import Dataset

HEIGHT, WIDTH = 72, 96
INTRINSICS = [80.0, 80.0, 47.5, 35.5]


@dataclass
class Photo:
    """An image that is easy to tell from others, with depth and camera."""

    image: bytes
    caption: str
    depth: bytes
    intrinsics: list[float]


def photo(seed: int) -> Photo:
    """A picture of broad shapes, and a slope of depth."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (9, 12, 3), np.uint8))
    pixels = np.asarray(coarse.resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC))
    depth = np.tile(np.linspace(1000 + seed % 500, 4000, WIDTH), (HEIGHT, 1)).astype(np.uint16)
    return Photo(
        encoded(pixels, "JPEG"), f"a picture of shape number {seed}", encoded(depth, "PNG"), INTRINSICS
    )


def members(name: str, made: Photo, caption_as: str = "txt") -> dict[str, bytes]:
    """The files of a WebDataset sample."""
    fields: dict[str, Any] = {"intrinsics": made.intrinsics}
    files = {f"{name}.jpg": made.image, f"{name}.depth.png": made.depth}
    if caption_as == "txt":
        files[f"{name}.txt"] = made.caption.encode()
    else:
        fields["caption"] = made.caption
    return {**files, f"{name}.json": json.dumps(fields).encode()}


def write_tar(path: Path, files: dict[str, bytes]) -> None:
    """A tar of `files`, in order."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))


def write_photos_tar(path: Path, seeds: Sequence[int]) -> None:
    """A WebDataset tar of `photo(seed)` for each seed."""
    write_tar(path, {k: v for seed in seeds for k, v in members(f"{seed:06d}", photo(seed)).items()})


def write_parquet(path: Path, seeds: Sequence[int], row_group_rows: int = 4) -> None:
    """The same photos as rows of Parquet."""
    path.parent.mkdir(parents=True, exist_ok=True)
    photos = [photo(seed) for seed in seeds]
    table = pa.table(
        {
            "image": [{"bytes": p.image, "path": None} for p in photos],
            "caption": [p.caption for p in photos],
            "depth": [p.depth for p in photos],
            "intrinsics": [p.intrinsics for p in photos],
        }
    )
    pq.write_table(table, path, row_group_size=row_group_rows)


def write_folder(folder: Path, seeds: Sequence[int], caption_file: str = "captions.jsonl") -> None:
    """The same photos as files, with a JSONL or CSV file of captions."""
    (folder / "pictures").mkdir(parents=True, exist_ok=True)
    rows = []
    for seed in seeds:
        made = photo(seed)
        (folder / "pictures" / f"{seed}.jpg").write_bytes(made.image)
        (folder / "pictures" / f"{seed}.png").write_bytes(made.depth)
        paths = {"image": f"pictures/{seed}.jpg", "depth": f"pictures/{seed}.png"}
        rows.append({**paths, "caption": made.caption, "intrinsics": made.intrinsics})
    if caption_file.endswith(".csv"):
        lines = ["image,depth,caption,intrinsics"]
        lines += [
            f'{r["image"]},{r["depth"]},{r["caption"]},"{" ".join(map(str, INTRINSICS))}"' for r in rows
        ]
    else:
        lines = [json.dumps(row) for row in rows]
    (folder / caption_file).write_text("\n".join(lines) + "\n")


def lift_job(output: Path | str, inputs: list[dict[str, Any]], **changes: Any) -> dict[str, Any]:
    """A job with the lifter `given`, in this process, of few images a shard."""
    return {
        "kind": "lift",
        "inputs": inputs,
        "output": str(output),
        "shape": {"height": 16, "width": 16, "captions": 2, "scene_captions": 1},
        "images_per_shard": 3,
        "shards": {"row_group_rows": 2},
        "workers": 0,
        **changes,
    }


def encoded(pixels: np.ndarray, kind: str) -> bytes:
    """A picture as a file."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind)
    return buffer.getvalue()


def files(folder: Path) -> dict[str, bytes]:
    """Content of all files of a data set by their names."""
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def shards(folder: Path) -> dict[str, bytes]:
    """Content of its shards."""
    return {k: v for k, v in files(folder).items() if k.startswith("shards/")}


def captions(dataset: Dataset) -> list[str]:
    """The first caption of every sample."""
    return [sample.view_captions[0][0] for sample in dataset.samples()]


def huge_png() -> bytes:
    """A PNG of a few bytes that claims 60,000 x 60,000 samples of 16 bits."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return len(data).to_bytes(4) + kind + data + zlib.crc32(kind + data).to_bytes(4)

    side = (60_000).to_bytes(4)
    head = chunk(b"IHDR", side + side + bytes([16, 0, 0, 0, 0]))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")
