"""A shard of `poma ingest`: some scenes read, cut into samples and written. The unit of work of a task."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch

from jobs.common.datasets import statistics
from jobs.ingest.built_from import record_scenes
from jobs.ingest.config import IngestJob
from jobs.ingest.readers import make_reader
from plinth.data.inputs import InputRecord
from plinth.data.manifest import ShardEntry
from plinth.data.shards import write_shard
from plinth.errors import DataError
from plinth.storage import Storage
from poma3d.sample import SampleShape, encode
from poma3d.scenes.disagreement import Disagreement, Pairs, examine
from poma3d.scenes.frame import Reader, Reject, SceneFrames
from poma3d.scenes.views import to_samples

UNUSABLE_SCAN = "unusable scan"


@dataclass(frozen=True)
class ShardTask:
    """One shard to be made."""

    job: IngestJob
    output: Storage
    shape: SampleShape
    index: int
    scene_ids: list[str]
    check_inputs: bool
    """Record every byte of the inputs."""


@dataclass(frozen=True)
class ShardResult:
    """What a task made of its scenes; no entry when all were rejected."""

    entry: ShardEntry | None
    statistics: dict[str, Any]
    rejects: list[Reject]
    frames: int
    warnings: list[tuple[str, str]]
    """What is doubtful, and the scene."""
    inputs: dict[str, InputRecord]
    """Per scene what it was read from."""
    disagreements: list[tuple[str, Disagreement]]
    """Of each scan, by its id."""


def make_shards(tasks: Sequence[ShardTask]) -> list[ShardResult]:
    """Read some scenes, each once, and write a shard of them for each task. In one thread: on thousands of
    small operations on depth maps several only wait for each other.

    Args:
        tasks: with the same reader and scenes, of different data sets.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1)  # as Ray has it for a task of one CPU
    reader = make_reader(tasks[0].job.reader)
    # Frames of real scans are decoded when they are asked for, so what is kept here is small.
    read = reader.read if len(tasks) == 1 else cache(reader.read)
    try:
        return [_make_shard(task, reader, read) for task in tasks]
    finally:
        torch.set_num_threads(before)


def _make_shard(task: ShardTask, reader: Reader, read: Callable[[str], SceneFrames]) -> ShardResult:
    inputs = record_scenes(reader, task.scene_ids, task.output, task.check_inputs)
    samples, rejects, frames = [], [], 0
    warnings: list[tuple[str, str]] = []
    disagreements: list[tuple[str, Disagreement]] = []
    for scene_id in task.scene_ids:
        try:
            scene = read(scene_id)
        except ValueError as error:  # the reader's words for a scan that cannot be used
            rejects.append(Reject(scene_id, "", UNUSABLE_SCAN, str(error)))
            continue
        pairs = None
        if not scene.is_rendered:
            pairs = Pairs(scene, len(scene.frames) // task.job.views.candidate_step)
        made, left_out = to_samples(scene, task.shape, task.job.views, pairs)
        samples += made
        rejects += left_out
        frames += len(scene.frames) + len(scene.left_out)
        doubts = list(scene.warnings)
        if pairs is not None:
            found = examine(pairs, task.job.views.max_disagreement_mm)
            disagreements.append((scene_id, found))
            doubts += [found.warning] if found.warning else []
        warnings += [(text, scene_id) for text in doubts]
    entry = None
    if samples:
        try:
            table = encode(samples, task.shape)
        except ValueError as error:  # an empty caption, an array of another shape
            raise DataError(f"{error}.") from None
        entry = write_shard(task.output, f"{task.index:06d}", table, task.job.shards)
    return ShardResult(entry, statistics(samples), rejects, frames, warnings, inputs, disagreements)
