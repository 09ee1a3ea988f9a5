"""`poma caption`: a data set that keeps its colour -> the same with captions from a vision-language model.

    read the pictures of a shard -> several captions per view -> the best by the teacher's cosine
        -> the scene's caption: annotation, else a summary -> embed -> shard -> commit -> manifest

It works on shards because they hold exactly the views that a sample has: of a scan's thousands of frames, the
32 that were chosen; of images, those that passed the gates. The data set that is read stays as it is. Kill
it at any time and run the same command: shards with a commit are not made again, and shards that the data set
got since are added. A data set that keeps its builds gives one that keeps them under the same numbers.
"""

from __future__ import annotations

import argparse
import json
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from typing import Any

from jobs.caption import captioners
from jobs.caption.config import CaptionJob
from jobs.caption.tasks import (
    COMMITS,
    NO_CAPTION,
    CaptionWork,
    caption_shard,
    commit_key,
    load_commit,
    open_models,
)
from jobs.common import models
from jobs.common.cluster import ray_cluster
from jobs.common.datasets import Dataset, add_statistics, open_dataset
from jobs.common.objects import digest, read_many, to_csv
from jobs.common.ray_data import Pool, make_shards
from jobs.display.rejects import OF_VIEWS, REJECTS_FILE, last_line
from jobs.jobfile import asked
from plinth.data import manifest as manifests
from plinth.data.manifest import Manifest
from plinth.data.shards import RowGroupReader, refuse_incomplete
from plinth.errors import ConfigError, DataError
from plinth.locations import absolute
from plinth.storage import MissingKeyError, Storage, StorageOptions
from plinth.storage.lock import RunLock
from poma3d.pretrained.config import TeacherRecord
from poma3d.scenes.annotations import captions_of, read_scene_captions
from poma3d.scenes.frame import Reject

OF_A_BUILD = ("build", "plans", "pieces", "previous")
"""Attributes that say how the data set that is read was built."""
REQUESTS = 16


def run(arguments: argparse.Namespace) -> int:
    """Caption the data set and say what was written; returns the exit code."""
    return run_job(asked(CaptionJob, arguments))


def run_job(job: CaptionJob) -> int:
    """The same for a job that was read before."""
    start = time.monotonic()
    dataset = caption(job)
    counts = dataset.manifest.attributes["captions"]["counts"]
    stats = dataset.manifest.attributes["statistics"]
    print(
        f"{dataset.storage.uri}: {stats['view_captions']} captions of {stats['views']} views, "
        f"{stats['scene_captions']} of scenes; {counts.get('views', 0)} views were described with "
        f"{counts.get('candidates', 0)} captions to choose from, "
        f"{counts.get('scenes_annotated', 0)} scenes took their annotation, "
        f"{counts.get('scenes_summarised', 0)} were summarised, in "
        f"{time.monotonic() - start:.0f} s"
    )
    if without := counts.get("views_without_caption", 0):
        print(last_line(Counter({NO_CAPTION: without}), OF_VIEWS, REJECTS_FILE))
    return 0


def caption(job: CaptionJob) -> Dataset:
    """Caption the data set of `job`; what needs no cluster is checked before one starts.

    Raises:
        ConfigError: a value that cannot be, a model that cannot be loaded, or another data set at the output.
        DataError: no data set, no colour in it, or annotations of other scenes.
    """
    job.validate()
    job = absolute(job)
    data = open_dataset(job.data, job.storage)
    output = Storage.from_uri(job.output, job.storage)
    if output.uri == data.storage.uri:
        raise ConfigError("output is the data set that is read.", "Give another folder: that one stays.")
    output.check(write=True)
    work, recipe, record = _work(job, data, output)
    before = _before(output, recipe)
    if before is not None and before.attributes["captions"]["data"] == data.manifest.hash:
        refuse_incomplete(output, before, "Restore them, or give another output.")
        print(f"{output.uri}: already captioned by this job")
        return Dataset(output, before)
    with RunLock(output, job.lock):
        with ray_cluster(job.ray, job.workers):
            pool = Pool(job.workers, job.cpus_per_worker, job.gpus_per_worker)
            label = f"caption {work.data.uri}"
            make_shards(work, data.manifest.shards, caption_shard, open_models, pool, COMMITS, label)
        return _commit(work, data, recipe, record)


def _work(
    job: CaptionJob, data: Dataset, output: Storage
) -> tuple[CaptionWork, dict[str, Any], TeacherRecord]:
    record = models.record(job.teacher, job.storage)
    annotations, content = _annotations(job.annotations, data, job.storage)
    recipe = job.recipe() | {"teacher": asdict(record), "annotations": content}
    if job.captioner is not None:
        recipe["captioner"]["revision"] = captioners.revision(job.captioner, job.storage)
    shape = replace(
        data.shape, captions=job.captions, scene_captions=job.scene_captions, embedding=record.embedding
    )
    if shape.image_tokens:
        tower = models.open_teacher(job.teacher, job.storage).image_tower().shape
        shape = replace(shape, image_tokens=tower.patches, token_width=tower.width)
    work = CaptionWork(job, data.storage, output, digest(recipe), shape, annotations)
    return work, recipe, record


def _annotations(
    uri: str | None, data: Dataset, options: StorageOptions
) -> tuple[dict[str, list[str]], str | None]:
    """Scene captions by scene id, and the hash of what they say.

    Raises:
        ConfigError: no such file.
        DataError: not a file of scene captions, or of none of the scenes.
    """
    if uri is None:
        return {}, None
    folder, slash, name = uri.rpartition("/")
    try:
        found = read_scene_captions(Storage.from_uri(folder or slash or ".", options).read(name))
    except MissingKeyError:
        raise ConfigError(f"annotations: {uri} does not exist.", "Check the path.") from None
    except ValueError as error:
        raise DataError(f"annotations: {uri}: {error}.", "Give a file such as scene_cap.json.") from None
    scenes = _scene_ids(data)
    matched = sum(bool(captions_of(scene, found)) for scene in scenes)
    if not matched:
        theirs = next(iter(found), "none at all")
        raise DataError(
            f"annotations: {uri} has no caption for any of the {len(scenes)} scenes of {data.storage.uri}: "
            f"its ids are such as {theirs}, the scenes' such as {scenes[0]}.",
            "Give the file of this source.",
        )
    print(f"{uri}: captions of {matched} of the {len(scenes)} scenes")
    return found, digest(found)


def _scene_ids(data: Dataset) -> list[str]:
    reader = RowGroupReader(data.storage)
    groups = [(s, g) for s in data.manifest.shards for g in range(len(s.row_group_rows))]
    with ThreadPoolExecutor(REQUESTS) as pool:
        tables = pool.map(lambda at: reader.read(at[0], at[1], ["scene_id"]), groups)
        return [scene for table in tables for scene in table["scene_id"].to_pylist()]


def _before(output: Storage, recipe: dict[str, Any]) -> Manifest | None:
    """What the job made before; None at its first run.

    Raises:
        ConfigError: the output holds another data set.
    """
    if not output.exists(manifests.MANIFEST_KEY):
        return None
    found = manifests.load(output)
    if models.settle_revisions(found.attributes.get("recipe"), recipe) != json.loads(json.dumps(recipe)):
        raise ConfigError(
            f"{output.uri} holds a data set that another job built.",
            "Give another output: all samples of a data set are captioned alike.",
        )
    return found


def _commit(work: CaptionWork, data: Dataset, recipe: dict[str, Any], record: TeacherRecord) -> Dataset:
    """The manifest of what the shards became; beside it as a version, where the data set has any."""
    keys = [commit_key(work.name(entry)) for entry in data.manifest.shards]
    made = [load_commit(content) for content in read_many(work.output, keys)]
    counts: Counter[str] = Counter()
    for commit in made:
        counts.update(commit.counts)
    before = data.manifest.attributes
    manifest = Manifest(
        [commit.shard for commit in made],
        {
            **{k: v for k, v in before.items() if k not in OF_A_BUILD},
            "shape": work.shape.to_dict(),
            "teacher": asdict(record),
            "statistics": before["statistics"] | add_statistics([commit.statistics for commit in made]),
            "recipe": recipe,
            "captions": {"data": data.manifest.hash, "uri": data.storage.uri, "counts": dict(counts)},
        },
    )
    rejects = to_csv(Reject, [reject for commit in made for reject in commit.rejects])
    work.output.write(REJECTS_FILE, rejects)
    version = before.get("version")
    if version is not None:
        folder = work.output.child(manifests.version_folder(version))
        folder.write(REJECTS_FILE, rejects)
        manifests.commit(folder, manifest)
    if version is None or version == manifests.versions(work.output)[-1]:
        manifests.commit(work.output, manifest)
    return Dataset(work.output, manifest)
