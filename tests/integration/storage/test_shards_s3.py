"""Data sets on a real S3 server: the same rows as from a local folder, by threads and by Ray Data."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import ray
import torch

from plinth.data import manifest
from plinth.data.config import DataConfig, ReaderKind, SourceConfig
from plinth.data.plan import Cursor
from plinth.data.shards import verify
from plinth.data.sources import OpenSource, open_sources
from plinth.errors import DataError, StorageError
from plinth.world import World
from tests.helpers.datasets import COLUMNS, make_data_set, take
from tests.integration.conftest import S3Server

pytestmark = pytest.mark.slow

ALONE = World(0, 1)
STEPS = 9  # two epochs
THREADS = DataConfig(lanes=4, window_row_groups=2, reader=ReaderKind.threads)
RAY = replace(THREADS, reader=ReaderKind.ray)


@pytest.fixture(scope="module")
def local_ray(s3_server: S3Server) -> Iterator[None]:
    """Ray, started after the keys are in the environment: its workers see what is there at its start."""
    ray.init(address="local", num_cpus=2, object_store_memory=256 << 20, log_to_driver=False)
    yield
    ray.shutdown()


@pytest.fixture
def source(s3_server: S3Server) -> OpenSource:
    return make_data_set(s3_server.bucket().child("toy"))


@pytest.mark.parametrize("config", [THREADS, RAY], ids=["threads", "ray"])
def test_s3_stream_gives_the_same_batches_as_a_folder(
    source: OpenSource, config: DataConfig, tmp_path: Path, local_ray: None
) -> None:
    local = make_data_set(tmp_path)
    assert source.manifest == local.manifest
    assert source.manifest.hash == local.manifest.hash
    assert verify(source.storage, source.manifest) == []
    expected = take([local], THREADS, ALONE, Cursor(), STEPS)
    got = take([source], config, ALONE, Cursor(), STEPS)
    for a, b in zip(got, expected, strict=True):
        assert a.sample_ids == b.sample_ids
        assert a.cursor == b.cursor
        assert all(torch.equal(a.tensors[name], b.tensors[name]) for name in (*COLUMNS, "sample_valid"))


@pytest.mark.parametrize("config", [THREADS, RAY], ids=["threads", "ray"])
def test_truncated_shard_on_s3_is_named(source: OpenSource, config: DataConfig, local_ray: None) -> None:
    shard = source.manifest.shards[1]
    source.storage.write(shard.name, source.storage.read(shard.name)[: shard.size_bytes // 2])
    assert [(p.shard, p.kind) for p in verify(source.storage, source.manifest)] == [(shard.name, "truncated")]
    with pytest.raises(DataError, match=rf"s3://.*/toy/{shard.name}, footer: truncated"):
        take([source], config, ALONE, Cursor(), STEPS)


def test_unreachable_data_set_is_one_line(
    source: OpenSource, s3_server: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What `poma pretrain` opens first says in one line why it cannot."""
    monkeypatch.setenv("WRONG", "wrong")
    wrong = replace(s3_server.options, secret_key_env="WRONG")
    job = DataConfig(sources=[SourceConfig(source.storage.uri)])
    assert open_sources(job, s3_server.options)[0].manifest == source.manifest
    with pytest.raises(StorageError, match="the secret key is wrong"):
        open_sources(job, wrong)
    with pytest.raises(StorageError, match="the bucket does not exist"):
        open_sources(DataConfig(sources=[SourceConfig("s3://no-such-bucket/toy")]), s3_server.options)
    empty = SourceConfig(f"{source.storage.uri}-other")
    with pytest.raises(DataError, match=r"toy-other is not a finished data set: there is no MANIFEST.json"):
        open_sources(DataConfig(sources=[empty]), s3_server.options)


def test_rewritten_data_set_replaces_the_manifest_and_prunes_old_shards(source: OpenSource) -> None:
    """The new data set takes the place of the old one with one object."""
    new = make_data_set(source.storage, (8, 8), name="new")
    assert manifest.load(source.storage) == new.manifest
    assert verify(source.storage, source.manifest) == [], "the old shards are still there"
    removed = manifest.prune(source.storage, new.manifest)
    assert sorted(removed) == sorted(shard.name for shard in source.manifest.shards)
    assert verify(new.storage, new.manifest) == []
