"""What headers and text files of recordings claim: units, sizes, counts, times; archives read in place."""

from __future__ import annotations

import json
import shutil
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest

from jobs.cli import main
from plinth.data import manifest as manifests
from plinth.storage import Storage
from poma3d.sample import SampleShape
from poma3d.scenes.config import ArkitScenesConfig, ScanNetConfig, ThreeRScanConfig, ViewConfig
from poma3d.scenes.layouts.arkitscenes import ArkitScenesReader
from poma3d.scenes.layouts.scannet import UNALIGNED
from poma3d.scenes.layouts.scannet_sens import ScanNetSensReader
from poma3d.scenes.layouts.three_rscan import ThreeRScanReader
from poma3d.scenes.views import to_samples
from tests.helpers.recordings import write_arkitscenes, write_sens, write_three_rscan
from tests.helpers.scans import box_room, disagreement_mm, room
from tests.helpers.tiny_jobs import ingest_job, write

VIDEO, SCAN, RECORDING = "41048190", "scan", "scene0000_00"
COUNT_AT, COLOUR_AT = 12 + len(b"StructureSensor") + 4 * 64 + 28, 12 + len(b"StructureSensor") + 4 * 64
"""Offsets in a .sens of `write_sens`: the number of frames, the compression of colour."""


def three_rscan(root: Path) -> ThreeRScanReader:
    return ThreeRScanReader(ThreeRScanConfig(str(root)))


def test_the_unit_in_info_is_honoured(tmp_path: Path) -> None:
    write_three_rscan(tmp_path, SCAN, room(5, views=2))
    info = tmp_path / SCAN / "sequence" / "_info.txt"
    text = info.read_text()
    info.write_text(text.replace("m_depthShift = 1000", "m_depthShift = 5000"))
    assert three_rscan(tmp_path).read(SCAN).depth_scale == pytest.approx(1 / 5000)
    info.write_text(text.replace("m_depthShift = 1000", "m_depthShift = 0"))
    with pytest.raises(ValueError, match="m_depthShift is 0, expected units per metre"):
        three_rscan(tmp_path).read(SCAN)
    info.write_text(text.replace("m_depthWidth = 40", "m_depthWidth = 80"))
    with pytest.raises(ValueError, match=r"intrinsics are for depth of \[40, 80\], the maps are \[40, 40\]"):
        three_rscan(tmp_path).read(SCAN)


def test_an_archive_is_read_in_place(tmp_path: Path) -> None:
    write_three_rscan(tmp_path, SCAN, box_room(4))
    unpacked = three_rscan(tmp_path).read(SCAN)
    want = [(f.depth, f.pose, f.colour()) for f in unpacked.frames]
    folder = tmp_path / SCAN / "sequence"
    (folder / "._frame-000000.depth.pgm").write_bytes(b"Mac OS X")
    shutil.make_archive(str(folder), "zip", folder)
    shutil.rmtree(folder)
    scene = three_rscan(tmp_path).read(SCAN)
    assert scene.frames.frame_ids == unpacked.frames.frame_ids
    for frame, (depth, pose, colour) in zip(scene.frames, want, strict=True):
        np.testing.assert_array_equal(frame.depth, depth)
        np.testing.assert_array_equal(frame.pose, pose)
        np.testing.assert_array_equal(frame.colour(), colour)
    assert not folder.exists()
    assert disagreement_mm(scene) < 10
    archive = tmp_path / SCAN / "sequence.zip"
    content = archive.read_bytes()
    archive.write_bytes(content[: len(content) // 2])
    with pytest.raises(ValueError, match=r"sequence\.zip: not a whole zip archive"):
        three_rscan(tmp_path).read(SCAN)
    with zipfile.ZipFile(archive, "w") as other:
        other.writestr("sequence/frame-000000.depth.pgm", b"P5\n4 4\n65535\n")
    with pytest.raises(ValueError, match=r"no _info\.txt in"):
        three_rscan(tmp_path).read(SCAN)
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as other:
        other.writestr("frame-000000.depth.pgm", bytes(2**26 + 1))
    with pytest.raises(ValueError, match=r"frame-000000\.depth\.pgm claims 67108865 bytes"):
        three_rscan(tmp_path).read(SCAN)


def test_a_picture_that_claims_too_many_pixels_is_a_reject(tmp_path: Path) -> None:
    write_three_rscan(tmp_path, SCAN, room(5, views=3))
    folder = tmp_path / SCAN / "sequence"
    (folder / "frame-000001.depth.pgm").write_bytes(b"P5\n99999 99999\n65535\n")
    _, rejects = to_samples(
        three_rscan(tmp_path).read(SCAN), SampleShape(3, 24, 24), ViewConfig(candidate_step=1)
    )
    assert [(r.frame_id[-1], r.reason) for r in rejects] == [("1", "unreadable depth")]


def sens(root: Path) -> ScanNetSensReader:
    return ScanNetSensReader(ScanNetConfig(str(root)))


def test_a_sens_that_claims_more_frames_than_its_bytes_can_hold(tmp_path: Path) -> None:
    path = tmp_path / RECORDING / f"{RECORDING}.sens"
    write_sens(path, room(5, views=3))
    content = bytearray(path.read_bytes())
    assert struct.unpack_from("<Q", content, COUNT_AT) == (3,)
    content[COUNT_AT : COUNT_AT + 8] = struct.pack("<Q", 10**12)
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"claims 1000000000000 frames, but \d+ bytes hold at most \d+"):
        sens(tmp_path).read(RECORDING)


def test_a_sens_that_claims_a_depth_map_of_any_size(tmp_path: Path) -> None:
    path = tmp_path / RECORDING / f"{RECORDING}.sens"
    write_sens(path, room(5, views=1))
    content = bytearray(path.read_bytes())
    content[COUNT_AT - 12 : COUNT_AT - 4] = struct.pack("<II", 2**20, 2**20)
    path.write_bytes(content)
    with pytest.raises(ValueError, match="claims depth maps of 1048576 x 1048576"):
        sens(tmp_path).read(RECORDING)


def test_raw_colour_gives_pictures_and_unknown_colour_is_refused(tmp_path: Path) -> None:
    path = tmp_path / RECORDING / f"{RECORDING}.sens"
    scene = room(5, views=3)
    write_sens(path, scene, raw_colour=True)
    read = sens(tmp_path).read(RECORDING)
    for frame, want in zip(read.frames, scene.frames, strict=True):
        np.testing.assert_array_equal(frame.colour()[1::3, 1::3], want.colour())
    assert len(to_samples(read, SampleShape(2, 24, 24), ViewConfig())[0][0].colour) == 2
    content = bytearray(path.read_bytes())
    content[COLOUR_AT : COLOUR_AT + 4] = struct.pack("<i", -1)
    path.write_bytes(content)
    with pytest.raises(ValueError, match="colour compression -1; known are"):
        sens(tmp_path).read(RECORDING)


def test_an_unaligned_scan_is_a_warning_in_the_result_and_the_manifest(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_sens(tmp_path / "scans" / RECORDING / f"{RECORDING}.sens", room(5, views=3))
    job = ingest_job(tmp_path / "out")
    job["reader"] = {"kind": "scannet_sens", "scannet_sens": {"root": str(tmp_path / "scans")}}
    assert main(["ingest", write(tmp_path / "job.yaml", job)]) == 0
    assert f"warning: {UNALIGNED}: 1 scene, the first is {RECORDING}" in capsys.readouterr().out
    manifest = manifests.load(Storage.from_uri(str(tmp_path / "out")))
    assert manifest.attributes["warnings"] == {UNALIGNED: [RECORDING]}


def arkit(root: Path, **config) -> ArkitScenesReader:
    return ArkitScenesReader(ArkitScenesConfig(str(root), **config))


def test_every_frame_without_pose_or_camera_is_a_row(tmp_path: Path) -> None:
    write_arkitscenes(tmp_path / VIDEO, room(6, views=6), unposed=(1, 4))
    sorted((tmp_path / VIDEO / "lowres_wide_intrinsics").iterdir())[3].unlink()
    scene = arkit(tmp_path).read(VIDEO)
    _, rejects = to_samples(scene, SampleShape(3, 24, 24), ViewConfig())
    assert [(r.frame_id[-3:], r.reason) for r in rejects] == [
        ("382", "no pose of its time"),
        ("582", "no intrinsics of its time"),
        ("682", "no pose of its time"),
    ]
    assert rejects[0].value == "the nearest is 0.100 s away, at most 0.005 s count"
    assert len(scene.frames) == 3


def test_colour_a_millisecond_beside_is_found(tmp_path: Path) -> None:
    write_arkitscenes(tmp_path / VIDEO, room(6, views=3), sideways=0)
    colours = sorted((tmp_path / VIDEO / "lowres_wide").iterdir())
    want = [frame.colour() for frame in arkit(tmp_path).read(VIDEO).frames]
    wide = tmp_path / VIDEO / "vga_wide"
    wide.mkdir()
    for path, beside in zip(colours, (-0.001, 0.001, 0.0), strict=True):
        time_s = float(path.stem.partition("_")[2]) + beside
        path.rename(wide / f"{VIDEO}_{time_s:.3f}.png")
        (wide / f"._{VIDEO}_{time_s:.3f}.png").write_bytes(b"Mac OS X")
    found = [frame.colour() for frame in arkit(tmp_path, colour="vga_wide").read(VIDEO).frames]
    np.testing.assert_array_equal(found, want)


def test_the_first_release_of_3dod(tmp_path: Path) -> None:
    folder = tmp_path / f"{VIDEO}_frames"
    write_arkitscenes(folder, box_room(4))
    want = arkit(tmp_path).read(folder.name)
    expected = [(f.frame_id.rpartition("_")[2], f.pose, f.colour()) for f in want.frames]
    for old, new in (
        ("depth", "depth_densified"),
        ("wide", "wide"),
        ("wide_intrinsics", "color_intrinsics"),
    ):
        (folder / f"lowres_{old}").rename(folder / new)
        for path in (folder / new).iterdir():
            path.rename(path.with_name(path.name.rpartition("_")[2]))
    (folder / "lowres_wide.traj").rename(folder / "color.traj")
    scene = arkit(tmp_path).read(folder.name)
    for frame, (frame_id, pose, colour) in zip(scene.frames, expected, strict=True):
        assert frame.frame_id == frame_id
        np.testing.assert_array_equal(frame.pose, pose)
        np.testing.assert_array_equal(frame.colour(), colour)
    assert disagreement_mm(scene) < 10


def test_linked_videos_are_found_and_loops_are_not_followed(tmp_path: Path) -> None:
    write_arkitscenes(tmp_path / "elsewhere" / VIDEO, room(6, views=2))
    root = tmp_path / "root"
    root.mkdir()
    (root / VIDEO).symlink_to(tmp_path / "elsewhere" / VIDEO)
    (root / "loop").symlink_to(root)
    (root / "up").symlink_to("..")
    assert arkit(root).scene_ids() == [VIDEO]
    assert len(arkit(root).read(VIDEO).frames) == 2


def test_a_camera_of_another_aspect_is_refused(tmp_path: Path) -> None:
    write_arkitscenes(tmp_path / VIDEO, room(6, views=3), sideways=0)
    for path in (tmp_path / VIDEO / "lowres_wide_intrinsics").iterdir():
        path.write_text("60 40 30 30 29.5 19.5")
    _, rejects = to_samples(arkit(tmp_path).read(VIDEO), SampleShape(3, 24, 24), ViewConfig(candidate_step=1))
    assert {r.reason for r in rejects} == {"wrong shape"}
    assert "is for [40, 60], the depth map is [40, 40]" in json.dumps([r.value for r in rejects])
