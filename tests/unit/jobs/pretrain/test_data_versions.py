"""Which version of a data set a run reads: pinned at its first start, moved on only when told."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from jobs.cli import main
from jobs.common.datasets import open_dataset
from jobs.common.run_layout import run_storage
from jobs.jobfile import load
from jobs.pretrain import data_versions
from jobs.pretrain.config import PretrainJob
from jobs.pretrain.resolve import resolve
from jobs.pretrain.resume import check_resume
from plinth.checkpoint import store
from plinth.data import manifest as manifests
from plinth.data.manifest import Manifest
from plinth.data.plan import Cursor
from plinth.errors import CheckpointError, DataError
from plinth.storage import Storage, StorageOptions
from plinth.storage.json_objects import DamagedObjectError
from plinth.train.resolve import first_cursor
from tests.helpers.tiny_jobs import pretrain_job, write


def keep_version(folder: Path, number: int, shards: int) -> None:
    """The first shards of `folder`/images as one of its versions, the newest."""
    storage = Storage.from_uri(folder / "images")
    everything = manifests.load(Storage.from_uri(folder / "all"))
    rows = sum(sum(shard.row_group_rows) for shard in everything.shards[:shards])
    counts = everything.attributes["statistics"] | {"samples": rows, "views": rows}
    attributes = everything.attributes | {"version": number, "statistics": counts}
    made = Manifest(everything.shards[:shards], attributes)
    manifests.commit(storage.child(manifests.version_folder(number)), made)
    manifests.commit(storage, made)


@pytest.fixture
def images(folder: Path) -> Path:
    """A folder with a data set of single images in two versions, of one and of two shards of 8 samples."""
    shutil.copytree(folder / "images", folder / "all")
    keep_version(folder, 1, 1)
    keep_version(folder, 2, 2)
    return folder


def job_file(folder: Path) -> str:
    return write(folder / "job.yaml", pretrain_job(folder, main=None))


def reads(folder: Path, *overrides: str) -> tuple[str, dict[str, Any]]:
    """What the warm-up would read, and the notes that its checkpoint would keep."""
    [stage] = resolve(load(PretrainJob, Path(job_file(folder)), overrides))
    [source] = stage.data.sources
    notes: dict[str, Any] = json.loads(json.dumps(stage.notes))
    return source.uri.removeprefix(f"{folder}/"), notes


def test_the_newest_is_pinned_at_the_first_start(images: Path, capsys: pytest.CaptureFixture[str]) -> None:
    job = load(PretrainJob, Path(job_file(images)), [])
    stages = resolve(job)
    assert reads(images)[0] == "images#2"
    assert data_versions.read_pins(run_storage(job)) == {}
    data_versions.write_pins(run_storage(job), stages)
    keep_version(images, 3, 2)
    capsys.readouterr()
    uri, notes = reads(images)
    assert uri == "images#2"
    assert "version 2, as at the run's first start; to move to 3, name" in capsys.readouterr().out
    assert notes["config"]["data"]["versions"] == [2]
    moved, newer = reads(images, f"warmup.data.sources[0].uri={images}/images#3")
    assert moved == "images#3"
    with pytest.raises(CheckpointError, match=r"data\.versions was \[2\] and is \[3\].*--accept-changes"):
        check_resume(False, notes, newer)
    check_resume(True, notes, newer)
    assert "the pass under way is left, the next one begins" in capsys.readouterr().out
    with pytest.raises(DataError, match="images has no version 7; there are 1, 2, 3"):
        reads(images, f"warmup.data.sources[0].uri={images}/images#7")


@pytest.mark.parametrize("content", [b"", b'{"main": {"s3', b"[]", b'{"main": 3}'])
def test_damaged_pins_are_named(content: bytes, tmp_path: Path) -> None:
    run = Storage.from_uri(tmp_path)
    run.write("data.json", content)
    with pytest.raises(DamagedObjectError, match=r"data\.json is damaged"):
        data_versions.read_pins(run)


def test_what_keeps_no_versions_is_read_as_it_is(folder: Path) -> None:
    uri, notes = reads(folder)
    assert uri == "images"
    assert "versions" not in notes["config"]["data"], "runs from before versions go on"


def test_in_another_order_the_next_pass_begins(images: Path) -> None:
    [stage] = resolve(load(PretrainJob, Path(job_file(images)), []))
    plan = stage.plan

    def notes(data: str, epoch: int, step: int) -> dict[str, Any]:
        return {"data": data, "cursor": {"epoch": epoch, "step": step}}

    assert first_cursor({}, plan) == Cursor(0, 0)
    assert first_cursor(notes(plan.fingerprint, 2, 1), plan) == Cursor(2, 1)
    assert first_cursor(notes("other", 2, 1), plan) == Cursor(3, 0)
    assert first_cursor(notes("other", 2, 0), plan) == Cursor(2, 0), "that pass had not begun"


def test_a_run_moves_when_told(images: Path, capsys: pytest.CaptureFixture[str]) -> None:
    keep_version(images, 1, 1)  # the newest again, as it was when the run began
    job = job_file(images)
    assert main(["pretrain", job, "warmup.steps=2"]) == 0
    keep_version(images, 2, 2)
    stage = Storage.from_uri(images / "runs" / "run" / "warmup" / "checkpoints")
    began = store.read_state(stage)["notes"]
    assert began["config"]["data"]["versions"] == [1]
    assert json.loads((images / "runs" / "run" / "data.json").read_text()) == {
        "warmup": {f"{images}/images": 1}
    }
    assert main(["pretrain", job, "warmup.steps=3", "--accept-changes"]) == 0
    assert store.read_state(stage)["notes"]["data"] == began["data"]
    to_newest = [f"warmup.data.sources[0].uri={images}/images#2", "warmup.steps=5"]
    capsys.readouterr()
    assert main(["pretrain", job, *to_newest]) == 2
    assert "warmup.data.sources (their versions) was [1] and is [2]" in capsys.readouterr().err
    assert store.read_state(stage)["notes"]["cursor"] == {"epoch": 1, "step": 1}, "inside a pass"
    assert main(["pretrain", job, *to_newest, "--accept-changes"]) == 0
    now = store.read_state(stage)["notes"]
    assert now["config"]["data"]["versions"] == [2]
    assert now["cursor"] == {"epoch": 2, "step": 2}, "two steps of a new pass"
    assert main(["pretrain", job, "warmup.steps=5"]) == 0, "the run keeps what it moved to"
    assert open_dataset(f"{images}/images#1", StorageOptions()).manifest.rows == 8


@pytest.mark.parametrize("action", ["inspect", "verify"])
def test_a_version_can_be_looked_at(action: str, images: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["shards", action, f"{images}/images#1"]) == 0
    printed = capsys.readouterr().out
    assert "1 of 1 shards are whole" in printed if action == "verify" else "version     1 of 1, 2" in printed
    assert main(["shards", action, f"{images}/images#9"]) == 2
    assert "has no version 9; there are 1, 2" in capsys.readouterr().err
