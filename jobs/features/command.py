"""`poma features`: a data set of scenes -> the features of a frozen encoder, once, for all heads.

    read the geometry of a shard -> encoder -> shard of features -> commit -> manifest

Kill it at any time and run the same command: shards with a commit are not made again, and shards that the
data set got since are added. A data set that keeps its builds gives one that keeps them under the same
numbers. The manifest names the encoder by a hash of its weights, and heads refuse the features of another
one.
"""

from __future__ import annotations

import argparse
import json
import time
from typing import Any

from jobs.common import models
from jobs.common.cluster import ray_cluster
from jobs.common.datasets import Dataset, open_dataset
from jobs.common.objects import digest, read_many
from jobs.common.ray_data import Pool, make_shards
from jobs.features.config import FeaturesJob
from jobs.features.sets import KIND
from jobs.features.tasks import COMMITS, FeatureWork, commit_key, encode_shard, load, open_encoder
from jobs.jobfile import asked
from plinth.data import manifest as manifests
from plinth.data.manifest import Manifest, ShardEntry
from plinth.data.shards import refuse_incomplete
from plinth.errors import ConfigError
from plinth.locations import absolute
from plinth.storage import Storage
from plinth.storage.lock import RunLock
from poma3d.export import weights_digest
from poma3d.heads.features import SCHEMA_VERSION, FeatureShape


def run(arguments: argparse.Namespace) -> int:
    """Encode the data set and say what was written; returns the exit code."""
    return run_job(asked(FeaturesJob, arguments))


def run_job(job: FeaturesJob) -> int:
    """The same for a job that was read before."""
    start = time.monotonic()
    storage, manifest, made = features(job)
    stats = manifest.attributes["statistics"]
    took = (
        f" in {time.monotonic() - start:.0f} s, {made:.0%} of it in the encoder" if made else ": done already"
    )
    print(f"{storage.uri}: {stats['views']} views of {stats['scenes']} scenes{took}")
    return 0


def features(job: FeaturesJob) -> tuple[Storage, Manifest, float | None]:
    """Encode the data set of `job`; what needs no cluster is checked before one starts.

    Returns:
        Where the features are, their manifest, and the share of the workers' time that the encoder was busy;
        None when nothing was left to do.

    Raises:
        ConfigError: a value that cannot be, or features of another encoder or data set at the output.
        CheckpointError: no encoder there.
        DataError: no data set there.
    """
    job.validate()
    job = absolute(job)
    data = open_dataset(job.data, job.storage)
    output = Storage.from_uri(job.output, job.storage)
    if output.uri == data.storage.uri:
        raise ConfigError("output is the data set that is read.", "Give another folder: that one stays.")
    output.check(write=True)
    work, attributes = _work(job, data, output)
    before = _before(output, attributes["recipe"])
    if before is not None and before.attributes["data"]["manifest"] == data.manifest.hash:
        refuse_incomplete(output, before, "Restore them, or give another output.")
        return output, before, None
    if before is not None and (theirs := before.attributes["data"]["uri"]) != data.storage.uri:
        raise ConfigError(
            f"{output.uri} holds the features of {theirs}, and data is {data.storage.uri}.",
            "Give another output: one holds the features of one data set, which may get more scenes where it "
            "is.",
        )
    with RunLock(output, job.lock):
        with ray_cluster(job.ray, job.workers):
            pool = Pool(job.workers, job.cpus_per_worker, job.gpus_per_worker)
            label = f"features of {work.data.uri}"
            make_shards(work, data.manifest.shards, encode_shard, load, pool, COMMITS, label)
        return output, *_commit(work, data, attributes)


def _work(job: FeaturesJob, data: Dataset, output: Storage) -> tuple[FeatureWork, dict[str, Any]]:
    encoder = open_encoder(job, data.shape)
    found = weights_digest(encoder)
    vit = encoder.vit.shape
    if vit.image_size != (data.shape.height, data.shape.width):
        raise ConfigError(
            f"The encoder takes views of {vit.image_size} pixels, {data.storage.uri} has "
            f"{(data.shape.height, data.shape.width)}.",
            "Ingest the scenes at the encoder's size.",
        )
    shape = FeatureShape(
        data.shape.views,
        vit.joint,
        vit.patches if job.patches else 0,
        vit.width if job.patches else 0,
    )
    recipe = {"encoder": found, "patches": job.patches, "schema_version": SCHEMA_VERSION}
    origin = encoder.provenance
    attributes = {
        "schema_version": SCHEMA_VERSION,
        "kind": KIND,
        "shape": shape.to_dict(),
        "source": data.manifest.attributes["source"],
        "teacher": None,
        "encoder": {
            "digest": found,
            "weights": job.weights.value,
            "run": origin.run or job.encoder,
            "teacher": origin.teacher,
            "teacher_revision": origin.teacher_revision,
        },
        "recipe": recipe,
    }
    return FeatureWork(job, data.storage, output, digest(recipe), found, data.shape, shape), attributes


def _before(output: Storage, recipe: dict[str, Any]) -> Manifest | None:
    """What the job made before; None at its first run.

    Raises:
        ConfigError: the output holds another data set.
    """
    if not output.exists(manifests.MANIFEST_KEY):
        return None
    found = manifests.load(output)
    if models.settle_revisions(found.attributes.get("recipe"), recipe) != recipe:
        raise ConfigError(
            f"{output.uri} holds another data set, or the features of another encoder.",
            "Give another output: all features of a data set are of one encoder.",
        )
    return found


def _commit(work: FeatureWork, data: Dataset, attributes: dict[str, Any]) -> tuple[Manifest, float]:
    """The manifest of what the shards became; beside it as a version, where the data set has any."""
    keys = [commit_key(work.name(entry)) for entry in data.manifest.shards]
    made = [json.loads(content) for content in read_many(work.output, keys)]
    attributes |= {
        "data": {"uri": data.storage.uri, "manifest": data.manifest.hash},
        "statistics": {name: sum(commit[name] for commit in made) for name in ("scenes", "views")},
    }
    version = data.manifest.attributes.get("version")
    if version is not None:
        attributes["version"] = version
    manifest = Manifest([ShardEntry(**commit["shard"]) for commit in made], attributes)
    if version is not None:
        manifests.commit(work.output.child(manifests.version_folder(version)), manifest)
    if version is None or version == manifests.versions(work.output)[-1]:
        manifests.commit(work.output, manifest)
    busy = sum(commit["encode_s"] for commit in made) / max(sum(commit["wall_s"] for commit in made), 1e-9)
    return manifest, busy
