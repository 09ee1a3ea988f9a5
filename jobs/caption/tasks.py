"""The work on one shard: pictures -> captions -> the best of them -> embeddings -> a shard, then a commit."""

from __future__ import annotations

import io
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from PIL import Image

from jobs.caption import captioners
from jobs.caption.config import CaptionJob, Existing
from jobs.common import models as teachers
from jobs.common.datasets import statistics
from jobs.common.devices import own_device
from jobs.embed.command import embed_samples
from plinth.data.manifest import ShardEntry
from plinth.data.shards import RowGroupReader, write_shard
from plinth.digests import text_digest
from plinth.errors import ConfigError, DataError
from plinth.storage import Storage
from poma3d.pretrained.captioner import Captioner, keep_best
from poma3d.pretrained.teacher import Teacher
from poma3d.sample import Sample, SampleShape, encode, to_samples
from poma3d.scenes.annotations import captions_of
from poma3d.scenes.frame import Reject

COMMITS = "caption/commits"
NAME_BYTES = 12
NO_CAPTION, NO_WORDS = "no caption", "the model had no words for it"


@dataclass(frozen=True)
class CaptionWork:
    """What all shards of a job share."""

    job: CaptionJob
    """With absolute paths."""
    data: Storage
    output: Storage
    recipe: str
    """Fingerprint of what decides the captions."""
    shape: SampleShape
    """Counts over the captioned samples."""
    annotations: dict[str, list[str]]
    """Scene captions by scene id."""

    def name(self, entry: ShardEntry) -> str:
        """Hash of all that decides what a shard becomes."""
        return text_digest(f"{self.recipe} {entry.sha256}", NAME_BYTES)


@dataclass
class Models:
    """The models of a process."""

    captioner: Captioner | None
    teacher: Teacher


def open_models(work: CaptionWork) -> Models:
    """Both models of a job, loaded once per process.

    Raises:
        ConfigError: one cannot be loaded.
    """
    job = work.job
    captioner = captioners.open_captioner(job.captioner, job.storage) if job.captioner else None
    return Models(captioner, teachers.open_teacher(job.teacher, job.storage, own_device()))


def commit_key(name: str) -> str:
    """Where it is written that a shard is done."""
    return f"{COMMITS}/{name}.json"


def caption_shard(work: CaptionWork, entry: ShardEntry) -> str:
    """Caption the samples of a shard, write them, then the commit; returns its name.

    Raises:
        DataError: samples without colour.
        ConfigError: a picture that does not fit into the device's memory.
    """
    models = open_models(work)
    samples = to_samples(RowGroupReader(work.data).read_shard(entry))
    counts: Counter[str] = Counter()
    rejects: list[Reject] = []
    for sample in samples:
        pictures = _pictures(sample, work)
        try:
            rejects += _caption_views(sample, pictures, work, models, counts)
            _caption_scene(sample, work, models, counts)
        except ValueError as error:
            raise ConfigError(f"{error}.") from None
        embed_samples([sample], models.teacher, work.shape, tokens=work.shape.image_tokens > 0)
    name = work.name(entry)
    shard = write_shard(work.output, name, encode(samples, work.shape), work.job.shards)
    commit = {
        "shard": asdict(shard),
        "statistics": statistics(samples),
        "counts": dict(counts),
        "rejects": [asdict(reject) for reject in rejects],
    }
    work.output.write(commit_key(name), json.dumps(commit).encode())
    return name


@dataclass(frozen=True)
class Commit:
    """What became of a shard."""

    shard: ShardEntry
    statistics: dict[str, Any]
    counts: dict[str, int]
    """What was done to its captions."""
    rejects: list[Reject]
    """Views without a caption."""


def load_commit(content: bytes) -> Commit:
    """A shard that is done."""
    found = json.loads(content)
    rejects = found.get("rejects", [])  # commits from before there were any do not say
    return Commit(
        ShardEntry(**found["shard"]),
        found["statistics"],
        found["counts"],
        [Reject(**reject) for reject in rejects],
    )


def _pictures(sample: Sample, work: CaptionWork) -> list[np.ndarray]:
    if len(sample.colour) != len(sample.view_captions):
        raise DataError(
            f"{work.data.uri}: scene {sample.scene_id} keeps {len(sample.colour)} colour images for "
            f"{len(sample.view_captions)} views.",
            "Captions are written from pictures: build it again with views.colour or convention.colour on.",
        )
    return [np.asarray(Image.open(io.BytesIO(jpeg)).convert("RGB")) for jpeg in sample.colour]


def _caption_views(
    sample: Sample, pictures: Sequence[np.ndarray], work: CaptionWork, models: Models, counts: Counter[str]
) -> list[Reject]:
    """New captions for the views that want any; a repeat has those of the view that it repeats.

    Returns:
        The views for which the model had no words.
    """
    if models.captioner is None:
        return []
    first: dict[bytes, int] = {}
    for view, jpeg in enumerate(sample.colour):
        first.setdefault(jpeg, view)
    had = sample.view_captions
    asked = [v for v in first.values() if work.job.existing is not Existing.keep or not had[v]]
    if asked:
        shown = [pictures[view] for view in asked]
        new = models.captioner.describe(shown, sample.sample_id)
        old = [had[view] if work.job.existing is Existing.compare else [] for view in asked]
        candidates = [list(dict.fromkeys([*before, *after])) for before, after in zip(old, new, strict=True)]
        counts["views"] += len(asked)
        counts["candidates"] += sum(map(len, candidates))
        best = _best(shown, candidates, models.teacher, work.shape.captions)
        for view, captions in zip(asked, best, strict=True):
            sample.view_captions[view] = captions or had[view]
    sample.view_captions = [list(sample.view_captions[first[jpeg]]) for jpeg in sample.colour]
    without = [view for view in first.values() if not sample.view_captions[view]]
    counts["views_without_caption"] += len(without)
    return [Reject(sample.scene_id, f"view {view}", NO_CAPTION, NO_WORDS) for view in without]


def _best(
    pictures: Sequence[np.ndarray], candidates: Sequence[list[str]], teacher: Teacher, count: int
) -> list[list[str]]:
    """The captions of each picture that fit it best by the teacher's cosine; none where there are none."""
    kept = []
    for texts, feature in zip(candidates, teacher.encode_images(np.stack(pictures)), strict=True):
        scores = teacher.encode_texts(texts).astype(np.float32) @ feature.astype(np.float32)
        kept.append(keep_best(texts, scores, count) if texts else [])
    return kept


def _caption_scene(sample: Sample, work: CaptionWork, models: Models, counts: Counter[str]) -> None:
    """The annotation's captions of the scene, else a summary of its views'."""
    had, known = list(sample.scene_captions), captions_of(sample.scene_id, work.annotations)
    counts["scenes_in_annotations"] += bool(known)
    if had and work.job.existing is Existing.keep:
        return
    new = known
    if not new and work.job.summarise and models.captioner is not None and work.shape.views > 1:
        views = [captions[0] for captions in sample.view_captions if captions]
        new = models.captioner.summarise(views, sample.sample_id) if views else []
        counts["scenes_summarised"] += bool(new)
    counts["scenes_annotated"] += bool(known)
    kept = had if work.job.existing is Existing.compare or not new else []
    sample.scene_captions = list(dict.fromkeys([*new, *kept]))[: work.shape.scene_captions]
