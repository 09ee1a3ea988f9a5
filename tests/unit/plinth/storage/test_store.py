"""Storage: local folders, atomic writes, retries against a server that misbehaves, refusals."""

from __future__ import annotations

import errno
import os
import pickle
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from plinth.errors import ConfigError, StorageError
from plinth.storage import MissingKeyError, Storage, StorageOptions, local_files
from tests.helpers import full_disk

CONTENT = b"the object"


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    return Storage.from_uri(tmp_path / "store")


def test_local_objects_come_back(storage: Storage, tmp_path: Path) -> None:
    storage.write("a/b", b"0123456789")
    assert storage.read("a/b") == b"0123456789"
    assert storage.read_range("a/b", 2, 5) == b"234"
    assert storage.read_range("a/b", 8, 20) == b"89"
    assert storage.read_range("a/b", 20, 30) == b""
    assert storage.size("a/b") == 10
    (tmp_path / "file").write_bytes(b"local")
    storage.upload(tmp_path / "file", "c")
    storage.download("c", tmp_path / "new" / "back")
    assert (tmp_path / "new" / "back").read_bytes() == b"local"
    assert storage.list() == [("a/b", 10), ("c", 5)]
    assert storage.child("a").list() == [("b", 10)]
    assert storage.list("nothing") == []
    assert storage.exists("c")
    assert not storage.exists("a")
    storage.delete("c")
    storage.delete("c")
    assert not storage.exists("c")
    with pytest.raises(MissingKeyError, match="store/c does not exist"):
        storage.read("c")


@pytest.mark.parametrize("key", ["folder", "file/below", "x" * 300])
def test_what_can_be_no_object_is_a_missing_one(key: str, tmp_path: Path) -> None:
    """In a folder as in an object store, where none of these names an object."""
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_bytes(b"")
    storage = Storage.from_uri(tmp_path)
    for ask in (storage.read, storage.size, storage.state):
        with pytest.raises(MissingKeyError):
            ask(key)


@pytest.mark.parametrize("uri", ["{path}", "file://{path}"])
def test_uri_round_trip(uri: str, tmp_path: Path) -> None:
    storage = Storage.from_uri(uri.format(path=tmp_path))
    assert storage.uri == str(tmp_path)
    assert Storage.from_uri(storage.uri) == storage
    assert pickle.loads(pickle.dumps(storage)) == storage
    assert Storage.from_uri("s3://bucket/a/").child("b").uri == "s3://bucket/a/b"


def test_failed_write_keeps_old_object(storage: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    storage.write("key", b"old")

    def half(path: str, data: bytes) -> None:
        Path(path).write_bytes(data[:1])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(local_files, "write_synced", half)
    with pytest.raises(StorageError, match=r"/store: the disk is full \(ENOSPC\)"):
        storage.write("key", b"new")
    assert storage.read("key") == b"old"
    assert [path.name for path in Path(storage.root).iterdir()] == ["key"]


def race_to_create(storage: Storage, key: str, callers: int) -> list[bytes]:
    """Several threads create `key` at once, each with its own content; those that were told True."""
    barrier = threading.Barrier(callers)

    def one(caller: int) -> tuple[bytes, bool]:
        data = b"caller %d" % caller
        barrier.wait()
        return data, storage.create(key, data)

    with ThreadPoolExecutor(callers) as pool:
        return [data for data, created in pool.map(one, range(callers)) if created]


def test_create_is_for_one_caller(storage: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    assert storage.create("new/key", b"first")
    assert not storage.create("new/key", b"second")
    assert storage.create("new/key", b"first"), "it is: the request may have been repeated on its way"
    assert storage.read("new/key") == b"first"
    for round_ in range(5):
        assert race_to_create(storage, f"race-{round_}", 8) == [storage.read(f"race-{round_}")]

    def no_links(source: object, target: object) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", no_links)
    assert race_to_create(storage, "without-links", 8) == [storage.read("without-links")]
    names = {path.name for path in Path(storage.root).rglob("*") if path.is_file()}
    assert names == {"key", "without-links", *(f"race-{n}" for n in range(5))}, "nothing temporary is left"


def test_temporary_files_are_not_listed(storage: Storage) -> None:
    """A process that was killed in the middle of a write leaves one behind."""
    storage.write("key", b"x")

    def killed(temporary: str) -> None:
        Path(temporary).write_bytes(b"x")
        assert storage.list() == [("key", 1)]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        local_files.replace(str(Path(storage.root, "other")), killed)


def test_links_are_followed_and_loops_are_not(tmp_path: Path) -> None:
    for name in ("root/b", "elsewhere/deep"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "root" / "b" / "1").write_text("x")
    (tmp_path / "elsewhere" / "deep" / "2").write_text("xy")
    (tmp_path / "elsewhere" / "own").symlink_to(tmp_path)  # holds the link: everything again, and more
    (tmp_path / "root" / "a").symlink_to(tmp_path / "root" / "b")  # is found as b
    (tmp_path / "root" / "c").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "root" / "loop").symlink_to(tmp_path / "root")
    (tmp_path / "root" / "up").symlink_to("..")
    (tmp_path / "root" / "3").symlink_to(tmp_path / "elsewhere" / "deep" / "2")
    storage = Storage.from_uri(tmp_path / "root")
    assert storage.list() == [("3", 2), ("b/1", 1), ("c/deep/2", 2)]
    assert storage.read("c/deep/2") == b"xy"
    assert storage.list("c/deep") == [("c/deep/2", 2)]
    (tmp_path / "root" / "4").symlink_to(tmp_path / "gone")
    with pytest.raises(StorageError, match=r"4 is a link to .*gone, which does not exist"):
        storage.list()


def test_state_changes_with_the_file(storage: Storage) -> None:
    storage.write("key", b"x")
    before = storage.state("key")
    assert before == storage.state("key")
    os.utime(Path(storage.root, "key"), (1, 1))
    assert storage.state("key") == (1, str(10**9)) != before


def test_check_of_local_folders(tmp_path: Path) -> None:
    storage = Storage.from_uri(tmp_path / "new" / "folder")
    with pytest.raises(StorageError, match="folder is not a folder"):
        storage.check()
    storage.check(write=True)
    assert not list(tmp_path.iterdir())  # what is refused later leaves nothing
    (tmp_path / "new").mkdir()
    storage.check(write=True)
    assert not list((tmp_path / "new").iterdir())
    (tmp_path / "new" / "folder").mkdir()
    storage.check(write=True)
    storage.check()
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match=r"file: .*EEXIST|file/.*: .*ENOTDIR"):
        Storage.from_uri(tmp_path / "file").check(write=True)
    unusable = Storage.from_uri(tmp_path / ("n" * 300))  # looking at it fails, as without the right to look
    for write in (False, True):
        with pytest.raises(StorageError, match="ENAMETOOLONG"):
            unusable.check(write=write)


@pytest.mark.parametrize("key", ["/absolute", "../up", "a/../../b"])
def test_keys_stay_inside(storage: Storage, key: str) -> None:
    with pytest.raises(ValueError, match="not a key relative"):
        storage.read(key)


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("ftp://host/folder", r"ftp:// is not a known kind of storage.* s3://"),
        ("s3://", "names no bucket"),
        ("s3://KEY:SECRET@bucket/prefix", "carries credentials .not shown"),
    ],
)
def test_uris_that_are_refused(uri: str, message: str) -> None:
    with pytest.raises(StorageError, match=message) as caught:
        Storage.from_uri(uri)
    assert "SECRET" not in str(caught.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (StorageOptions(access_key_env="A"), "come as a pair"),
        (
            StorageOptions(access_key_env="A", secret_key_env="aB3/secret+value"),
            "secret_key_env is not a name",
        ),
        (StorageOptions(retries=-1), "retries is -1"),
    ],
)
def test_options_that_are_refused(options: StorageOptions, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        Storage.from_uri("s3://bucket", options)
    assert "secret+value" not in str(caught.value)


def test_missing_storage_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gcsfs", None)
    with pytest.raises(StorageError, match=r"gs:// needs the package gcsfs. pip install gcsfs"):
        Storage.from_uri("gs://bucket").read("key")


class Misbehaving(BaseHTTPRequestHandler):
    """An S3 server that serves CONTENT for every GET, after the failures listed in `faults`."""

    faults: list[str] = []  # noqa: RUF012
    requests = 0
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        type(self).requests += 1
        fault = self.faults.pop(0) if self.faults else ""
        if fault.isdigit():
            body = b"<Error><Code>SlowDown</Code><Message>Slow down</Message></Error>"
            self.reply(int(fault), body, len(body))
        elif fault == "cut":
            self.reply(206, CONTENT[:3], len(CONTENT))
            self.close_connection = True
        elif fault == "drop":
            self.close_connection = True
        else:
            self.reply(206, CONTENT, len(CONTENT))

    def reply(self, status: int, body: bytes, length: int) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(length))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Silence."""


@pytest.fixture
def remote(monkeypatch: pytest.MonkeyPatch) -> Iterator[Storage]:
    """An object store behind the misbehaving server; four tries at most."""
    monkeypatch.setenv("TEST_ACCESS", "access")
    monkeypatch.setenv("TEST_SECRET", "secret")
    Misbehaving.requests = 0
    server = ThreadingHTTPServer(("127.0.0.1", 0), Misbehaving)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    options = StorageOptions(
        endpoint_url=f"http://127.0.0.1:{server.server_port}",
        region="us-east-1",
        access_key_env="TEST_ACCESS",
        secret_key_env="TEST_SECRET",
        retries=3,
        backoff_s=0.01,
    )
    yield Storage.from_uri("s3://bucket", options)
    server.shutdown()
    server.server_close()
    thread.join()


def test_full_disk_is_one_line_and_leaves_no_file(tmp_path: Path) -> None:
    said = full_disk.run(tmp_path)
    if said is None:
        pytest.skip("this machine does not allow mounts in a user's name space")
    assert [operation for operation, _, _ in said] == ["write", "create", "upload", "download"]
    for _, _, message in said:
        assert message.startswith(f"{tmp_path}/disk/run: the disk is full (ENOSPC)")


def test_empty_range_asks_for_nothing(remote: Storage) -> None:
    assert remote.read_range("object", 3, 3) == b""
    assert Misbehaving.requests == 0


@pytest.mark.parametrize("fault", ["503", "500", "cut", "drop"])
def test_transient_failures_are_tried_again(remote: Storage, fault: str) -> None:
    Misbehaving.faults = [fault] * 3
    assert remote.read_range("key", 0, len(CONTENT)) == CONTENT
    assert Misbehaving.requests == 4


def test_retries_are_bounded(remote: Storage) -> None:
    Misbehaving.faults = ["503"] * 9
    with pytest.raises(StorageError, match=r"s3://bucket/key at http.*still failing after 4 tries") as caught:
        remote.read_range("key", 0, len(CONTENT))
    assert Misbehaving.requests == 4
    assert "\n" not in str(caught.value)
    Misbehaving.faults = []
