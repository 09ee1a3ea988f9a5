"""`poma ingest --detect`: every layout is told, what it lacks is said, no file is overwritten."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from jobs.cli import main
from jobs.ingest.config import IngestJob
from jobs.jobfile import load
from tests.helpers.recordings import write_arkitscenes, write_sens, write_three_rscan
from tests.helpers.scans import ALIGNMENT, room, write_scannet, write_scene_point, write_seven_scenes
from tests.helpers.scenes.layouts import (
    write_bundle_fusion,
    write_matterport,
    write_nerfstudio,
    write_open3d,
    write_replica,
    write_tum,
)

NAME = "scene0000_00"


def touch(iphone: Path) -> None:
    """A ScanNet++ recording by its names, which is all that is looked at."""
    iphone.mkdir(parents=True)
    for name in ("rgb.mkv", "depth.bin", "pose_intrinsic_imu.json"):
        (iphone / name).touch()


WRITERS: dict[str, Callable[[Path], object]] = {
    "seven_scenes": lambda root: write_seven_scenes(root / "kitchen" / "seq-01", room(views=2), np.eye(3)),
    "scannet": lambda root: write_scannet(root, NAME, room(views=2), ALIGNMENT),
    "scannet_sens": lambda root: write_sens(root / NAME / f"{NAME}.sens", room(views=2)),
    "three_rscan": lambda root: write_three_rscan(root, "scan", room(views=2)),
    "arkitscenes": lambda root: write_arkitscenes(root / "41048190", room(views=2)),
    "scene_point": lambda root: write_scene_point(root / f"{NAME}.safetensors"),
    "nerfstudio": lambda root: write_nerfstudio(root / "capture", room(views=2)),
    "tum": lambda root: write_tum(root / "rgbd_dataset_freiburg1_desk", room(views=2)),
    "open3d": lambda root: write_open3d(root / "livingroom", room(views=2)),
    "replica": lambda root: write_replica(root / "room0", room(views=2)),
    "matterport": lambda root: write_matterport(root / "17DRP5sb8fy", room(views=2)),
    "scenezoo": lambda root: touch(root / "data" / "0a5c013435" / "iphone"),
    "bundle_fusion": lambda root: write_bundle_fusion(root / "apt1" / "kitchen", room(views=2)),
}


@pytest.mark.parametrize("kind", WRITERS)
def test_a_layout_is_told_and_its_job_written(
    kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    WRITERS[kind](tmp_path / "data")
    job = tmp_path / "job.yaml"
    assert main(["ingest", "--detect", str(tmp_path / "data"), "--write", str(job)]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith(f"{kind}: ")
    assert [line.partition(":")[0] for line in printed.splitlines() if " scans in " in line] == [kind]
    assert "1 scans" in printed
    assert "  missing" not in printed
    read = load(IngestJob, job, [f"output={tmp_path / 'out'}"])
    assert read.reader.kind == kind
    assert getattr(read.reader, kind).root == str((tmp_path / "data").resolve())
    before = job.read_text()
    assert main(["ingest", "--detect", str(tmp_path / "data"), "--write", str(job)]) == 2
    assert "exists already" in capsys.readouterr().err
    assert job.read_text() == before


@pytest.mark.parametrize("kind", WRITERS)
def test_a_layout_behind_a_link_is_told(
    kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    WRITERS[kind](tmp_path / "disk")
    (tmp_path / "data").mkdir()
    for path in list((tmp_path / "disk").iterdir()):
        moved = path.rename(tmp_path / "disk" / f"moved-{path.name}")
        (tmp_path / "data" / path.name).symlink_to(moved)
    command = ["ingest", "--detect", str(tmp_path / "data"), "--write", str(tmp_path / "job.yaml")]
    assert main(command) == 0
    printed = capsys.readouterr().out
    assert printed.startswith(f"{kind}: ")
    assert "  missing" not in printed


def test_what_is_missing_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    WRITERS["scannet_sens"](tmp_path)
    WRITERS["scannet"](tmp_path / "exported")
    for path in (tmp_path / "exported" / NAME / "pose").iterdir():
        path.unlink()
    job = ["--write", str(tmp_path / "job.yaml")]
    assert main(["ingest", "--detect", str(tmp_path), *job]) == 0
    assert "without (optional): axis alignment ({scan}.txt) in 1 of 1" in capsys.readouterr().out
    assert main(["ingest", "--detect", str(tmp_path / "exported"), "--write", str(tmp_path / "b.yaml")]) == 0
    assert (
        f"missing: poses (pose/*.txt or [0-9]*.txt) in 1 of 1 scans looked at: {NAME}"
        in capsys.readouterr().out
    )


def test_two_layouts_are_listed_and_one_is_asked_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    WRITERS["scannet"](tmp_path)
    WRITERS["scannet_sens"](tmp_path)
    detect = ["ingest", "--detect", str(tmp_path), "--write", str(tmp_path / "job.yaml")]
    assert main(detect) == 2
    printed = capsys.readouterr()
    assert "scannet: " in printed.out
    assert "scannet_sens: " in printed.out
    assert "--layout scannet or --layout scannet_sens" in printed.err
    assert not (tmp_path / "job.yaml").exists()
    assert main([*detect, "--layout", "scannet_sens"]) == 0
    assert "kind: scannet_sens" in (tmp_path / "job.yaml").read_text()


def test_a_folder_of_none_says_what_was_looked_for_and_what_is_nearest(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "frame-000000.depth.pgm").touch()
    (tmp_path / "a" / "frame-000000.color.jpg").touch()
    assert main(["ingest", "--detect", str(tmp_path)]) == 2
    line = capsys.readouterr().err
    assert "arkitscenes: trajectory (lowres_wide.traj or color.traj)" in line, "all layouts are listed"
    assert "Nearest is" in line
    for words, error in (
        ([], "Expected a job file, or --detect"),
        (["--detect", "/nowhere"], "no such folder"),
    ):
        assert main(["ingest", *words]) == 2
        assert error in capsys.readouterr().err
    assert main(["ingest", "--detect", str(tmp_path), "--layout", "x"]) == 2
    assert "no such layout" in capsys.readouterr().err


def test_what_a_key_can_stand_for_is_said_in_the_job(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The official 7-Scenes release has no intrinsics."""
    WRITERS["seven_scenes"](tmp_path / "data")
    (tmp_path / "data" / "kitchen" / "seq-01" / "camera-intrinsics.txt").unlink()
    job = tmp_path / "job.yaml"
    assert main(["ingest", "--detect", str(tmp_path / "data"), "--write", str(job)]) == 0
    assert "or set reader.seven_scenes.camera: 7-scenes for the official" in capsys.readouterr().out
    out = f"output={tmp_path / 'out'}"
    assert "# Without intrinsics" in job.read_text()
    assert "Set reader.seven_scenes.camera: 7-scenes" in job.read_text()
    read = load(IngestJob, job, [out, "reader.seven_scenes.camera=7-scenes"])
    assert read.reader.seven_scenes.camera == "7-scenes"
    detect = ["ingest", "--detect", str(tmp_path / "data"), "--write"]
    assert main([*detect, str(tmp_path / "no" / "job.yaml")]) == 2
    assert "cannot be written" in capsys.readouterr().err
    assert main(["ingest", str(job), "--layout", "scannet"]) == 2
    assert "go with --detect" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("kind", "gone", "said"),
    [
        ("tum", "*/rgb.txt", "missing: list of pictures (rgb.txt)"),
        ("open3d", "*/camera_primesense.json", "or set reader.open3d.camera: primesense; or give intrinsics"),
        ("replica", "cam_params.json", "or set reader.replica.intrinsics: [600, 600, 599.5, 339.5]"),
        ("matterport", "*/undistorted_depth_images/*.png", "missing: depth (undistorted_depth_images/*.png)"),
        (
            "bundle_fusion",
            "*/*/data/*.pose.txt",
            "missing: poses (data/frame-*.pose.txt or frame-*.pose.txt)",
        ),
        ("scenezoo", "data/*/iphone/depth.bin", "missing: depth (iphone/depth.bin)"),
    ],
)
def test_what_a_layout_lacks_is_said(
    kind: str, gone: str, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "data"
    WRITERS[kind](root)
    files = list(root.glob(gone))
    assert files
    for path in files:
        path.unlink()
    main(["ingest", "--detect", str(root), "--layout", kind, "--write", str(tmp_path / "job.yaml")])
    assert said in capsys.readouterr().out


def test_a_camera_that_a_folders_name_would_tell(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_tum(tmp_path / "data" / "mine", room(views=2))
    assert main(["ingest", "--detect", str(tmp_path / "data"), "--write", str(tmp_path / "job.yaml")]) == 0
    assert "or set reader.tum.camera: freiburg1, freiburg2" in capsys.readouterr().out
