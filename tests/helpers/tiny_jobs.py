"""Tiny job files and data sets through the real entry point, for tests of the commands."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from jobs.cli import main
from jobs.common.datasets import open_dataset
from jobs.demo.teacher import train_teacher
from jobs.demo.teacher_config import TeacherTrainConfig
from plinth.storage import StorageOptions

SIDE = 32
TEACHER = TeacherTrainConfig(
    image_size=SIDE, patch_size=8, image_width=16, image_layers=2, image_heads=2, text_width=16,
    text_layers=1, text_heads=2, text_tokens=24, embedding=8, steps=2, scenes_per_batch=4,
    warmup_steps=1, threads=1,
)  # fmt: skip


def write(path: Path, content: dict[str, Any]) -> str:
    """A job file; returns its path for the command line."""
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    return str(path)


def ingest_job(output: Path | str, rooms: int = 8, views: int = 2, **changes: Any) -> dict[str, Any]:
    """Procedural rooms of `views` views; `views` 1 gives single images, of two frames a room."""
    single = views == 1
    return {
        "kind": "ingest",
        "output": str(output),
        "reader": {"kind": "rooms", "rooms": {"rooms": rooms, "views": max(views, 2), "image_size": SIDE}},
        "shape": {"views": views, "height": SIDE, "width": SIDE, "captions": 3, "scene_captions": 2},
        "views": {"candidate_step": 1, "single_images": single},
        "scenes_per_shard": 4,
        "shards": {"row_group_rows": 2},
        "workers": 0,
        **changes,
    }


def pretrain_job(folder: Path, **changes: Any) -> dict[str, Any]:
    """Both stages on data sets made by `make_data`, in this process."""
    stage = {"steps": 4, "global_batch_size": 4, "micro_batch_size": 2, "warmup_steps": 1}
    reading = {"lanes": 2, "window_row_groups": 2, "reader": "threads"}
    return {
        "kind": "pretrain",
        "name": "run",
        "output": str(folder / "runs"),
        "teacher": {"source": str(folder / "teacher")},
        "model": {
            "encoder": {"tuning": {"rank": 2, "alpha": 4.0}},
            "predictor": {"layers": 1, "width": 16, "heads": 2},
            "masks": {"min_context": 2},
        },
        "warmup": {**stage, "data": {**reading, "sources": [{"uri": str(folder / "images")}]}},
        "main": {**stage, "data": {**reading, "sources": [{"uri": str(folder / "rooms")}]}},
        "checkpoint": {"every_steps": 2},
        "fit": {"workers": 0},
        **changes,
    }


def make_data(folder: Path) -> None:
    """`folder`/rooms, /images and /teacher, all embedded by that teacher."""
    make_teacher(folder)
    assert main(["ingest", write(folder / "images.yaml", ingest_job(folder / "images", views=1))]) == 0
    for name in ("rooms", "images"):
        assert main(["embed", embed_file(folder, name)]) == 0


def make_teacher(folder: Path) -> None:
    """`folder`/rooms, and /teacher trained on them."""
    assert main(["ingest", write(folder / "rooms.yaml", ingest_job(folder / "rooms"))]) == 0
    rooms = open_dataset(str(folder / "rooms"), StorageOptions())
    train_teacher(rooms.samples(), folder / "teacher", TEACHER)


def embed_file(folder: Path, name: str) -> str:
    """The embed job of one of the data sets."""
    job = {
        "kind": "embed",
        "data": str(folder / name),
        "teacher": {"source": str(folder / "teacher")},
        "workers": 0,
    }
    return write(folder / f"embed-{name}.yaml", job)
