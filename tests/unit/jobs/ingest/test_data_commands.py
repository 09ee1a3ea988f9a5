"""`poma ingest`, `embed` and `shards` as a user runs them, and what bad input gives."""

from __future__ import annotations

import csv
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from jobs.cli import main
from jobs.common.datasets import open_dataset
from plinth.data import manifest as manifests
from plinth.data.config import ShardOptions
from plinth.data.manifest import Manifest
from plinth.data.shards import write_shard
from plinth.storage import Storage, StorageOptions
from poma3d.sample import encode
from tests.helpers.scans import room, write_seven_scenes
from tests.helpers.tiny_jobs import embed_file, ingest_job, write


def says(capsys: pytest.CaptureFixture[str]) -> str:
    """The one line of an error."""
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1, lines
    return lines[0]


def shards(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in (folder / "shards").iterdir()}


def test_ingest_is_repeatable_and_finished_work_is_not_done_again(
    made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    job = write(tmp_path / "job.yaml", ingest_job(tmp_path / "out"))
    assert main(["ingest", job]) == 0
    first = shards(tmp_path / "out")
    assert len(first) == 2
    assert main(["ingest", job]) == 0
    assert "already built" in capsys.readouterr().out
    shutil.rmtree(tmp_path / "out")
    assert main(["ingest", job]) == 0
    assert shards(tmp_path / "out") == first, "the same job gives the same bytes"


def test_another_job_does_not_overwrite_unless_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    job = write(tmp_path / "job.yaml", ingest_job(tmp_path / "out", rooms=4))
    assert main(["ingest", job]) == 0
    before = shards(tmp_path / "out")
    assert main(["ingest", job, "reader.rooms.seed=1"]) == 2
    assert "holds a data set that another job built" in says(capsys)
    assert shards(tmp_path / "out") == before
    assert main(["ingest", job, "reader.rooms.seed=1", "overwrite=true"]) == 0
    assert not before.keys() & shards(tmp_path / "out").keys(), "the old shards are pruned"


def test_rejected_frames_are_a_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One frame of the scan is mostly holes: it is a row with what was found, and no view of the sample."""
    scene = room(views=3)
    holes = np.zeros_like(scene.frames[1].depth)
    holes[:, : holes.shape[1] // 10] = 1000
    frames = [replace(frame, depth=holes) if i == 1 else frame for i, frame in enumerate(scene.frames)]
    write_seven_scenes(tmp_path / "scan", replace(scene, frames=frames), np.eye(3))
    job = ingest_job(tmp_path / "out")
    job["reader"] = {
        "kind": "seven_scenes",
        "seven_scenes": {"root": str(tmp_path / "scan"), "up": [0.0, 0.0, 1.0]},
    }
    job["views"]["candidate_step"] = 1
    assert main(["ingest", write(tmp_path / "job.yaml", job)]) == 0
    assert (
        "rejected 1: too little valid depth, such as scan frame-000001 (each in rejects.csv)"
        in capsys.readouterr().out
    )
    header, *rows = csv.reader((tmp_path / "out" / "rejects.csv").read_text().splitlines())
    assert header == ["scene_id", "frame_id", "reason", "value"]
    expected = "0.100 of the pixels, at least 0.3"
    assert rows == [["scan", "frame-000001", "too little valid depth", expected]]
    [sample] = open_dataset(str(tmp_path / "out"), StorageOptions()).samples()
    assert sample.view_valid.tolist() == [1, 1]
    assert all((depth > 0).mean() > 0.9 for depth in sample.depth)


def test_a_share_that_cannot_be(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    job = write(tmp_path / "job.yaml", ingest_job(tmp_path / "out"))
    assert main(["ingest", job, "views.min_valid_depth=1.5"]) == 2
    assert "min_valid_depth is 1.5" in says(capsys)


def test_captions_that_cannot_be_used_are_rejects(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """An empty text and a key that fits no frame cost themselves, not the scan."""
    write_seven_scenes(tmp_path / "scan", room(views=2), np.eye(3))
    views = {"0": ["", "a wall"], "000001.jpg": ["a door"], "frame-000009": ["a lamp"]}
    captions = {"scene_captions": ["a room", " "], "view_captions": views}
    (tmp_path / "scan" / "captions.json").write_text(json.dumps(captions))
    job = ingest_job(tmp_path / "out")
    job["reader"] = {
        "kind": "seven_scenes",
        "seven_scenes": {"root": str(tmp_path / "scan"), "up": [0.0, 0.0, 1.0]},
    }
    assert main(["ingest", write(tmp_path / "job.yaml", job)]) == 0
    said = capsys.readouterr().out
    assert "rejected 1: caption of no frame, such as scan frame-000009 (each" in said
    [sample] = open_dataset(str(tmp_path / "out"), StorageOptions()).samples()
    assert (sample.scene_captions, sample.view_captions) == (["a room"], [["a wall"], ["a door"]])
    stats = manifests.load(Storage.from_uri(tmp_path / "out")).attributes["statistics"]
    assert (stats["rejected_frames"], stats["rejects"]) == (0, {"caption of no frame": 1, "empty caption": 2})
    rows = list(csv.DictReader((tmp_path / "out" / "rejects.csv").read_text().splitlines()))
    assert [(row["frame_id"], row["reason"], row["value"][:12]) for row in rows] == [
        ("frame-000009", "caption of no frame", "captions.jso"),
        ("", "empty caption", "caption 2 of"),
        ("frame-000000", "empty caption", "caption 1 of"),
    ]


def test_a_scan_with_no_valid_frame_leaves_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scan = tmp_path / "scan"
    scan.mkdir()
    np.savetxt(scan / "camera-intrinsics.txt", np.diag([30.0, 30.0, 1.0]))
    for i in range(3):
        (scan / f"frame-{i:06d}.depth.png").write_bytes(b"not a picture")
        np.savetxt(scan / f"frame-{i:06d}.pose.txt", np.eye(4))
    job = ingest_job(tmp_path / "out")
    job["reader"] = {"kind": "seven_scenes", "seven_scenes": {"root": str(scan), "up": [0.0, -1.0, 0.0]}}
    assert main(["ingest", write(tmp_path / "job.yaml", job)]) == 2
    assert "No valid frame in scan: 3 x unreadable depth" in says(capsys)
    assert not list((tmp_path / "out").rglob("*.parquet"))
    assert not (tmp_path / "out" / "MANIFEST.json").exists()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("reader={kind: scannet, scannet: {root: /nowhere/scans}}", "/nowhere/scans"),
        ("reader.rooms.rooms=0", "reader.rooms.rooms is 0, expected 1 or more"),
        ("shape.views=1", "views.single_images"),
        ("output=s3://", "names no bucket"),
    ],
)
def test_a_source_that_cannot_be_is_named(
    change: str, words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    job = ingest_job(tmp_path / "out")
    extra = ["views.single_images=true", "shape.views=2"] if change == "shape.views=1" else [change]
    assert main(["ingest", write(tmp_path / "job.yaml", job), *extra]) == 2
    assert words in says(capsys)


@pytest.mark.parametrize(
    "words",
    [
        ["ingest", "reader={kind: tum, tum: {root: /nowhere}}"],
        ["embed", "data=/nowhere"],
    ],
)
def test_a_wrong_folder_starts_no_cluster(
    words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(**_: object) -> None:
        raise AssertionError("Ray was started")

    monkeypatch.setattr("ray.init", refuse)
    jobs = {
        "ingest": write(tmp_path / "ingest.yaml", ingest_job(tmp_path / "out")),
        "embed": embed_file(tmp_path, "out"),
    }
    assert main([words[0], jobs[words[0]], *words[1:], "workers=2"]) == 2
    assert "/nowhere" in says(capsys)


def test_embedding_fills_the_columns_and_keeps_the_geometry(
    made: Path, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = StorageOptions()
    plain = write(folder / "plain.yaml", ingest_job(folder / "plain"))
    assert main(["ingest", plain]) == 0
    before, after = open_dataset(str(folder / "plain"), options), open_dataset(str(made / "rooms"), options)
    assert before.teacher is None
    assert after.teacher is not None
    assert (after.teacher.name, after.teacher.embedding) == ("teacher", 8)
    for a, b in zip(before.samples(), after.samples(), strict=True):
        assert a.sample_id == b.sample_id
        np.testing.assert_array_equal(a.depth, b.depth)
        assert b.image_embedding is not None
        assert b.caption_embedding is not None
        np.testing.assert_allclose(np.linalg.norm(b.image_embedding, axis=-1), 1, atol=2e-3)
        lengths = np.linalg.norm(b.caption_embedding.astype(np.float32), axis=-1)
        counts = [min(len(view), 3) for view in b.view_captions]
        expected = [[1] * n + [0] * (3 - n) for n in counts]
        assert np.rint(lengths).tolist() == expected
    assert main(["embed", embed_file(folder, "rooms")]) == 0
    assert "already embedded" in capsys.readouterr().out
    min((folder / "rooms" / "shards").iterdir()).unlink()
    assert main(["embed", embed_file(folder, "rooms")]) == 2
    assert "missing (expected" in capsys.readouterr().err


def test_embedding_needs_colour(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    job = ingest_job(folder / "grey", rooms=2)
    job["views"]["colour"] = False
    assert main(["ingest", write(folder / "grey.yaml", job)]) == 0
    assert main(["embed", embed_file(folder, "grey")]) == 2
    assert "views.colour=true" in says(capsys)
    assert open_dataset(str(folder / "grey"), StorageOptions()).teacher is None


def test_shards_inspect_verify_preview(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["shards", "inspect", str(folder / "rooms")]) == 0
    printed = capsys.readouterr().out
    assert "8 of 8 scenes, 2 views each" in printed
    assert "teacher at" in printed
    assert main(["shards", "verify", str(folder / "rooms")]) == 0
    picture = folder / "sheet.png"
    assert main(["shards", "preview", str(folder / "rooms"), "--out", str(picture), "--samples", "2"]) == 0
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_verify_names_samples_and_counts_that_contradict_the_manifest(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A data set whose every byte is as its manifest says, and that is wrong all the same."""
    storage = Storage.from_uri(folder / "rooms")
    dataset = open_dataset(storage.uri, StorageOptions())
    bad, *others = dataset.samples(3)
    bad.depth = np.zeros_like(bad.depth)
    bad.intrinsics = -bad.intrinsics
    shard = write_shard(
        storage, "shards/bad.parquet", encode([bad, bad, *others], dataset.shape), ShardOptions()
    )
    manifests.commit(storage, Manifest([shard], dataset.manifest.attributes))
    assert main(["shards", "verify", storage.uri]) == 2
    printed = capsys.readouterr().out
    assert f"a sample_id that another sample has: 1 sample: {bad.scene_id} (" in printed
    assert "valid views without any depth: 2 samples: " in printed
    assert "a focal length that is not above 0" in printed
    assert "the manifest says 8 samples, the shards hold 4" in printed
    assert "1 of 1 shards are whole" in printed


@pytest.mark.parametrize("damage", ["missing", "truncated", "altered"])
def test_verify_names_a_damaged_shard(damage: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    victim = sorted((folder / "rooms" / "shards").iterdir())[1]
    content = victim.read_bytes()
    if damage == "missing":
        victim.unlink()
    else:
        victim.write_bytes(content[:-100] if damage == "truncated" else content[:99] + b"x" + content[100:])
    assert main(["shards", "verify", str(folder / "rooms")]) == 2
    printed = capsys.readouterr().out
    assert f"{victim.name}: {damage}" in printed
    assert "1 of 2 shards are whole" in printed


def test_a_manifest_of_another_schema_version(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    storage = Storage.from_uri(folder / "rooms")
    written = manifests.load(storage)
    manifests.commit(storage, Manifest(written.shards, written.attributes | {"schema_version": 99}))
    assert main(["shards", "inspect", str(folder / "rooms")]) == 2
    assert "samples of schema version 99, this program reads 1" in says(capsys)


def test_no_data_set_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["shards", "inspect", str(tmp_path)]) == 2
    assert "is not a finished data set: there is no MANIFEST.json" in says(capsys)
