"""Samples that were stored broken, in the real model: found, left out, written down, and training goes on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from jobs.cli import main
from jobs.common.datasets import open_dataset
from plinth.data import manifest as manifests
from plinth.data.config import ShardOptions
from plinth.data.manifest import Manifest
from plinth.data.shards import write_shard
from plinth.observe import incidents
from plinth.observe.step_lines import read_lines
from plinth.storage import Storage, StorageOptions
from poma3d.sample import Sample, encode
from tests.helpers.tiny_jobs import make_data, pretrain_job, write

pytestmark = pytest.mark.slow


def infinite_embedding(sample: Sample) -> Sample:
    return replace(sample, image_embedding=np.full_like(sample.image_embedding, np.inf))


def nan_pose(sample: Sample) -> Sample:
    return replace(sample, pose=np.full_like(sample.pose, np.nan))


def poison(uri: str, change: Callable[[Sample], Sample], victim: int) -> str:
    """Store one sample of a data set broken; returns its id."""
    dataset = open_dataset(uri, StorageOptions())
    samples = dataset.samples()
    samples[victim] = change(samples[victim])
    entries, start = [], 0
    for index, shard in enumerate(dataset.manifest.shards):
        table = encode(samples[start : start + shard.rows], dataset.shape)
        entries.append(write_shard(dataset.storage, f"{index:06d}-p", table, ShardOptions(row_group_rows=2)))
        start += shard.rows
    manifests.commit(dataset.storage, Manifest(entries, dataset.manifest.attributes))
    return samples[victim].sample_id


@pytest.mark.parametrize(
    ("stage", "data", "change"), [("warmup", "images", infinite_embedding), ("main", "rooms", nan_pose)]
)
def test_one_broken_sample_is_left_out(
    tmp_path: Path, stage: str, data: str, change: Callable[[Sample], Sample]
) -> None:
    make_data(tmp_path)
    bad = poison(str(tmp_path / data), change, 3)
    assert main(["pretrain", write(tmp_path / "job.yaml", pretrain_job(tmp_path))]) == 0
    run = Storage.from_uri(tmp_path / "runs" / "run")
    (incident,) = incidents.read_all(run.child(stage))
    assert incident.sample_ids == [bad]
    assert not incident.whole_batch
    assert incident.locations[0]["shard_uri"].startswith(str(tmp_path / data))
    for name in ("warmup", "main"):
        losses = [line["loss"] for line in read_lines(run.child(name))]
        assert len(losses) == 4
        assert np.isfinite(losses).all()


def test_told_to_stop_it_does(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_data(tmp_path)
    bad = poison(str(tmp_path / "images"), infinite_embedding, 3)
    job = write(tmp_path / "job.yaml", pretrain_job(tmp_path))
    assert main(["pretrain", job, "guard.on_bad_step=stop"]) == 2
    assert bad in capsys.readouterr().err
