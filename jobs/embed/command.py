"""`poma embed`: a frozen teacher's embeddings of images and captions, next to the geometry.

The teacher runs once per data set, not once per step. Geometry, captions and ids stay as they are; the
manifest then names the teacher and its revision, and training refuses any other.
"""

from __future__ import annotations

import argparse
import io
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from PIL import Image

from jobs.common import models
from jobs.common.cluster import USUAL_WORKERS, chosen_workers, map_tasks, ray_cluster
from jobs.common.datasets import Dataset, open_dataset
from jobs.common.devices import own_device
from jobs.display.text import some
from jobs.embed.config import EmbedJob
from jobs.jobfile import asked
from plinth.data import manifest as manifests
from plinth.data.manifest import Manifest, ShardEntry
from plinth.data.shards import RowGroupReader, refuse_incomplete, write_shard
from plinth.errors import DataError
from plinth.storage import Storage
from poma3d.pretrained.config import FGCLIP, TeacherRecord
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
    (dataset,) = embed([job])
    print(f"{dataset.storage.uri}: embedded by {dataset.teacher}")
    return 0


@dataclass(frozen=True)
class _Embedding:
    """A data set that is to be embedded."""

    job: EmbedJob
    dataset: Dataset
    shape: SampleShape
    record: TeacherRecord

    def tasks(self) -> list[EmbedTask]:
        """Its shards."""
        shards = enumerate(self.dataset.manifest.shards)
        return [
            EmbedTask(self.job, self.dataset.storage, self.shape, index, entry) for index, entry in shards
        ]


def embed(jobs: Sequence[EmbedJob]) -> list[Dataset]:
    """Rewrite the shards of each job's data with embeddings, then its manifest. Shards of several data sets
    that have the same number go through the teacher in one task, which embeds what they share once.

    Raises:
        DataError: no data set, no colour in it, or an empty caption.
        ConfigError: the teacher cannot be loaded.
    """
    found = [_done_or_planned(job) for job in jobs]
    planned = [one for one in found if isinstance(one, _Embedding)]
    groups: dict[tuple[int, TeacherRecord], list[EmbedTask]] = {}
    for one in planned:
        for task in one.tasks():
            groups.setdefault((task.index, one.record), []).append(task)
    entries: dict[str, list[ShardEntry]] = {one.dataset.storage.uri: [] for one in planned}
    if planned:
        first = planned[0].job
        each = {"CPU": 1.0, "GPU": first.gpus_per_worker}
        workers = first.workers
        if workers is None and first.gpus_per_worker == 0:
            workers = chosen_workers(None, len(groups), first.ray, "shard")
        workers = USUAL_WORKERS if workers is None else workers
        label = f"embed {some([*entries], most=1)}"
        unit = "shards" if len(planned) == 1 else "tasks"
        with ray_cluster(first.ray, workers):
            made = map_tasks(embed_shards, [*groups.values()], workers, each, label, unit)
        for tasks, of_tasks in zip(groups.values(), made, strict=True):
            for task, entry in zip(tasks, of_tasks, strict=True):
                entries[task.data.uri].append(entry)
    return [_commit(one, entries) if isinstance(one, _Embedding) else one for one in found]


def _done_or_planned(job: EmbedJob) -> Dataset | _Embedding:
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
    tower = models.open_teacher(job.teacher, job.storage).image_tower().shape
    shape = replace(
        dataset.shape,
        embedding=record.embedding,
        image_tokens=tower.patches if job.image_tokens else 0,
        token_width=tower.width if job.image_tokens else 0,
    )
    return _Embedding(job, dataset, shape, record)


def _commit(one: _Embedding, entries: Mapping[str, Sequence[ShardEntry]]) -> Dataset:
    storage = one.dataset.storage
    added = {"shape": one.shape.to_dict(), "teacher": asdict(one.record)}
    manifest = Manifest([*entries[storage.uri]], {**one.dataset.manifest.attributes, **added})
    manifests.commit(storage, manifest)
    manifests.prune(storage, manifest)
    return Dataset(storage, manifest)


def embed_shards(tasks: Sequence[EmbedTask]) -> list[ShardEntry]:
    """Shards with the embeddings of one teacher; new files, named by their content."""
    known: dict[Hashable, Any] | None = {} if len(tasks) > 1 else None
    return [_embed_shard(task, known) for task in tasks]


def _embed_shard(task: EmbedTask, known: dict[Hashable, Any] | None) -> ShardEntry:
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
        embed_samples(samples[start : start + together], teacher, task.shape, task.job.image_tokens, known)
    return write_shard(task.data, f"{task.index:06d}", encode(samples, task.shape), task.job.shards)


def embed_samples(
    samples: Sequence[Sample],
    teacher: Teacher,
    shape: SampleShape,
    tokens: bool,
    known: dict[Hashable, Any] | None = None,
) -> None:
    """Fill the samples' embeddings in place; captions beyond C and S are not embedded.

    Args:
        samples: whose pictures go through the teacher together.
        tokens: keep the teacher's patch tokens too.
        known: keeps what was embedded, so that the same pictures or texts together are embedded once.
    """
    jpegs = tuple(jpeg for sample in samples for jpeg in sample.colour)
    image_features, image_tokens = _once(known, (jpegs, tokens), lambda: _of_pictures(teacher, jpegs, tokens))
    views = [[captions[: shape.captions] for captions in sample.view_captions] for sample in samples]
    scenes = [sample.scene_captions[: shape.scene_captions] for sample in samples]
    of_view = _features(teacher, [captions for sample in views for captions in sample], known)
    of_scene = _features(teacher, scenes, known, long=teacher.kind == FGCLIP)
    for i, sample in enumerate(samples):
        own = slice(i * shape.views, (i + 1) * shape.views)
        sample.image_embedding = image_features[own]
        if tokens:
            sample.image_tokens = image_tokens[own]
        sample.caption_embedding = np.stack([_padded(each, shape.captions) for each in of_view[own]])
        sample.scene_caption_embedding = _padded(of_scene[i], shape.scene_captions)


def _of_pictures(teacher: Teacher, jpegs: Sequence[bytes], tokens: bool) -> tuple[np.ndarray, Any]:
    images = np.stack([np.asarray(Image.open(io.BytesIO(jpeg)).convert("RGB")) for jpeg in jpegs])
    return teacher.image_tokens(images) if tokens else (teacher.encode_images(images), None)


def _features(
    teacher: Teacher,
    groups: Sequence[Sequence[str]],
    known: dict[Hashable, Any] | None,
    long: bool = False,
) -> list[np.ndarray]:
    """float16 [n, E] for each group of n texts; all texts go through the teacher together."""
    texts = tuple(text for group in groups for text in group)
    features = _once(known, (texts, long), lambda: teacher.encode_texts(texts, long=long))
    return np.split(features, np.cumsum([len(group) for group in groups])[:-1])


def _once(known: dict[Hashable, Any] | None, key: Hashable, make: Callable[[], Any]) -> Any:
    if known is None:
        return make()
    if key not in known:
        known[key] = make()
    return known[key]


def _padded(features: np.ndarray, size: int) -> np.ndarray:
    """float16 [size, E]: the features [n, E], zeros after them."""
    return np.pad(features.astype(np.float16), ((0, size - len(features)), (0, 0)))
