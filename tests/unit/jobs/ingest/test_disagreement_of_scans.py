"""`poma ingest` tells whether the views of a scan agree, and which mistake explains it where they do not."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from jobs.cli import main
from jobs.common.datasets import open_dataset
from jobs.doctor.storage import agreement
from plinth.data import manifest as manifests
from plinth.data.manifest import Manifest
from plinth.storage import Storage, StorageOptions
from poma3d.scenes.frame import SceneFrames
from tests.helpers.scans import MISTAKES, box_room, noisy, write_seven_scenes
from tests.helpers.tiny_jobs import ingest_job, write

VIEWS = 12
TURNED = np.array([[0.0, 0, 1], [1, 0, 0], [0, 1, 0]])
"""The world of the recording is not z-up: ingest turns it after it took the files at their word."""


def write_scan(folder: Path, scene: SceneFrames, mistake: str | None = None) -> None:
    """Its poses in the world `TURNED`, then the mistake."""
    frames = [replace(frame, pose=TURNED @ frame.pose) for frame in scene.frames]
    make = MISTAKES[mistake][0] if mistake is not None else replace
    write_seven_scenes(folder, replace(scene, frames=[make(frame) for frame in frames]), np.eye(3))


def job(folder: Path, **views: Any) -> str:
    """Ingests the scans in `folder`/scans into `folder`/out."""
    layout = {"root": str(folder / "scans"), "registered": True}
    content = ingest_job(folder / "out", views=4, reader={"kind": "seven_scenes", "seven_scenes": layout})
    content["views"] |= views
    return write(folder / "job.yaml", content)


def warned(out: str) -> list[str]:
    return [line for line in out.splitlines() if "warning: views" in line]


@pytest.mark.parametrize("sigma_mm", [0, 4])
@pytest.mark.parametrize("mistake", [name for name in MISTAKES if name not in ("halved", "cm", "mm")])
def test_each_mistake_is_named_once(
    mistake: str, sigma_mm: float, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scene = noisy(box_room(VIEWS), sigma_mm)
    write_scan(tmp_path / "scans" / "right", scene)
    write_scan(tmp_path / "scans" / "wrong", scene, mistake)
    assert main(["ingest", job(tmp_path, max_disagreement_mm=20, max_off_centre=0.5)]) == 0
    out = capsys.readouterr().out
    [line] = warned(out)
    assert MISTAKES[mistake][1] in line
    assert "1 scene, the first is wrong" in line
    record = open_dataset(str(tmp_path / "out"), StorageOptions()).disagreement
    assert record is not None
    assert record.scans["right"] < 20 < record.scans["wrong"]
    assert record.median_mm == pytest.approx(np.mean(list(record.scans.values())), abs=0.1)
    assert f"most: wrong {record.scans['wrong']:g}, right" in out


@pytest.mark.parametrize("unit", ["cm", "mm"])
def test_poses_in_another_unit_are_named_though_no_views_are_neighbours(
    unit: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_scan(tmp_path / "scans" / "wrong", noisy(box_room(VIEWS), 4), unit)
    assert main(["ingest", job(tmp_path)]) == 0
    [line] = warned(capsys.readouterr().out)
    assert f"views share nothing: {MISTAKES[unit][1]}, not in metres: divide" in line
    record = open_dataset(str(tmp_path / "out"), StorageOptions()).disagreement
    assert record is not None
    assert record.not_measured == {"views that follow each other are far apart": ["wrong"]}


def test_a_halved_picture_is_named_as_the_reason_of_its_rejects(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its principal point, which lies beyond the edge, tells before any view is compared."""
    write_scan(tmp_path / "scans" / "a", box_room(VIEWS), "halved")
    assert main(["ingest", job(tmp_path)]) == 2
    assert "12 x intrinsics of another image size" in capsys.readouterr().err


@pytest.fixture
def built(tmp_path: Path) -> Path:
    """Scans that agree, one of them of a single frame, and one with inverted poses, of a name in brackets."""
    scene = box_room(VIEWS)
    write_scan(tmp_path / "scans" / "right", scene)
    write_scan(tmp_path / "scans" / "one", replace(scene, frames=scene.frames[:1]))
    write_scan(tmp_path / "scans" / "$<b>$", scene, "inverted")
    assert main(["ingest", job(tmp_path)]) == 0
    return tmp_path / "out"


def test_a_scan_that_is_not_measured_says_why(built: Path) -> None:
    record = open_dataset(str(built), StorageOptions()).disagreement
    assert record is not None
    assert "disagreement of 1 scan not measured: one frame only; the first is one" in record.lines()
    assert record.not_measured == {"one frame only": ["one"]}
    assert record.of("one") == "disagreement not measured: one frame only"


def test_another_threshold_builds_nothing_anew(built: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    assert main(["ingest", str(built.parent / "job.yaml"), "views.max_disagreement_mm=60"]) == 0
    assert "already built" in capsys.readouterr().out


def test_inspect_preview_and_doctor_show_it(built: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A name that looks like a formula or like HTML is shown as it is."""
    assert main(["shards", "inspect", str(built)]) == 0
    assert "poses are inverted" in capsys.readouterr().out
    sheet = built.parent / "sheet.png"
    assert main(["shards", "preview", str(built), "--out", str(sheet)]) == 0
    assert "views disagree by" in capsys.readouterr().out
    assert sheet.exists()
    dataset = open_dataset(str(built), StorageOptions())
    figure, *doubts = dataset.remarks("$<b>$/003")
    assert figure.startswith("views disagree by")
    assert "poses are inverted" in doubts[-1]
    levels = [(finding.level.name, finding.what) for finding in agreement("main", dataset)]
    assert {name for name, _ in levels[:2]} == {"ok"}
    assert levels[-1][0] == "warn"
    assert "poses are inverted" in levels[-1][1]


def test_a_data_set_that_was_ingested_before_opens(built: Path) -> None:
    storage = Storage.from_uri(str(built), StorageOptions())
    manifest = manifests.load(storage)
    attributes = json.loads(json.dumps(manifest.attributes))
    del attributes["disagreement"], attributes["warnings"]
    manifests.commit(storage, Manifest(manifest.shards, attributes))
    dataset = open_dataset(str(built), StorageOptions())
    assert (dataset.disagreement, dataset.warnings) == (None, {})
    assert dataset.remarks("right") == []
    assert list(agreement("main", dataset)) == []
    assert main(["shards", "preview", str(built), "--out", str(built.parent / "sheet.png")]) == 0


def test_the_threshold_must_be_positive(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_scan(tmp_path / "scans" / "a", box_room(2))
    assert main(["ingest", job(tmp_path, max_disagreement_mm=0)]) == 2
    assert "max_disagreement_mm is 0" in capsys.readouterr().err
