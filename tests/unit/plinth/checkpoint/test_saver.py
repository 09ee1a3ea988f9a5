"""Checkpoints beside the training: what waits for what, a storage that is away, what a crash leaves."""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from plinth.checkpoint import store, tensor_files, upload
from plinth.checkpoint.config import CheckpointConfig
from plinth.checkpoint.saver import Saver
from plinth.checkpoint.tensor_files import Slice
from plinth.engine.zero_shards import TensorShard
from plinth.errors import CheckpointError, StorageError, TakenOverError
from plinth.storage import Storage, StorageOptions
from plinth.world import World
from tests.helpers.ranks import run_ranks

ALONE = World(0, 1)
QUICK = CheckpointConfig(every_steps=1, keep_last=0, away_retry_s=0.02, away_limit_s=20.0, keep_waiting=1)


class Flaky(Storage):
    """A folder whose uploads can be taken away."""

    away = threading.Event()
    uploads = 0

    def upload(self, local_path: str | Path, key: str) -> None:
        if Flaky.away.is_set():
            raise StorageError("The store does not answer.", "Wait.")
        Flaky.uploads += 1
        super().upload(local_path, key)

    def child(self, prefix: str) -> Flaky:
        return Flaky(self.protocol, self._path(prefix), self.options)


@pytest.fixture
def flaky(tmp_path: Path) -> Flaky:
    Flaky.away.clear()
    return Flaky("file", str(tmp_path / "checkpoints"), StorageOptions())


def shards(value: float) -> list[TensorShard]:
    return [TensorShard("w", 6, 0, torch.full((6,), float(value)))]


def read(storage: Storage, scratch: Path, step: int | None = None) -> tuple[float, dict[str, Any]]:
    with store.Fetched(ALONE, storage, scratch, step) as fetched:
        values = tensor_files.read_whole(fetched.required(), ["w"])["w"]
        return float(values.mean()), fetched.state()


def until(is_true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not is_true():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.01)


def test_saver_saves_snapshot_of_shards(flaky: Flaky, tmp_path: Path) -> None:
    committed: list[int] = []
    saver = Saver(ALONE, flaky, tmp_path / "s", QUICK, on_commit=lambda saved: committed.append(saved.step))
    tensor = torch.full((6,), 1.0)
    Flaky.away.set()
    saver.save(1, [TensorShard("w", 6, 0, tensor)], {"n": 1})
    tensor.fill_(9.0)  # training goes on
    Flaky.away.clear()
    saver.wait(20)
    saver.close()
    assert committed == [1]
    assert read(flaky, tmp_path / "f") == (1.0, {"n": 1})
    assert not (tmp_path / "s" / upload.QUEUE_FOLDER).exists()


def test_saver_catches_up_after_storage_outage(flaky: Flaky, tmp_path: Path) -> None:
    saver = Saver(ALONE, flaky, tmp_path / "s", QUICK)
    Flaky.away.set()
    for step in range(1, 6):
        saver.save(step, shards(step), {})
        saver.wait_until_local()
    assert store.latest(flaky) is None
    waiting = sorted(p.name[:13] for p in (tmp_path / "s" / upload.QUEUE_FOLDER).iterdir())
    assert "step-00000005" in waiting, "the newest is on the disk"
    Flaky.away.clear()
    saver.wait(20)
    saver.close()
    steps = [info.step for info in store.list_checkpoints(flaky) if info.is_committed]
    assert steps[-1] == 5
    assert 3 not in steps, "only so many may wait: those between were dropped"
    assert read(flaky, tmp_path / "f")[0] == 5.0


def test_long_outage_ends_run_and_next_run_uploads(flaky: Flaky, tmp_path: Path) -> None:
    saver = Saver(ALONE, flaky, tmp_path / "s", QUICK)
    Flaky.away.set()
    saver.save(7, shards(7), {"n": 7})
    with pytest.raises(StorageError, match=r"has been away for 0\.1 s; the last checkpoint is in .*waiting"):
        saver.wait(0.1)
    saver.close()
    Flaky.away.clear()
    assert store.latest(flaky) is None
    upload.recover(ALONE, flaky, tmp_path / "s")
    assert read(flaky, tmp_path / "f") == (7.0, {"n": 7})
    assert list((tmp_path / "s" / upload.QUEUE_FOLDER).iterdir()) == []


def put_on_disk(flaky: Flaky, scratch: Path, step: int, token: str) -> Path:
    """What a process left that died before it could upload it."""
    folder = scratch / upload.QUEUE_FOLDER / f"{store.folder_name(step)}-{token}-0"
    upload.write_local(folder, step, token, shards(step), {}, ALONE, upload.identity(flaky, scratch))
    return folder


def test_recover_skips_half_written_and_old_parts(flaky: Flaky, tmp_path: Path) -> None:
    put_on_disk(flaky, tmp_path / "s", 3, "aa")
    put_on_disk(flaky, tmp_path / "s", 5, "bb")
    (put_on_disk(flaky, tmp_path / "s", 9, "cc") / upload.PART_RECORD_KEY).unlink()  # killed while writing
    saver = Saver(ALONE, flaky, tmp_path / "other", QUICK)
    saver.save(4, shards(4), {})
    saver.wait(20)
    saver.close()
    upload.recover(ALONE, flaky, tmp_path / "s")
    assert [info.step for info in store.list_checkpoints(flaky)] == [4, 5]
    assert list((tmp_path / "s" / upload.QUEUE_FOLDER).iterdir()) == []


def of_another_run(folder: Path) -> None:
    record = json.loads((folder / upload.PART_RECORD_KEY).read_text())
    (folder / upload.PART_RECORD_KEY).write_text(json.dumps(record | {"run": "another"}))


def with_a_flipped_byte(folder: Path) -> None:
    path = next(folder.glob("*.safetensors"))
    path.write_bytes(path.read_bytes()[:-1] + b"!")


def with_a_torn_record(folder: Path) -> None:
    path = folder / upload.PART_RECORD_KEY
    path.write_bytes(path.read_bytes()[:40])


def with_a_link(folder: Path) -> None:
    folder.rename(folder.parents[2] / "planted")
    folder.symlink_to(folder.parents[2] / "planted")


@pytest.mark.parametrize("change", [of_another_run, with_a_flipped_byte, with_a_torn_record, with_a_link])
def test_recover_uploads_only_what_this_run_wrote(
    change: Callable[[Path], None], flaky: Flaky, tmp_path: Path
) -> None:
    put_on_disk(flaky, tmp_path / "s", 3, "aa")
    change(put_on_disk(flaky, tmp_path / "s", 5, "bb"))
    upload.recover(ALONE, flaky, tmp_path / "s")
    assert [info.step for info in store.list_checkpoints(flaky)] == [3]
    assert list((tmp_path / "s" / upload.QUEUE_FOLDER).iterdir()) == []


def test_a_planted_link_is_said_and_removed_without_what_it_points_to(
    flaky: Flaky, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging.getLogger("plinth"), "propagate", True)
    with_a_link(put_on_disk(flaky, tmp_path / "s", 5, "bb"))
    upload.recover(ALONE, flaky, tmp_path / "s")
    assert "is not uploaded: it is a link" in caplog.text
    assert list((tmp_path / "s" / upload.QUEUE_FOLDER).iterdir()) == []
    assert (tmp_path / "planted" / upload.PART_RECORD_KEY).is_file()


def test_part_that_another_rank_gave_up_does_not_stop_the_next_start(flaky: Flaky, tmp_path: Path) -> None:
    put_on_disk(flaky, tmp_path / "s", 5, "bb")
    upload.mark_failed(flaky, 5, "bb")
    upload.recover(ALONE, flaky, tmp_path / "s")
    assert store.latest(flaky) is None


def test_two_attempts_at_a_step_never_mix(flaky: Flaky, tmp_path: Path) -> None:
    """One rank of an earlier attempt had uploaded its half when the run was killed."""
    half = [TensorShard("w", 6, 0, torch.zeros(3))]
    upload.write_local(tmp_path / "old", 4, "old", half, {"who": "old"}, World(0, 2), "a run")
    upload.upload_part(flaky, tmp_path / "old")
    assert not upload.commit_if_whole(flaky, 4, "old")
    saver = Saver(ALONE, flaky, tmp_path / "s", QUICK)
    saver.save(4, shards(4), {"who": "new"})
    saver.wait(20)
    saver.close()
    assert read(flaky, tmp_path / "f") == (4.0, {"who": "new"})
    assert len(upload.leftovers(flaky, 4)) == 2


def test_run_that_is_taken_over_while_it_waits_for_another_rank_commits_nothing(
    flaky: Flaky, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepared: list[int] = []
    looks = 0

    def may_commit() -> None:
        nonlocal looks
        looks += 1
        if looks > 2:
            raise TakenOverError("Another process has it.")

    def whole_but_late(storage: Storage, step: int, token: str) -> bool:
        return looks > 2 and commit(storage, step, token)

    commit = upload.commit_if_whole
    monkeypatch.setattr(upload, "commit_if_whole", whole_but_late)
    saver = Saver(
        ALONE, flaky, tmp_path / "s", QUICK, lambda saved: prepared.append(saved.step), may_commit
    )  # fmt: skip
    saver.save(4, shards(4), {})
    with pytest.raises(TakenOverError, match="Another process has it"):
        saver.wait(20)
    saver.close()
    assert store.latest(flaky) is None
    assert prepared == [4], "the metrics are written once"


def test_slices_with_a_hole_are_never_committed() -> None:
    tensor_files.check_whole([Slice("w", 6, 3, 3), Slice("w", 6, 0, 3)])
    with pytest.raises(ValueError, match="w: the ranks' slices leave a hole or overlap at element 3"):
        tensor_files.check_whole([Slice("w", 6, 0, 3), Slice("w", 6, 4, 2)])
    with pytest.raises(ValueError, match="end at 3 of 6 elements"):
        tensor_files.check_whole([Slice("w", 6, 0, 3)])


def test_full_disk_drops_checkpoints_until_max_failed(flaky: Flaky, tmp_path: Path) -> None:
    (tmp_path / "s").write_text("a file where the folder should be")  # as good as a full disk
    saver = Saver(ALONE, flaky, tmp_path / "s", CheckpointConfig(max_failed=2))
    for step in (1, 2, 3):
        saver.save(step, shards(step), {})
        saver.wait_until_local()
    with pytest.raises(CheckpointError, match=r"3 checkpoints in a row have failed: .*step 3 on rank 0"):
        saver.save(4, shards(4), {})
    saver.close()


def save_on_two(folder: str, scratch: str) -> None:
    """On both ranks: each its half; rank 1 is slow to upload."""
    import torch.distributed as dist

    from plinth.engine import process

    proc = process.start(threads=1)
    rank = dist.get_rank()

    def slow(saved: Any) -> None:
        time.sleep(0.2)

    saver = Saver(proc.world, Storage.from_uri(folder), Path(scratch), QUICK, before_commit=slow)
    for step in (1, 2):
        half = [TensorShard("w", 6, 3 * rank, torch.full((3,), float(10 * step + rank)))]
        saver.save(step, half, {"rank": rank})
    saver.wait(20)
    saver.close()


@pytest.mark.slow
def test_ranks_meet_in_storage(tmp_path: Path) -> None:
    run_ranks(2, save_on_two, str(tmp_path / "c"), str(tmp_path / "s"))
    storage = Storage.from_uri(tmp_path / "c")
    assert [i.step for i in store.list_checkpoints(storage) if i.is_committed] == [1, 2]
    with store.Fetched(ALONE, storage, tmp_path / "f") as fetched:
        assert tensor_files.read_whole(fetched.required(), ["w"])["w"].tolist() == [20.0] * 3 + [21.0] * 3
        assert fetched.state() == {"rank": 0}
    assert upload.leftovers(storage, 2) == []


def fail_on_one(folder: str, scratch: str) -> str:
    """On both ranks: rank 1's disk is as good as full; what each is told at once, not after a time-out."""
    import torch.distributed as dist

    from plinth.engine import process

    proc = process.start(threads=1)
    rank = dist.get_rank()
    local = Path(f"{scratch}-{rank}")
    if rank == 1:
        local.write_text("a file where the folder should be")
    saver = Saver(proc.world, Storage.from_uri(folder), local, CheckpointConfig(away_limit_s=600.0))
    saver.save(1, [TensorShard("w", 6, 3 * rank, torch.zeros(3))], {})
    try:
        saver.wait(600.0)
    except CheckpointError as error:
        return str(error)
    finally:
        saver.close()
    return ""


@pytest.mark.slow
def test_failed_rank_does_not_block_other_ranks(tmp_path: Path) -> None:
    told = run_ranks(2, fail_on_one, str(tmp_path / "c"), str(tmp_path / "s"))
    assert all("checkpoint of step 1 on rank" in text for text in told)
    assert store.latest(Storage.from_uri(tmp_path / "c")) is None
