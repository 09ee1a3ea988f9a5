"""The way of a new user, from scans of their own to a text query, as the head of `own_scans.yaml` says it."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from jobs.cli import main
from jobs.common.datasets import open_dataset
from jobs.common.run_layout import CONFIGS
from jobs.demo.teacher import train_teacher
from jobs.demo.teacher_config import TeacherTrainConfig
from plinth.storage import StorageOptions
from tests.helpers.scans import room, write_seven_scenes
from tests.helpers.tiny_jobs import ingest_job, write

JOB = CONFIGS / "own_scans.yaml"
LEAD = "#   poma "
"""Begins a line of its head that is a command."""
DETECT, INGEST, PRETRAIN = "detect", "ingest", "pretrain"
RUN, ENCODER = "runs/own_scans", "encoder"
"""Where the commands leave what they make."""
QUERY = "a chair beside the table"


def commands(scans: Path, teacher: Path, more: Mapping[str, Sequence[str]]) -> dict[str, list[str]]:
    """Name of each step -> words of its command, without `poma`.

    Args:
        more: overrides of a step, where sizes or lengths are not those of the file.
    """
    found: dict[str, list[str]] = {}
    for line in JOB.read_text().splitlines():
        if line.startswith(LEAD):
            words = shlex.split(line.removeprefix(LEAD), comments=True)
            given = [w.replace("FOLDER", str(scans)).replace("TEACHER", str(teacher)) for w in words]
            name = DETECT if "--detect" in words else words[0]
            found[name] = [*given, *more.get(name, ())]
    return found


def make_scans(folder: Path, size: int, frames: int, rooms: int = 2) -> Path:
    """Recordings of procedural rooms in the layout of 7-Scenes, each in its folder."""
    for index in range(rooms):
        write_seven_scenes(folder / f"room-{index}", room(index, views=frames, size=size), np.eye(3))
    return folder


def make_teacher(folder: Path, config: TeacherTrainConfig) -> Path:
    """A teacher that has hardly learnt anything, in `folder`/teacher, from procedural rooms beside it."""
    rooms = folder / "teacher-rooms"
    assert main(["ingest", write(folder / "teacher-rooms.yaml", ingest_job(rooms))]) == 0
    train_teacher(open_dataset(str(rooms), StorageOptions()).samples(), folder / "teacher", config)
    return folder / "teacher"
