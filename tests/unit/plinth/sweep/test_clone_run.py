"""A run takes over another one's checkpoints, whole or not at all."""

from __future__ import annotations

from pathlib import Path

import pytest

from plinth.checkpoint.store import COMMIT_KEY, folder_name, latest
from plinth.errors import CheckpointError, StorageError
from plinth.storage import Storage
from plinth.sweep.clone_run import clone_run

STAGES = ["warmup", "main"]


def save(run: Storage, stage: str, step: int, content: bytes, is_committed: bool = True) -> None:
    folder = run.child(stage).child("checkpoints").child(folder_name(step))
    folder.write("rank-0/weights.safetensors", content)
    if is_committed:
        folder.write(COMMIT_KEY, b"{}")


def held(run: Storage) -> dict[str, bytes]:
    return {key: run.read(key) for key, _ in run.list()}


@pytest.fixture
def donor(tmp_path: Path) -> Storage:
    """A finished warm-up, a main stage with one commit and one that is under way."""
    run = Storage.from_uri(tmp_path / "donor")
    save(run, "warmup", 4, b"warm")
    save(run, "main", 2, b"two")
    save(run, "main", 6, b"six")
    save(run, "main", 8, b"half", is_committed=False)
    return run


@pytest.fixture
def own(tmp_path: Path) -> Storage:
    run = Storage.from_uri(tmp_path / "own")
    save(run, "warmup", 3, b"mine")
    run.write("warmup/metrics.jsonl", b"lines")
    return run


def test_clone_copies_the_newest_checkpoint_of_each_stage(donor: Storage, own: Storage) -> None:
    assert clone_run(donor, own, STAGES) == ("main", 6)
    name = "rank-0/weights.safetensors"
    assert held(own) == {
        "warmup/metrics.jsonl": b"lines",
        f"warmup/checkpoints/{folder_name(4)}/{name}": b"warm",
        f"warmup/checkpoints/{folder_name(4)}/{COMMIT_KEY}": b"{}",
        f"main/checkpoints/{folder_name(6)}/{name}": b"six",
        f"main/checkpoints/{folder_name(6)}/{COMMIT_KEY}": b"{}",
    }


def test_clone_interrupted_anywhere_leaves_no_partial_checkpoint(
    donor: Storage, own: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = 0
    upload = Storage.upload
    while True:
        left = [done]

        def failing(self: Storage, local_path: str | Path, key: str, left: list[int] = left) -> None:
            if left[0] == 0:
                raise StorageError("the network is gone.")
            left[0] -= 1
            upload(self, local_path, key)

        monkeypatch.setattr(Storage, "upload", failing)
        try:
            clone_run(donor, own, STAGES)
        except StorageError:
            for stage, step, content in (("warmup", 4, b"warm"), ("main", 6, b"six")):
                checkpoints = own.child(stage).child("checkpoints")
                assert latest(checkpoints) in (None, step)
                if latest(checkpoints) == step:
                    assert checkpoints.read(f"{folder_name(step)}/rank-0/weights.safetensors") == content
            done += 1
            continue
        break
    assert done == 4  # files


def test_donor_without_a_checkpoint_is_refused(own: Storage, tmp_path: Path) -> None:
    before = held(own)
    with pytest.raises(CheckpointError, match="has no committed checkpoint to clone"):
        clone_run(Storage.from_uri(tmp_path / "nobody"), own, STAGES)
    assert held(own) == before
