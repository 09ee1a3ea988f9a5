"""`poma embed`: a frozen teacher's embeddings of images and captions, next to the geometry.

The teacher runs once per data set, not once per step. Geometry, captions and ids stay as they are; the
manifest then names the teacher and its revision, and training refuses any other.
"""

from __future__ import annotations

import argparse
import io
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace

import numpy as np
from PIL import Image

from jobs.common import models
from jobs.common.cluster import USUAL_WORKERS, chosen_workers, map_tasks, ray_cluster
from jobs.common.datasets import Dataset, open_dataset
from jobs.common.devices import own_device
from jobs.embed.config import EmbedJob
from jobs.jobfile import asked
from plinth.data import manifest as manifests
from plinth.data.manifest import Manifest, ShardEntry
from plinth.data.shards import RowGroupReader, refuse_incomplete, write_shard
from plinth.errors import DataError
from plinth.storage import Storage
from poma3d.pretrained.config import FGCLIP
from poma3d.pretrained.teacher import Teacher
from poma3d.sample import Sample, SampleShape, encode, to_samples


@dataclass(frozen=True)
class EmbedTask:
    """One shard to be rewritten."""

    job: EmbedJob
    data: Storage
    shape: SampleShape
    index: int
    entry: ShardEntry


def run(arguments: argparse.Namespace) -> int:
    """Embed the data set and say with what; returns the exit code."""
    return run_job(asked(EmbedJob, arguments))


def run_job(job: EmbedJob) -> int:
    """The same for a job that was read before."""
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
        refuse_incomplete(dataset.storage, dataset.manifest, "Restore them, or build the data set again.")
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
    shards = dataset.manifest.shards
    tasks = [EmbedTask(job, dataset.storage, shape, index, entry) for index, entry in enumerate(shards)]
    each = {"CPU": 1.0, "GPU": job.gpus_per_worker}
    workers = job.workers
    if workers is None and job.gpus_per_worker == 0:
        workers = chosen_workers(None, len(tasks), job.ray, "shard")
    workers = USUAL_WORKERS if workers is None else workers
    with ray_cluster(job.ray, workers):
        entries = map_tasks(embed_shard, tasks, workers, each, f"embed {dataset.storage.uri}", "shards")
    attributes = {**dataset.manifest.attributes, "shape": shape.to_dict(), "teacher": asdict(record)}
    manifest = Manifest(entries, attributes)
    manifests.commit(dataset.storage, manifest)
    manifests.prune(dataset.storage, manifest)
    return Dataset(dataset.storage, manifest)


def embed_shard(task: EmbedTask) -> ShardEntry:
    """One shard with the teacher's embeddings; a new file, named by its content."""
    teacher = models.open_teacher(task.job.teacher, task.job.storage, own_device())
    samples = to_samples(RowGroupReader(task.data).read_shard(task.entry))
    for sample in samples:
        if len(sample.colour) != task.shape.views:
            raise DataError(
                f"{task.data.uri}: scene {sample.scene_id} keeps {len(sample.colour)} colour images for "
                f"{task.shape.views} views.",
                "The teacher needs them all: ingest again with views.colour=true.",
            )
    together = max(1, task.job.teacher.batch_size // task.shape.views)
    for start in range(0, len(samples), together):
        embed_samples(samples[start : start + together], teacher, task.shape, task.job.image_tokens)
    return write_shard(task.data, f"{task.index:06d}", encode(samples, task.shape), task.job.shards)


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
    of_view = _features(teacher, [captions for sample in views for captions in sample])
    of_scene = _features(teacher, scenes, long=teacher.kind == FGCLIP)
    for i, sample in enumerate(samples):
        own = slice(i * shape.views, (i + 1) * shape.views)
        sample.image_embedding = image_features[own]
        if tokens:
            sample.image_tokens = image_tokens[own]
        sample.caption_embedding = np.stack([_padded(each, shape.captions) for each in of_view[own]])
        sample.scene_caption_embedding = _padded(of_scene[i], shape.scene_captions)


def _features(teacher: Teacher, groups: Sequence[Sequence[str]], long: bool = False) -> list[np.ndarray]:
    """float16 [n, E] for each group of n texts; all texts go through the teacher together."""
    features = teacher.encode_texts([text for group in groups for text in group], long=long)
    return np.split(features, np.cumsum([len(group) for group in groups])[:-1])


def _padded(features: np.ndarray, size: int) -> np.ndarray:
    """float16 [size, E]: the features [n, E], zeros after them."""
    return np.pad(features.astype(np.float16), ((0, size - len(features)), (0, 0)))
