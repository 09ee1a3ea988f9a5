"""Retention, verification, repair and pins of checkpoints in storage."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from plinth.checkpoint import maintenance, store, upload
from plinth.checkpoint.config import Best, CheckpointConfig
from plinth.engine.zero_shards import TensorShard
from plinth.errors import CheckpointError
from plinth.storage import Storage
from plinth.world import World


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    return Storage.from_uri(tmp_path / "checkpoints")


def put(storage: Storage, tmp_path: Path, step: int, committed: bool = True, loss: float = 1.0) -> None:
    """A checkpoint of one tensor, by one rank."""
    shard = TensorShard("w", 4, 0, torch.full((4,), float(step)))
    state = {"step": step, "metrics": {"loss": loss}}
    upload.write_local(tmp_path / "local", step, f"t{step}", [shard], state, World(0, 1), "a run")
    upload.upload_part(storage, tmp_path / "local")
    if committed:
        assert upload.commit_if_whole(storage, step, f"t{step}")


def steps(storage: Storage) -> list[int]:
    return [info.step for info in store.list_checkpoints(storage)]


def damage(storage: Storage, step: int) -> None:
    """Flip a byte of its tensors."""
    folder = storage.child(store.folder_name(step))
    name = next(key for key, _ in folder.list() if key.endswith(".safetensors"))
    data = folder.read(name)
    folder.write(name, data[:-1] + bytes([data[-1] ^ 1]))


def test_old_and_unfinished_ones_go_and_newer_unfinished_stay(storage: Storage, tmp_path: Path) -> None:
    for step in (1, 2, 3, 4):
        put(storage, tmp_path, step, committed=step != 2)
    put(storage, tmp_path, 9, committed=False)  # another process may be writing it
    settings = CheckpointConfig(keep_last=2)
    assert maintenance.retain(storage, settings, dry_run=True) == ["step-00000001", "step-00000002"]
    assert steps(storage) == [1, 2, 3, 4, 9]
    maintenance.retain(storage, settings)
    assert steps(storage) == [3, 4, 9]
    maintenance.retain(storage, CheckpointConfig(keep_last=0))
    assert steps(storage) == [3, 4, 9]


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        (CheckpointConfig(keep_last=1), [60]),
        (CheckpointConfig(keep_last=1, keep_every_steps=20), [20, 40, 60]),
        (CheckpointConfig(keep_last=1, keep_best=2), [20, 30, 60]),
        (CheckpointConfig(keep_last=1, keep_best=1, best=Best.highest), [10, 60]),
        (CheckpointConfig(keep_last=1, keep_best=1, best_metric="no such"), [60]),
    ],
)
def test_retention_keeps_configured_checkpoints(
    storage: Storage, tmp_path: Path, settings: CheckpointConfig, expected: list[int]
) -> None:
    for step, loss in {10: 9.0, 20: 1.0, 30: 2.0, 40: 5.0, 50: 6.0, 60: 7.0}.items():
        put(storage, tmp_path, step, loss=loss)
    maintenance.retain(storage, settings)
    assert steps(storage) == expected


def test_pinned_checkpoint_is_kept_until_unpinned(storage: Storage, tmp_path: Path) -> None:
    for step in (1, 2, 3):
        put(storage, tmp_path, step)
    maintenance.pin(storage, 1, "for the paper")
    maintenance.retain(storage, CheckpointConfig(keep_last=1))
    assert steps(storage) == [1, 3]
    assert [info.is_pinned for info in store.list_checkpoints(storage)] == [True, False]
    maintenance.unpin(storage, 1)
    maintenance.retain(storage, CheckpointConfig(keep_last=1))
    assert steps(storage) == [3]
    with pytest.raises(CheckpointError, match=r"no committed checkpoint of step 1\. There are: 3"):
        maintenance.pin(storage, 1, "")


def test_verify_tells_whole_from_damaged(storage: Storage, tmp_path: Path) -> None:
    put(storage, tmp_path, 1)
    put(storage, tmp_path, 2)
    damage(storage, 2)
    first, second = maintenance.verify(storage)
    assert (first.step, first.is_whole) == (1, True)
    assert (second.step, second.is_whole) == (2, False)
    assert second.text.endswith("is not what was written")
    with pytest.raises(CheckpointError, match="no committed checkpoint of step 5"):
        next(maintenance.verify(storage, 5))


def test_one_of_another_format_is_found_as_such(storage: Storage, tmp_path: Path) -> None:
    for step in (1, 2, 3):
        put(storage, tmp_path, step)
    key = f"{store.folder_name(1)}/{store.COMMIT_KEY}"
    storage.write(key, b'{"format_version": 1, "sha256": ""}')
    damage(storage, 2)
    found = [(f.step, f.is_whole, f.is_of_other_format) for f in maintenance.verify(storage)]
    assert found == [(1, False, True), (2, False, False), (3, True, False)]
    texts = {finding.step: finding.text for finding in maintenance.repair(storage)}
    assert "has format version 1, this program reads" in texts[1]
    assert "taken out of use" in texts[2]
    assert storage.exists(key)


def test_an_altered_record_is_damage(storage: Storage, tmp_path: Path) -> None:
    put(storage, tmp_path, 1)
    key = f"{store.folder_name(1)}/{store.COMMIT_KEY}"
    storage.write(key, storage.read(key).replace(b'"loss": 1.0', b'"loss": 0.0'))
    assert "COMMIT.json is not what was written" in next(iter(maintenance.verify(storage))).text


def test_repair_commits_what_was_whole_and_takes_damage_out_of_use(storage: Storage, tmp_path: Path) -> None:
    put(storage, tmp_path, 1)
    put(storage, tmp_path, 2, committed=False)  # all uploaded, then the run was killed
    put(storage, tmp_path, 3)
    damage(storage, 3)
    storage.write(f"{store.folder_name(1)}/old-rank-0001-of-0002.safetensors", b"of a dead attempt")
    storage.write(f"{store.folder_name(4)}/half", b"x")
    texts = {finding.step: finding.text for finding in maintenance.repair(storage)}
    assert "removed" in texts[1]
    assert "committed now" in texts[2]
    assert "taken out of use" in texts[3]
    assert "never finished" in texts[4]
    assert [i.step for i in store.list_checkpoints(storage) if i.is_committed] == [1, 2]
    assert store.read_state(storage)["step"] == 2
    assert list(maintenance.verify(storage))[-1].is_whole
