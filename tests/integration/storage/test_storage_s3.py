"""Storage over real S3: everything it promises, and one clear line for everything that goes wrong."""

from __future__ import annotations

import pickle
import socket
from dataclasses import replace
from pathlib import Path

import pyarrow.fs
import pytest

from plinth.errors import StorageError
from plinth.storage import MissingKeyError, Storage
from plinth.storage.arrow import arrow_filesystem
from tests.integration.conftest import SECRET_KEY_ENV, S3Server

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def storage(s3_server: S3Server) -> Storage:
    return s3_server.bucket().child("a/prefix")


def test_objects_are_written_read_listed_and_deleted(storage: Storage, tmp_path: Path) -> None:
    content = bytes(range(256)) * 41
    storage.write("folder/one.bin", content)
    assert storage.read("folder/one.bin") == content
    assert storage.read_range("folder/one.bin", 100, 300) == content[100:300]
    assert storage.read_range("folder/one.bin", len(content) - 5, len(content) + 5) == content[-5:]
    assert storage.read_range("folder/one.bin", len(content) + 1, len(content) + 9) == b""
    assert storage.size("folder/one.bin") == len(content)
    storage.write("folder/one.bin", b"replaced")
    assert storage.read("folder/one.bin") == b"replaced"
    assert storage.size("folder/one.bin") == 8

    (tmp_path / "local").write_bytes(content)
    storage.upload(tmp_path / "local", "two.bin")
    storage.download("two.bin", tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == content
    assert storage.list() == [("folder/one.bin", 8), ("two.bin", len(content))]
    assert storage.list("folder") == [("folder/one.bin", 8)]
    assert storage.list("nothing") == []

    assert storage.exists("two.bin")
    assert not storage.exists("folder"), "a folder is no object"
    storage.delete("two.bin")
    storage.delete("two.bin")
    assert not storage.exists("two.bin")
    with pytest.raises(MissingKeyError, match=r"a/prefix/two.bin does not exist"):
        storage.read("two.bin")


def test_keys_with_two_slashes_are_objects_of_their_own(s3_server: S3Server, tmp_path: Path) -> None:
    """Tools that join a prefix that ends in a slash make them."""
    bucket = s3_server.bucket()
    names = {"set/a.tar": b"1", "set//a.tar": b"22", "set/x//b.tar": b"333", "set/x/b.tar": b"4444"}
    for key, content in names.items():
        bucket.filesystem.pipe_file(f"{bucket.root}/{key}", content)
    for storage in (bucket.child("set"), Storage.from_uri(f"{bucket.uri}/set/", s3_server.options)):
        listed = dict(storage.list())
        assert listed == {key.removeprefix("set/"): len(content) for key, content in names.items()}
        for key in listed:
            assert storage.read(key) == names[f"set/{key}"]
            assert storage.read_range(key, 0, 1) == names[f"set/{key}"][:1]
            assert storage.state(key)[0] == storage.size(key) == listed[key]
            storage.download(key, tmp_path / "back")
            assert (tmp_path / "back").read_bytes() == names[f"set/{key}"]
    assert Storage.from_uri(f"{bucket.uri}/set//", s3_server.options).list() == bucket.child("set").list()
    bucket.child("set").delete("/a.tar")
    assert [key for key, _ in bucket.list()] == [
        "set/a.tar",
        "set/x//b.tar",
        "set/x/b.tar",
    ]


def test_large_object_is_uploaded_in_parts(storage: Storage, tmp_path: Path) -> None:
    path = tmp_path / "large"
    with open(path, "wb") as file:
        file.truncate(120 << 20)  # above twice the size of a part
    storage.upload(path, "large")
    assert storage.size("large") == 120 << 20
    storage.delete("large")


def test_storage_check_passes_and_leaves_nothing(storage: Storage) -> None:
    fresh = storage.child("fresh")
    fresh.check(write=True)
    assert fresh.list() == []


def test_storage_errors_are_one_line(
    s3_server: S3Server, storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        nowhere = f"http://127.0.0.1:{free.getsockname()[1]}"
    monkeypatch.setenv("WRONG", "not-the-key")
    monkeypatch.delenv("UNSET_KEY", raising=False)
    options = s3_server.options
    cases = [
        (
            "bucket",
            replace(options, secret_key_env="WRONG"),
            "secret key is wrong for this access key.*variables WRONG",
        ),
        (
            "bucket",
            replace(options, access_key_env="WRONG"),
            "secret key is wrong for this access key.*and WRONG",
        ),
        (
            "bucket",
            replace(options, secret_key_env="UNSET_KEY"),
            "variable UNSET_KEY .* is not set.*export UNSET_KEY",
        ),
        ("bucket", replace(options, endpoint_url=nowhere), f"{nowhere} cannot be reached .*endpoint_url"),
        ("no-such-bucket", options, "the bucket does not exist.*Create it"),
    ]
    for bucket, wrong, message in cases:
        uri = storage.uri if bucket == "bucket" else f"s3://{bucket}/prefix"
        for use in (lambda s: s.check(), lambda s: s.write("key", b"x"), lambda s: s.read("key")):
            with pytest.raises(StorageError, match=message) as caught:
                use(Storage.from_uri(uri, replace(wrong, retries=1)))
            text = str(caught.value)
            assert "\n" not in text
            assert "not-the-key" not in text
            assert s3_server.store.secret_key not in text


def test_missing_credentials_name_the_settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Neither endpoint nor keys: the message says which settings to make."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE", "AWS_ENDPOINT_URL"):
        monkeypatch.delenv(name, raising=False)
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(name, str(tmp_path / "none"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    with pytest.raises(StorageError, match=r"no usable credentials.*access_key_env.*endpoint_url"):
        Storage.from_uri("s3://bucket").check()


def test_pickled_storage_holds_no_secret(s3_server: S3Server, storage: Storage) -> None:
    storage.write("key", b"x")  # so that the file system is open
    filesystem, _ = arrow_filesystem(storage)
    for thing in (storage, filesystem):
        pickled = pickle.dumps(thing)
        assert s3_server.store.secret_key.encode() not in pickled
        assert SECRET_KEY_ENV.encode() in pickled
    assert pickle.loads(pickle.dumps(storage)).read("key") == b"x"


def test_pyarrow_filesystem_serves_ray_train(storage: Storage) -> None:
    """What Ray Train does with `storage_filesystem`: folders, streams out and in, listing, deletion."""
    filesystem, root = arrow_filesystem(storage.child("run"))
    filesystem = pickle.loads(pickle.dumps(filesystem))
    filesystem.create_dir(f"{root}/nested/folder", recursive=True)
    with filesystem.open_output_stream(f"{root}/nested/file") as stream:
        stream.write(b"content")
    with filesystem.open_input_stream(f"{root}/nested/file") as stream:
        assert stream.read() == b"content"
    selector = pyarrow.fs.FileSelector(root, recursive=True)
    assert f"{root}/nested/file" in [info.path for info in filesystem.get_file_info(selector)]
    filesystem.delete_file(f"{root}/nested/file")
    assert storage.list("run") == []
