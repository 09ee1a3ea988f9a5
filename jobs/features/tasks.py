"""The work on one shard: geometry -> encoder -> a shard of features, then its commit."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from jobs.common.devices import own_device
from jobs.common.ray_data import Loaded
from jobs.evaluate import encoders
from jobs.features.ahead import ahead
from jobs.features.batches import batches
from jobs.features.config import FeaturesJob, Weights
from plinth.data.manifest import ShardEntry
from plinth.data.shards import RowGroupReader, write_shard
from plinth.digests import text_digest
from plinth.errors import ConfigError, DataError
from plinth.storage import Storage
from poma3d.export import SceneEncoder, weights_digest
from poma3d.heads import features
from poma3d.heads.features import FeatureShape
from poma3d.sample import XYZ, SampleShape, decode

COMMITS = "features/commits"
NAME_BYTES = 12
BATCHES_AHEAD = 2
"""Decoded batches that wait for the encoder: it is busy while the next are read."""


@dataclass(frozen=True)
class FeatureWork:
    """What all shards of a job share."""

    job: FeaturesJob
    """With absolute paths."""
    data: Storage
    output: Storage
    recipe: str
    """Fingerprint of what decides the features."""
    digest: str
    """Hash of the encoder's weights."""
    samples: SampleShape
    shape: FeatureShape

    def name(self, entry: ShardEntry) -> str:
        """Hash of all that decides what a shard becomes."""
        return text_digest(f"{self.recipe} {entry.sha256}", NAME_BYTES)


def commit_key(name: str) -> str:
    """Where it is written that a shard is done."""
    return f"{COMMITS}/{name}.json"


def open_encoder(job: FeaturesJob, shape: SampleShape) -> SceneEncoder:
    """The encoder of a job, on the device of this process.

    Raises:
        CheckpointError: no encoder there.
        ConfigError: an exported encoder was asked for what it was before training.
    """
    if job.weights is Weights.trained:
        return encoders.load(job.encoder, job.storage, job.teacher, job.stage, job.step).to(own_device())
    return encoders.load_untrained(job.encoder, job.storage, shape, job.teacher).to(own_device())


def load(work: FeatureWork) -> SceneEncoder:
    """The encoder of a job, loaded once per process.

    Raises:
        ConfigError: the run went on since the job began.
    """
    return _loaded.get((work.recipe, work.output.uri), lambda: _checked(work))


_loaded: Loaded[SceneEncoder] = Loaded()


def _checked(work: FeatureWork) -> SceneEncoder:
    encoder = open_encoder(work.job, work.samples)
    if weights_digest(encoder) != work.digest:
        raise ConfigError(
            f"{work.job.encoder} has other weights than when this job began.",
            "Name the checkpoint with stage and step, or export the encoder.",
        )
    pa.array([b""])  # Arrow imports pandas at its first list: here, not while a shard waits
    return encoder


def encode_shard(work: FeatureWork, entry: ShardEntry) -> str:
    """Encode the scenes of a shard, write their features, then the commit; returns its name.

    Raises:
        DataError: features that are not finite.
    """
    encoder = load(work)
    began, encode_s = time.perf_counter(), 0.0
    strings = list(features.STRINGS)
    parts: dict[str, list[np.ndarray]] = {"views": [], "patches": [], "view_valid": []}
    ids: dict[str, list[str]] = {name: [] for name in strings}
    with closing(ahead(_scenes(work, entry), BATCHES_AHEAD)) as scenes:
        for table, arrays in scenes:
            since = time.perf_counter()
            found = _encode(encoder, {name: arrays[name] for name in work.samples.geometry})
            parts["views"].append(found.projected.cpu().numpy())
            if work.shape.patches:
                parts["patches"].append(found.tokens.float().cpu().numpy())
            encode_s += time.perf_counter() - since
            parts["view_valid"].append(arrays["view_valid"])
            for name in strings:
                ids[name] += table.column(name).to_pylist()
    made = {name: np.concatenate(found) for name, found in parts.items() if found}
    try:
        rows_table = features.encode(ids, made, work.shape)
    except ValueError as error:
        raise DataError(f"{work.data.uri}: {error}.", "The encoder may have diverged.") from None
    name = work.name(entry)
    shard = write_shard(work.output, name, rows_table, work.job.shards)
    commit = {
        "shard": asdict(shard),
        "scenes": len(set(ids["scene_id"])),
        "views": int(made["view_valid"].sum()),
        "encode_s": encode_s,
        "wall_s": time.perf_counter() - began,
    }
    work.output.write(commit_key(name), json.dumps(commit).encode())
    return name


def _scenes(work: FeatureWork, entry: ShardEntry) -> Iterator[tuple[pa.Table, dict[str, np.ndarray]]]:
    """The scenes of a shard in order, `batch_size` at a time, decoded."""
    tensors = [*work.samples.geometry, "view_valid"]
    columns = [*features.STRINGS, *tensors]
    for table in batches(RowGroupReader(work.data), entry, columns, work.job.batch_size):
        yield table, decode(table, tensors)


def _encode(encoder: SceneEncoder, arrays: dict[str, np.ndarray]) -> Any:
    device = next(encoder.parameters()).device
    tensors = {name: torch.from_numpy(np.array(array)).to(device) for name, array in arrays.items()}
    if XYZ in tensors:
        return encoder(tensors[XYZ].float())
    depth, scale, intrinsics, pose = (
        tensors[name] for name in ("depth", "depth_scale", "intrinsics", "pose")
    )
    return encoder.from_depth(depth, scale, intrinsics, pose)
