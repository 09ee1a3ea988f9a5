"""A real S3 server behind a proxy that does to requests what networks and stores do: what is tried again,
what stops with one line, and that nothing committed is lost."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch

from plinth.data import manifest
from plinth.data.config import DataConfig, OnBadShard, ReaderKind
from plinth.data.plan import Cursor
from plinth.data.sources import OpenSource
from plinth.errors import DataError, StorageError
from plinth.storage import MissingKeyError, Storage
from plinth.world import World
from tests.helpers.datasets import COLUMNS, make_data_set, take
from tests.helpers.fault_proxy import Fault, FaultProxy, Kind
from tests.integration.conftest import S3Server

pytestmark = pytest.mark.slow

OLD, NEW = bytes(range(256)) * 1200, bytes(range(255, -1, -1)) * 1100
RETRIES = 2
READ_TIMEOUT_S = 1.0
ALONE = World(0, 1)
STEPS = 8  # two epochs
DATA = DataConfig(lanes=4, window_row_groups=2, reader=ReaderKind.threads)


@dataclass(frozen=True)
class Operation:
    """A use of storage on the object `key`, which holds OLD before."""

    method: str
    """Of the request that the fault meets."""
    run: Callable[[Storage, Path], Any]
    """Given the storage and a local file that holds NEW."""
    result: Any
    after: bytes | None
    """What the object holds afterwards; None: there is none."""
    has_body: bool = False
    """Whether the answer has one that can be cut."""


def download(storage: Storage, local: Path) -> bytes:
    storage.download("key", local.with_name("down"))
    return local.with_name("down").read_bytes()


OPERATIONS = {
    "read": Operation("GET", lambda s, _: s.read("key"), OLD, OLD, has_body=True),
    "read_range": Operation("GET", lambda s, _: s.read_range("key", 99, 9999), OLD[99:9999], OLD, True),
    "download": Operation("GET", download, OLD, OLD, has_body=True),
    "list": Operation("GET", lambda s, _: s.list(), [("key", len(OLD))], OLD, has_body=True),
    "size": Operation("HEAD", lambda s, _: s.size("key"), len(OLD), OLD),
    "write": Operation("PUT", lambda s, _: s.write("key", NEW), None, NEW),
    "upload": Operation("PUT", lambda s, local: s.upload(local, "key"), None, NEW),
    "create": Operation("PUT", lambda s, _: s.create("new", NEW), True, OLD),
    "delete": Operation("DELETE", lambda s, _: s.delete("key"), None, None),
}
TRANSIENT = [Kind.slow_down, Kind.internal_error, Kind.reset, Kind.answer_lost, Kind.stall]
CUTS = [Kind.truncated, Kind.shortened, Kind.stall_in_body]
STALLS = [Kind.stall, Kind.stall_in_body]


@pytest.fixture(scope="module")
def proxy(s3_server: S3Server) -> Iterator[FaultProxy]:
    with FaultProxy(s3_server.store.endpoint_url) as running:
        yield running


@pytest.fixture(scope="module")
def bucket(s3_server: S3Server) -> Storage:
    return s3_server.bucket().child("run")


@pytest.fixture
def direct(bucket: Storage) -> Iterator[Storage]:
    """An empty folder, reached past the proxy."""
    yield bucket
    for key, _ in bucket.list():
        bucket.delete(key)


@pytest.fixture(scope="module")
def storage(bucket: Storage, proxy: FaultProxy) -> Storage:
    """The same folder through the proxy."""
    options = replace(
        bucket.options, endpoint_url=proxy.url, read_timeout_s=READ_TIMEOUT_S, retries=RETRIES, backoff_s=0.01
    )
    return Storage(bucket.protocol, bucket.root, options)


@pytest.fixture
def local(tmp_path: Path) -> Path:
    """A local file that holds NEW."""
    path = tmp_path / "file"
    path.write_bytes(NEW)
    return path


def content(storage: Storage, key: str = "key") -> bytes | None:
    try:
        return storage.read(key)
    except MissingKeyError:
        return None


@pytest.mark.parametrize("name", OPERATIONS)
def test_transient_fault_is_retried(
    direct: Storage, storage: Storage, proxy: FaultProxy, local: Path, name: str
) -> None:
    operation = OPERATIONS[name]
    for kind in (*TRANSIENT, *(CUTS if operation.has_body else ())):
        direct.write("key", OLD)
        direct.delete("new")
        times = 1 if kind in STALLS else RETRIES
        with proxy.injected(Fault(kind, operation.method, count=times)):
            assert operation.run(storage, local) == operation.result, kind
        assert [met[:2] for met in proxy.met] == [(kind, operation.method)] * times
        assert content(direct) == operation.after, kind


@pytest.mark.parametrize("name", OPERATIONS)
def test_permanent_fault_is_one_line_and_loses_nothing(
    direct: Storage, storage: Storage, proxy: FaultProxy, local: Path, name: str
) -> None:
    operation = OPERATIONS[name]
    direct.write("key", OLD)
    for kind in (Kind.slow_down, Kind.reset, *([Kind.stall] if name in ("read", "write") else [])):
        line = rf"(still failing after|cannot be reached or drops the connection) \(?{RETRIES + 1} tries"
        with (
            proxy.injected(Fault(kind, operation.method, count=None)),
            pytest.raises(StorageError, match=line) as caught,
        ):
            operation.run(storage, local)
        assert "\n" not in str(caught.value)
        assert not isinstance(caught.value, MissingKeyError)
        tries = 2 if kind is Kind.reset else 1  # the HTTP client asks again at once on a fresh connection
        assert len(proxy.met) <= tries * (RETRIES + 1), "the number of tries is bounded"
        assert direct.list() == [("key", len(OLD))]
        assert content(direct) == OLD
        assert [path.name for path in local.parent.iterdir()] == ["file"], "nothing half-written"


@pytest.mark.parametrize("name", OPERATIONS)
def test_expired_credentials_are_not_retried(
    direct: Storage, storage: Storage, proxy: FaultProxy, local: Path, name: str
) -> None:
    direct.write("key", OLD)
    with (
        proxy.injected(Fault(Kind.expired, count=None)),
        pytest.raises(
            StorageError, match=r"the credentials have expired \(ExpiredToken\).*Renew them"
        ) as caught,
    ):
        OPERATIONS[name].run(storage, local)
    assert "\n" not in str(caught.value)
    # HEAD has no words: the client suspects the region and asks once, and so do we, for the reason.
    assert len(proxy.passed) <= (3 if proxy.passed[0][0] == "HEAD" else 1)
    assert content(direct) == OLD


def test_object_rewritten_during_a_read_is_read_whole(direct: Storage) -> None:
    """As a lock's sign of life is: what comes is one of its versions, never the start of the next."""
    versions = [b"x" * (n // 8) + b"." for n in range(40)]
    direct.write("beat", versions[0])
    with ThreadPoolExecutor(1) as pool:
        writing = pool.submit(lambda: [direct.write("beat", version) for version in versions])
        while not writing.done():
            assert direct.read("beat") in versions
        writing.result()


@pytest.mark.parametrize("name", ["write", "upload", "create"])
def test_corrupted_upload_is_sent_again(
    direct: Storage, storage: Storage, proxy: FaultProxy, local: Path, name: str
) -> None:
    with proxy.injected(Fault(Kind.flipped, "PUT")):
        OPERATIONS[name].run(storage, local)
    assert len(proxy.met) == 1
    assert content(direct, "new" if name == "create" else "key") == NEW


def test_multipart_upload_is_whole_or_absent(
    direct: Storage, storage: Storage, proxy: FaultProxy, tmp_path: Path
) -> None:
    """A fault in the middle of its parts: the object stays the old one until all are there."""
    path = tmp_path / "large"
    with open(path, "wb") as file:
        file.truncate(101 << 20)  # above twice the size of a part
    direct.write("large", OLD)
    patient = Storage("s3", storage.root, replace(storage.options, read_timeout_s=30.0, retries=0))
    with (
        proxy.injected(Fault(Kind.reset, "PUT", after=1, count=None)),
        pytest.raises(StorageError, match=r"large: .*cannot be reached|large.*still failing"),
    ):
        patient.upload(path, "large")
    assert content(direct, "large") == OLD
    assert direct.list() == [("large", len(OLD))]
    with proxy.injected(Fault(Kind.internal_error, "PUT", after=1)):
        Storage("s3", storage.root, replace(patient.options, retries=1)).upload(path, "large")
    assert len(proxy.met) == 1
    assert direct.size("large") == 101 << 20


def test_create_if_absent_has_one_winner(direct: Storage) -> None:
    """As far as Swift can: of callers at the same moment several may be told True, but one is kept, and
    whoever comes later gets False."""
    assert direct.create("lock", b"first")
    assert not direct.create("lock", b"second")
    assert direct.read("lock") == b"first"
    direct.delete("lock")
    assert direct.create("lock", b"third")
    callers = 6
    barrier = threading.Barrier(callers)

    def call(caller: int) -> bytes | None:
        barrier.wait()
        data = b"caller %d" % caller
        return data if direct.create("race", data) else None

    with ThreadPoolExecutor(callers) as pool:
        winners = [data for data in pool.map(call, range(callers)) if data]
    kept = direct.read("race")
    assert kept in winners
    assert [caller for caller in range(callers) if direct.create("race", b"caller %d" % caller)] == [
        int(kept.split()[1])
    ]


def test_create_if_absent_recognises_its_own_object_after_a_lost_answer(
    direct: Storage, storage: Storage, proxy: FaultProxy
) -> None:
    with proxy.injected(Fault(Kind.answer_lost, "PUT")):
        assert storage.create("mine", b"mine")
    direct.write("theirs", b"theirs")
    with proxy.injected(Fault(Kind.answer_lost, "PUT")):
        assert not storage.create("theirs", b"mine")
    assert direct.read("theirs") == b"theirs"


# -- a data set behind the proxy -------------------------------------------------------------------------


@pytest.fixture
def source(direct: Storage, storage: Storage) -> OpenSource:
    written = make_data_set(direct.child("toy"))
    return OpenSource(storage.child("toy"), written.manifest)


@pytest.mark.parametrize("kind", [*TRANSIENT, *CUTS, Kind.flipped], ids=lambda kind: kind.name)
def test_data_stream_survives_a_storage_fault(
    source: OpenSource, proxy: FaultProxy, tmp_path: Path, kind: Kind
) -> None:
    """The manifest, footers and row groups alike; also the byte that is another one, which hashes and
    Parquet's checksums find."""
    expected = take([make_data_set(tmp_path)], DATA, ALONE, Cursor(), STEPS)
    names = [manifest.MANIFEST_KEY, *(shard.name for shard in source.manifest.shards)]
    met_at = (0, 0, 2, 1)
    with proxy.injected(
        *(Fault(kind, "GET", f"*/{name}", after=n) for name, n in zip(names, met_at, strict=True))
    ):
        assert manifest.load(source.storage) == source.manifest
        got = take([source], DATA, ALONE, Cursor(), STEPS)
    assert len(proxy.met) == len(names)
    for a, b in zip(got, expected, strict=True):
        assert a.sample_ids == b.sample_ids
        assert a.skipped == []
        assert all(torch.equal(a.tensors[name], b.tensors[name]) for name in (*COLUMNS, "sample_valid"))


def test_corrupted_shard_is_named_or_skipped(source: OpenSource, proxy: FaultProxy) -> None:
    """Its footer cannot be trusted, so none of its row groups can be read; the others come as ever."""
    shard = source.manifest.shards[1].name
    altered = Fault(Kind.flipped, "GET", key=f"*/{shard}", count=None)
    with (
        proxy.injected(altered),
        pytest.raises(DataError, match=rf"s3://.*/toy/{shard}, footer: cannot be decoded"),
    ):
        take([source], DATA, ALONE, Cursor(), STEPS)
    whole = take([source], DATA, ALONE, Cursor(), STEPS)
    skip = replace(DATA, on_bad_shard=OnBadShard.skip, max_bad_row_groups=5)
    with proxy.injected(altered):
        got = take([source], skip, ALONE, Cursor(), STEPS)
    skipped = 0
    for a, b in zip(got, whole, strict=True):
        valid, was_valid = a.tensors["sample_valid"], b.tensors["sample_valid"]
        bad = torch.tensor(["#" in i for i in a.sample_ids])
        assert torch.equal(valid, was_valid & ~bad)
        assert len(a.skipped) == int((was_valid & bad).sum())
        skipped += len(a.skipped)
        for name in COLUMNS:
            assert torch.equal(a.tensors[name][~bad], b.tensors[name][~bad])
    assert skipped == 2 * source.manifest.shards[1].rows, "in both epochs"
