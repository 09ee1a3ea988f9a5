"""`poma embed`: a frozen teacher's embeddings of images and captions, next to the geometry.

The teacher runs once per data set, not once per step. Geometry, captions and ids stay as they are; the
manifest then names the teacher and its revision, and training refuses any other.
"""

from __future__ import annotations

import argparse
import io
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace

import numpy as np
from PIL import Image

from jobs.common import models
from jobs.common.cluster import map_tasks, ray_cluster
from jobs.common.datasets import Dataset, open_dataset
from jobs.common.devices import own_device
from jobs.embed.config import EmbedJob
from jobs.jobfile import asked
from plinth.data import manifest as manifests
from plinth.data.config import ShardOptions
from plinth.data.manifest import Manifest, ShardEntry
from plinth.data.shards import RowGroupReader, write_shard
from plinth.errors import DataError
from plinth.storage import Storage, StorageOptions
from poma3d.pretrained.config import FGCLIP, TeacherConfig
from poma3d.pretrained.teacher import Teacher
from poma3d.sample import Sample, SampleShape, encode, to_samples


@dataclass(frozen=True)
class EmbedTask:
    """One shard to be rewritten."""

    index: int
    entry: ShardEntry
    data: Storage
    shape: SampleShape
    teacher: TeacherConfig
    storage: StorageOptions
    options: ShardOptions
    image_tokens: bool


def run(arguments: argparse.Namespace) -> int:
    """Embed the data set and say with what; returns the exit code."""
    return run_job(asked(EmbedJob, arguments))


def run_job(job: EmbedJob) -> int:
    """The same for a job that is at hand."""
    with ray_cluster(job.ray, job.workers):
        dataset = embed(job)
    print(f"{dataset.storage.uri}: embedded by {dataset.teacher}")
    return 0


def embed(job: EmbedJob) -> Dataset:
    """Rewrite the shards of `job.data` with embeddings, then the manifest.

    Raises:
        DataError: no data set, no colour in it, or an empty caption.
        ConfigError: the teacher cannot be loaded.
    """
    dataset = open_dataset(job.data, job.storage)
    record = models.record(job.teacher, job.storage)
    done = dataset.teacher == record and (dataset.shape.image_tokens > 0 or not job.image_tokens)
    if done:
        print(f"{dataset.storage.uri}: already embedded by {record}")
        return dataset
    if "version" in dataset.manifest.attributes:
        raise DataError(
            f"{dataset.storage.uri} is built by `poma lift` in versions, whose shards stay as they are.",
            "Give the teacher to the lift job, with another output if this one has images already.",
        )
    teacher = models.open_teacher(job.teacher, job.storage)
    tower = teacher.image_tower().shape
    shape = replace(
        dataset.shape,
        embedding=record.embedding,
        image_tokens=tower.patches if job.image_tokens else 0,
        token_width=tower.width if job.image_tokens else 0,
    )
    tasks = [
        EmbedTask(i, entry, dataset.storage, shape, job.teacher, job.storage, job.shards, job.image_tokens)
        for i, entry in enumerate(dataset.manifest.shards)
    ]
    each = {"CPU": 1.0, "GPU": job.gpus_per_worker}
    entries = map_tasks(embed_shard, tasks, job.workers, each, f"embed {dataset.storage.uri}", "shards")
    attributes = {**dataset.manifest.attributes, "shape": shape.to_dict(), "teacher": asdict(record)}
    manifest = Manifest(entries, attributes)
    manifests.commit(dataset.storage, manifest)
    manifests.prune(dataset.storage, manifest)
    return Dataset(dataset.storage, manifest)


def embed_shard(task: EmbedTask) -> ShardEntry:
    """One shard with the teacher's embeddings; a new file, named by its content."""
    teacher = models.open_teacher(task.teacher, task.storage, own_device())
    samples = to_samples(RowGroupReader(task.data).read_shard(task.entry))
    for sample in samples:
        if len(sample.colour) != task.shape.views:
            raise DataError(
                f"{task.data.uri}: scene {sample.scene_id} keeps {len(sample.colour)} colour images for "
                f"{task.shape.views} views.",
                "The teacher needs them all: ingest again with views.colour=true.",
            )
        embed_samples([sample], teacher, task.shape, task.image_tokens)
    return write_shard(task.data, f"{task.index:06d}", encode(samples, task.shape), task.options)


def embed_samples(samples: Sequence[Sample], teacher: Teacher, shape: SampleShape, tokens: bool) -> None:
    """Fill the samples' embeddings in place; captions beyond C and S are not embedded.

    Args:
        samples: whose pictures go through the teacher together.
        tokens: keep the teacher's patch tokens too.
    """
    jpegs = [jpeg for sample in samples for jpeg in sample.colour]
    images = np.stack([np.asarray(Image.open(io.BytesIO(jpeg)).convert("RGB")) for jpeg in jpegs])
    if tokens:
        image_features, image_tokens = teacher.image_tokens(images)
    else:
        image_features = teacher.encode_images(images)
    views = [[captions[: shape.captions] for captions in sample.view_captions] for sample in samples]
    scenes = [sample.scene_captions[: shape.scene_captions] for sample in samples]
    of_views = iter(teacher.encode_texts([text for sample in views for view in sample for text in view]))
    said = [text for scene in scenes for text in scene]
    of_scenes = iter(teacher.encode_texts(said, long=teacher.kind == FGCLIP))
    for i, sample in enumerate(samples):
        own = slice(i * shape.views, (i + 1) * shape.views)
        sample.image_embedding = image_features[own]
        if tokens:
            sample.image_tokens = image_tokens[own]
        padded = [_padded(view, of_views, shape.captions, shape) for view in views[i]]
        sample.caption_embedding = np.stack(padded)
        sample.scene_caption_embedding = _padded(scenes[i], of_scenes, shape.scene_captions, shape)


def _padded(
    texts: Sequence[str], features: Iterator[np.ndarray], size: int, shape: SampleShape
) -> np.ndarray:
    """float16 [size, E]: one feature per text, zeros after them."""
    out = np.zeros((size, shape.embedding), np.float16)
    for i, _ in enumerate(texts):
        out[i] = next(features)
    return out
