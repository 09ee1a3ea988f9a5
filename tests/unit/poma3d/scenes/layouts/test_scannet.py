"""ScanNet's exported layout, written by the test as documented."""

import pickle
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from poma3d.sample import SampleShape
from poma3d.scenes.config import ScanNetConfig, ViewConfig
from poma3d.scenes.layouts.scannet import UNALIGNED, ScanNetReader, read_axis_alignment
from poma3d.scenes.views import to_samples
from tests.helpers.scans import (
    ALIGNMENT,
    box_room,
    camera_matrix,
    disagreement_mm,
    room,
    write_matrix,
    write_posed_images,
    write_scannet,
)

NAME = "scene0000_00"
AGREE_MM = 10.0
"""More than rounding to pixels gives in `box_room`, and far less than a mistake of convention."""
SHAPE = SampleShape(views=3, height=24, width=24)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write_scannet(tmp_path, NAME, room(5, views=12), ALIGNMENT)
    return tmp_path


def reader(root: Path, **config) -> ScanNetReader:
    return pickle.loads(pickle.dumps(ScanNetReader(ScanNetConfig(str(root), **config))))


def test_files_come_back_aligned_and_in_order(root: Path) -> None:
    original = room(5, views=12)
    scene = reader(root).read(NAME)
    assert [f.frame_id for f in scene.frames] == [str(i) for i in range(12)], "2 comes before 10"
    for frame, want in zip(scene.frames, original.frames, strict=True):
        np.testing.assert_array_equal(frame.depth, want.depth)
        np.testing.assert_allclose(frame.intrinsics, want.intrinsics)
        np.testing.assert_allclose(frame.pose[:, :3], want.pose[:, :3], atol=1e-5)
        np.testing.assert_allclose(frame.pose[:, 3], want.pose[:, 3] + ALIGNMENT[:3, 3], atol=1e-5)
        assert frame.colour().shape == (60, 60, 3)
    sample = to_samples(scene, SHAPE, ViewConfig())[0][0]
    assert len(sample.colour) == 3


def test_a_scan_without_alignment_keeps_its_world(tmp_path: Path) -> None:
    write_scannet(tmp_path, NAME, room(5, views=2), None)
    frame = reader(tmp_path).read(NAME).frames[1]
    np.testing.assert_allclose(frame.pose, room(5, views=2).frames[1].pose, atol=1e-9)
    (tmp_path / NAME / f"{NAME}.txt").unlink()
    np.testing.assert_allclose(reader(tmp_path).read(NAME).frames[1].pose, frame.pose)


def test_bad_frames_are_rejected_with_their_reasons(root: Path) -> None:
    folder = root / NAME
    write_matrix(folder / "pose" / "0.txt", np.full((4, 4), -np.inf))
    (folder / "depth" / "1.png").write_bytes(b"")
    (folder / "pose" / "3.txt").write_text("")
    (folder / "color" / "4.jpg").unlink()
    samples, rejects = to_samples(
        reader(root).read(NAME), SampleShape(views=12, height=24, width=24), ViewConfig(candidate_step=1)
    )
    assert [(r.frame_id, r.reason) for r in rejects] == [
        ("0", "non-finite pose"),
        ("1", "unreadable depth"),
        ("3", "unreadable pose"),
        ("4", "unreadable colour"),
    ]
    assert samples[0].view_valid.sum() == 8


@pytest.mark.parametrize("missing", ["intrinsic/intrinsic_depth.txt", "pose"])
def test_a_scan_with_no_valid_frame_gives_rejects_alone(root: Path, missing: str) -> None:
    (root / NAME / missing).rename(root / "gone")
    samples, rejects = to_samples(reader(root).read(NAME), SHAPE, ViewConfig(candidate_step=1))
    assert samples == []
    assert [r.scene_id for r in rejects] == [NAME] * 12


def test_a_scan_without_depth_is_named(root: Path) -> None:
    (root / "scene0001_00").mkdir()
    with pytest.raises(ValueError, match="scene scene0001_00: no frames"):
        reader(root).read("scene0001_00")


def test_scans_are_listed_or_named(root: Path, tmp_path: Path) -> None:
    assert reader(root).scene_ids() == [NAME]
    assert reader(root, scans=[NAME]).scene_ids() == [NAME]
    with pytest.raises(ValueError, match="1 of the named scans are not here, the first is scene9999_00"):
        reader(root, scans=[NAME, "scene9999_00"]).scene_ids()
    with pytest.raises(ValueError, match=f"1 scans more than once, the first is {NAME}"):
        reader(root, scans=[NAME, NAME]).scene_ids()
    with pytest.raises(ValueError, match="no scan here"):
        reader(root / NAME / "depth").scene_ids()


def test_a_bad_alignment_is_named(tmp_path: Path) -> None:
    path = tmp_path / "scene.txt"
    path.write_text("axisAlignment = 1 0 0\n")
    with pytest.raises(ValueError, match=r"scene\.txt: axisAlignment must be 16 numbers"):
        read_axis_alignment(path)


def test_posed_images_are_one_folder_whose_views_agree(tmp_path: Path) -> None:
    """The depth camera's file is read, not the colour camera's beside it."""
    original = box_room(12)
    write_posed_images(tmp_path / "posed_images", NAME, original)
    scene = reader(tmp_path / "posed_images").read(NAME)
    assert [f.frame_id for f in scene.frames] == [f"{i:05d}" for i in range(12)]
    assert scene.frames[0].colour().shape == (192, 256, 3)
    assert disagreement_mm(scene) < AGREE_MM
    (tmp_path / "posed_images" / NAME / "depth_intrinsic.txt").write_text(
        (tmp_path / "posed_images" / NAME / "intrinsic.txt").read_text()
    )
    assert disagreement_mm(reader(tmp_path / "posed_images").read(NAME)) > 4 * AGREE_MM, "the check can fail"


def test_frames_25k_has_intrinsics_beside_the_folders_and_its_texts_elsewhere(tmp_path: Path) -> None:
    original = box_room(4)
    write_scannet(tmp_path / "scans", NAME, original, ALIGNMENT)
    write_scannet(tmp_path / "tasks", NAME, original, ALIGNMENT)
    folder = tmp_path / "tasks" / NAME
    (folder / "intrinsic" / "intrinsic_depth.txt").rename(folder / "intrinsics_depth.txt")
    (folder / f"{NAME}.txt").unlink()
    for path in (folder / "color").glob("*.jpg"):
        Image.open(path).save(path.with_suffix(".png"))
        path.unlink()
    scene = reader(tmp_path / "tasks").read(NAME)
    assert scene.warnings == [UNALIGNED]
    assert disagreement_mm(scene) < AGREE_MM
    assert scene.frames[0].colour() is not None
    aligned = reader(tmp_path / "tasks", texts=str(tmp_path / "scans")).read(NAME)
    assert aligned.warnings == []
    np.testing.assert_allclose(aligned.frames[0].pose, reader(tmp_path / "scans").read(NAME).frames[0].pose)


def test_intrinsics_of_the_size_that_the_text_states_are_told(root: Path) -> None:
    """Depth written at half the size, the intrinsics not halved."""
    folder = root / NAME
    with (folder / f"{NAME}.txt").open("a") as file:
        file.write("depthWidth = 40\ndepthHeight = 40\n")
    reader(root).read(NAME)
    for path in (folder / "depth").iterdir():
        Image.fromarray(np.asarray(Image.open(path))[::2, ::2].copy()).save(path)
    with pytest.raises(ValueError, match="depth maps are 20 x 20, but the intrinsics are for 40 x 40"):
        reader(root).read(NAME)
    half = camera_matrix(room(5, views=1).frames[0].intrinsics / 2, 4)
    write_matrix(folder / "intrinsic" / "intrinsic_depth.txt", half)
    assert reader(root).read(NAME).frames[0].depth.shape == (20, 20)


def test_a_root_that_is_not_given_is_not_the_working_folder() -> None:
    with pytest.raises(ValueError, match="root is not given"):
        ScanNetReader(ScanNetConfig()).scene_ids()
