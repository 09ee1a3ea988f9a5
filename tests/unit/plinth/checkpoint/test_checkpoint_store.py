"""The commit record, without an engine."""

from __future__ import annotations

from pathlib import Path

import pytest

from plinth.checkpoint import store
from plinth.errors import CheckpointError
from plinth.storage import Storage
from plinth.world import World


def put(storage: Storage, step: int, committed: bool = True) -> None:
    """A checkpoint of one small file."""
    folder = storage.child(store.folder_name(step))
    folder.write("a.bin", b"%d" % step)
    if committed:
        files = {"a.bin": store.fingerprint(Path(folder.uri) / "a.bin")}
        store.commit(storage, step, files, {"step": step}, token="t")


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    return Storage.from_uri(tmp_path / "checkpoints")


def test_steps_are_listed_in_order_and_strangers_left_alone(storage: Storage) -> None:
    for step in (20, 3, 100):
        put(storage, step)
    put(storage, 200, committed=False)
    storage.write("notes/readme.txt", b"mine")
    storage.write("step-5", b"not a folder of ours")
    assert [(i.step, i.is_committed) for i in store.list_checkpoints(storage)] == [
        (3, True), (20, True), (100, True), (200, False),
    ]  # fmt: skip
    assert store.latest(storage) == 100


def test_an_empty_run_has_none(storage: Storage) -> None:
    assert store.list_checkpoints(storage) == []
    assert store.latest(storage) is None
    with pytest.raises(CheckpointError, match="has no committed checkpoint"):
        store.read_state(storage)


def test_commit_refuses_file_of_another_machine(storage: Storage) -> None:
    with pytest.raises(CheckpointError, match=r"another cannot see it.*storage that all of them share"):
        store.commit(storage, 1, {"a.safetensors": {"size_bytes": 3, "sha256": "00"}}, {}, "t")
    assert store.latest(storage) is None


def test_newer_checkpoint_format_is_refused(storage: Storage, tmp_path: Path) -> None:
    put(storage, 1)
    key = f"{store.folder_name(1)}/{store.COMMIT_KEY}"
    storage.write(key, storage.read(key).replace(b'"format_version": 2', b'"format_version": 9'))
    fetching = store.Fetched(World(0, 1), storage, tmp_path / "scratch")
    with pytest.raises(CheckpointError, match="has format version 9, this program reads 2"), fetching:
        pass


def test_unreadable_commit_record_is_damage(storage: Storage, tmp_path: Path) -> None:
    put(storage, 1)
    put(storage, 2)
    storage.write(f"{store.folder_name(2)}/{store.COMMIT_KEY}", b"{")
    with store.Fetched(World(0, 1), storage, tmp_path / "scratch") as fetched:
        assert fetched.state() == {"step": 1}


def test_fetch_of_given_step(storage: Storage, tmp_path: Path) -> None:
    put(storage, 1)
    put(storage, 2)
    with store.Fetched(World(0, 1), storage, tmp_path / "scratch", step=1) as fetched:
        assert fetched.state() == {"step": 1}
    assert list((tmp_path / "scratch").iterdir()) == []
    with store.Fetched(World(0, 1), storage, tmp_path / "scratch", step=7) as fetched:  # noqa: SIM117
        with pytest.raises(CheckpointError, match=r"no committed checkpoint of step 7\. There are: 1, 2"):
            fetched.required()
