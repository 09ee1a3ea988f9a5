"""`poma lift` from and to an S3 store that misbehaves in its middle: the same data set, or an error and, with
the next command, the same data set."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from jobs.common.datasets import open_dataset
from jobs.lift import command as lift
from jobs.lift.config import LiftJob
from plinth import config
from plinth.data.shards import verify
from plinth.errors import StorageError
from plinth.storage import Storage
from tests.helpers.fault_proxy import Fault, FaultProxy, Kind
from tests.helpers.lift.image_sets import lift_job, write_photos_tar
from tests.integration.conftest import S3Server, storage_section

pytestmark = pytest.mark.slow
SEEDS = range(6)
PASSING = [
    Fault(Kind.truncated, method="GET", key="*/tars/*"),
    Fault(Kind.shortened, method="GET", key="*/tars/*"),
    Fault(Kind.internal_error, method="PUT", key="*/shards/*", count=2),
    Fault(Kind.flipped, method="PUT", key="*/shards/*", after=1),
    Fault(Kind.slow_down, method="PUT", key="*/lift/*", count=2),
    Fault(Kind.answer_lost, method="PUT", key="*/lift/commits/*", after=2),
    Fault(Kind.answer_lost, method="PUT", key="*MANIFEST*"),
]


@pytest.fixture(scope="module")
def bucket(s3_server: S3Server, tmp_path_factory: pytest.TempPathFactory) -> Storage:
    """With photos in it."""
    made = s3_server.bucket()
    path = tmp_path_factory.mktemp("photos") / "0.tar"
    write_photos_tar(path, SEEDS)
    made.upload(path, "tars/0.tar")
    return made


@pytest.fixture
def proxy(s3_server: S3Server) -> Iterator[FaultProxy]:
    with FaultProxy(s3_server.store.endpoint_url) as running:
        yield running


def job(bucket: Storage, name: str, through: FaultProxy | None = None) -> LiftJob:
    storage: dict[str, Any] = storage_section(bucket.options)
    if through is not None:
        storage |= {"endpoint_url": through.url, "retries": 3, "backoff_s": 0.01, "read_timeout_s": 2.0}
    changes = {"images_per_shard": 1, "storage": storage}
    wanted = lift_job(f"{bucket.uri}/{name}", [{"uri": f"{bucket.uri}/tars"}], **changes)
    return config.build(LiftJob, [("job", wanted)])


def shards(bucket: Storage, name: str) -> dict[str, bytes]:
    """Read past the proxy."""
    dataset = open_dataset(f"{bucket.uri}/{name}", bucket.options)
    assert verify(dataset.storage, dataset.manifest) == []
    return {shard.name: dataset.storage.read(shard.name) for shard in dataset.manifest.shards}


@pytest.fixture(scope="module")
def straight(bucket: Storage) -> dict[str, bytes]:
    lift.lift(job(bucket, "straight"))
    return shards(bucket, "straight")


def test_faults_that_pass_change_nothing(
    bucket: Storage, proxy: FaultProxy, straight: dict[str, bytes]
) -> None:
    with proxy.injected(*[replace(fault) for fault in PASSING]):
        lift.lift(job(bucket, "faults", proxy))
        assert {kind for kind, *_ in proxy.met} == {fault.kind for fault in PASSING}
    assert shards(bucket, "faults") == straight


@pytest.mark.parametrize(
    ("name", "method", "key", "after"),
    [
        ("images", "GET", "*/tars/*", 4),
        ("shards", "PUT", "*/shards/*", 2),
        ("commits", "PUT", "*/lift/commits/*", 2),
        ("manifest", "PUT", "*MANIFEST*", 0),
    ],
)
def test_faults_that_stay_end_it_and_it_goes_on(
    bucket: Storage,
    proxy: FaultProxy,
    straight: dict[str, bytes],
    name: str,
    method: str,
    key: str,
    after: int,
) -> None:
    fault = Fault(Kind.slow_down, method, key, count=None, after=after)
    with proxy.injected(fault), pytest.raises(StorageError, match="Please reduce your request rate"):
        lift.lift(job(bucket, f"without-{name}", proxy))
    out = bucket.child(f"without-{name}")
    assert not out.exists("MANIFEST.json"), "no half of a data set can be read"
    before = {k: out.read(k) for k, _ in out.list("lift/commits")}
    lift.lift(job(bucket, f"without-{name}", proxy))
    assert {k: out.read(k) for k in before} == before
    assert shards(bucket, f"without-{name}") == straight
