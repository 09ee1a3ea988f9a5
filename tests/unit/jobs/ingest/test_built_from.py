"""What a data set was built from is noticed when it changes, and only then."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from jobs.cli import main
from jobs.ingest.command import PLACES, Part, build_hash
from jobs.ingest.config import IngestJob
from jobs.jobfile import read
from plinth.data import manifest as manifests
from plinth.storage import Storage
from tests.helpers.scans import room, write_seven_scenes
from tests.helpers.tiny_jobs import ingest_job, write


def add_scan(folder: Path, number: int) -> None:
    write_seven_scenes(folder / f"seq-{number:02d}", room(number, views=2, size=20), np.eye(3))


@pytest.fixture
def scans(tmp_path: Path) -> Path:
    """Two scans."""
    for number in range(2):
        add_scan(tmp_path / "scans", number)
    return tmp_path / "scans"


@pytest.fixture
def job(scans: Path, tmp_path: Path) -> str:
    content = ingest_job(tmp_path / "out")
    content["reader"] = {"kind": "seven_scenes", "seven_scenes": {"root": str(scans), "up": [0.0, 0.0, 1.0]}}
    return write(tmp_path / "job.yaml", content)


def says(capsys: pytest.CaptureFixture[str]) -> str:
    """The one line of an error."""
    [line] = capsys.readouterr().err.strip().splitlines()
    return line


def edit(path: Path) -> None:
    """Another text of the same size."""
    path.write_bytes(path.read_bytes()[:-1].replace(b"1", b"2", 1) + b"\n")


def touch(path: Path) -> None:
    os.utime(path, ns=(path.stat().st_atime_ns, path.stat().st_mtime_ns + 10**9))


def test_what_is_as_it_was_is_not_built_again(
    job: str, scans: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["ingest", job]) == 0
    capsys.readouterr()
    for path in scans.rglob("*.txt"):
        touch(path)
    assert main(["ingest", job]) == 0
    assert main(["ingest", job, "--check-inputs"]) == 0
    first, second = [line for line in capsys.readouterr().out.splitlines() if "already built" in line]
    assert first.endswith("already built from this job")
    assert "of 2 of 2 scans not every byte was recorded" in second


def test_a_place_may_be_written_in_any_way(
    job: str, scans: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main(["ingest", job]) == 0
    monkeypatch.chdir(tmp_path)
    for place in ("out", "./out", str(tmp_path / "out")):
        assert main(["ingest", job, f"output={place}"]) == 0
    assert capsys.readouterr().out.count("already built from this job") == 3

    part = Part(read(Path(job)).resolve(IngestJob, []), is_held_out=False)
    storage = Storage.from_uri(tmp_path / "out")
    manifest = manifests.load(storage)
    assert manifest.attributes["build"] == build_hash(part) != build_hash(part, PLACES)
    manifest.attributes["build"] = build_hash(part, PLACES)  # as earlier versions wrote it
    manifests.commit(storage, manifest)
    assert main(["ingest", job]) == 0
    assert "already built from this job" in capsys.readouterr().out


@pytest.mark.parametrize("check", [[], ["--check-inputs"]])
def test_changes_are_named(
    check: list[str], job: str, scans: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["ingest", job]) == 0
    before = (tmp_path / "out" / "MANIFEST.json").read_bytes()
    add_scan(scans, 2)
    pose = scans / "seq-01" / "frame-000001.pose.txt"
    size = pose.stat().st_size
    edit(pose)
    assert pose.stat().st_size == size
    assert main(["ingest", job, *check]) == 2
    line = says(capsys)
    assert "1 scan added (seq-02); 1 scan changed (seq-01)" in line
    assert "overwrite=true" in line
    assert (tmp_path / "out" / "MANIFEST.json").read_bytes() == before
    assert main(["ingest", job, "overwrite=true"]) == 0
    manifest = json.loads((tmp_path / "out" / "MANIFEST.json").read_bytes())
    assert manifest["attributes"]["statistics"]["samples"] == 3
    assert main(["ingest", job]) == 0


def test_every_byte_is_compared_where_asked(
    job: str, scans: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A picture of the same size and time is known only by its bytes."""
    assert main(["ingest", job, "--check-inputs"]) == 0
    picture = scans / "seq-00" / "frame-000000.color.jpg"
    kept = picture.stat()
    content = bytearray(picture.read_bytes())
    content[-10] ^= 1
    picture.write_bytes(content)
    os.utime(picture, ns=(kept.st_atime_ns, kept.st_mtime_ns))
    assert main(["ingest", job]) == 0
    capsys.readouterr()
    assert main(["ingest", job, "--check-inputs"]) == 2
    assert "1 scan changed (seq-00)" in says(capsys)
    touch(picture)  # its time alone makes it worth a look, at all bytes since those were recorded
    assert main(["ingest", job]) == 2


def test_inputs_that_are_gone_or_unknown_are_no_error(
    job: str, scans: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["ingest", job]) == 0
    shutil.rmtree(scans / "seq-01")
    assert main(["ingest", job]) == 0
    assert "1 scan no longer there (seq-01)" in capsys.readouterr().out
    shutil.rmtree(scans)
    assert main(["ingest", job]) == 0
    assert "were not compared" in capsys.readouterr().out
    (tmp_path / "out" / "inputs.json").unlink()
    assert main(["ingest", job]) == 0
    assert "unknown whether they have changed" in capsys.readouterr().out
    (tmp_path / "out" / "inputs.json").write_text("{")
    assert main(["ingest", job]) == 2
    assert "inputs.json is not the record" in says(capsys)


def test_a_camera_above_the_scans_is_an_input_of_each(
    job: str, scans: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    camera = (scans / "seq-00" / "camera-intrinsics.txt").rename(scans / "camera-intrinsics.txt")
    (scans / "seq-01" / "camera-intrinsics.txt").unlink()
    assert main(["ingest", job]) == 0
    edit(camera)
    assert main(["ingest", job]) == 2
    assert "2 scans changed (seq-00, seq-01)" in says(capsys)


def test_a_build_that_did_not_finish_is_not_taken_for_the_old_one(
    job: str, scans: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["ingest", job]) == 0
    before = (tmp_path / "out" / "MANIFEST.json").read_bytes()
    add_scan(scans, 2)
    assert main(["ingest", job, "overwrite=true"]) == 0
    (tmp_path / "out" / "MANIFEST.json").write_bytes(before)  # as if the build had died before its last step
    assert main(["ingest", job]) == 2
    assert "did not finish" in says(capsys)
    assert main(["ingest", job, "overwrite=true"]) == 0


def test_a_data_set_beside_its_scans(scans: Path, tmp_path: Path) -> None:
    content = ingest_job(scans / "seq-00" / "out")
    root = str(scans / "seq-00")
    content["reader"] = {"kind": "seven_scenes", "seven_scenes": {"root": root, "up": [0.0, 0.0, 1.0]}}
    job = write(tmp_path / "job.yaml", content)
    assert main(["ingest", job]) == 0
    assert main(["ingest", job]) == 0


@pytest.mark.parametrize("damage", ["missing", "truncated"])
def test_a_data_set_whose_shards_are_damaged_is_not_called_built(
    damage: str, job: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["ingest", job]) == 0
    shard = min((tmp_path / "out" / "shards").iterdir())
    whole = shard.read_bytes()
    shard.unlink() if damage == "missing" else shard.write_bytes(whole[:100])
    capsys.readouterr()
    assert main(["ingest", job]) == 2
    said = says(capsys)
    assert f"shards/{shard.name}: {damage}" in said
    assert "overwrite=true builds it again" in said
    assert main(["ingest", job, "overwrite=true"]) == 0
    assert shard.read_bytes() == whole


def test_a_data_set_whose_manifest_is_damaged_is_built_again_where_asked(
    job: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["ingest", job]) == 0
    manifest = tmp_path / "out" / "MANIFEST.json"
    whole = manifest.read_bytes()
    manifest.write_bytes(whole[:100])
    capsys.readouterr()
    assert main(["ingest", job]) == 2
    said = capsys.readouterr().err.splitlines()[-1]
    assert "MANIFEST.json is not a manifest" in said
    assert said.endswith("; overwrite=true builds it again.")
    assert main(["ingest", job, "overwrite=true"]) == 0
    assert manifest.read_bytes() == whole
