"""The 7-Scenes style: its files, its up, and the real scan where it is at hand."""

import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from poma3d.geometry import agreement, rotation_to_z_up, unproject
from poma3d.sample import SampleShape, decode, encode
from poma3d.scenes.config import SevenScenesConfig, ViewConfig
from poma3d.scenes.layouts.seven_scenes import SevenScenesReader
from poma3d.scenes.views import to_samples
from tests.helpers.scans import REDKITCHEN, room, write_seven_scenes

TILTED_UP = np.array([0.1, -0.9, -0.4]) / np.linalg.norm([0.1, -0.9, -0.4])
SHAPE = SampleShape(views=3, height=24, width=24)


@pytest.fixture
def scan(tmp_path: Path) -> Path:
    """A room written in a world whose up is TILTED_UP."""
    folder = tmp_path / "kitchen" / "seq-01"
    write_seven_scenes(folder, room(3, views=6, size=64), rotation_to_z_up(TILTED_UP).T)
    return folder


def read(folder: Path, **config):
    reader = pickle.loads(pickle.dumps(SevenScenesReader(SevenScenesConfig(str(folder), **config))))
    return reader.read(reader.scene_ids()[0])


def test_files_come_back_as_frames(scan: Path) -> None:
    original = room(3, views=6, size=64)
    scene = read(scan, up=TILTED_UP.tolist())
    assert scene.scene_id == "seq-01"
    assert scene.captions == original.captions
    for i, (frame, want) in enumerate(zip(scene.frames, original.frames, strict=True)):
        assert frame.frame_id == f"frame-{i:06d}"
        np.testing.assert_array_equal(frame.depth, want.depth)
        np.testing.assert_allclose(frame.intrinsics, want.intrinsics)
        np.testing.assert_allclose(frame.pose, want.pose, atol=1e-9)
        assert np.abs(frame.colour().astype(int) - want.colour()).mean() < 8
        assert frame.captions == (want.captions if i % 2 == 0 else [])


def test_up_is_found_from_the_surfaces(scan: Path) -> None:
    found, told = read(scan).frames[0].pose, read(scan, up=TILTED_UP.tolist()).frames[0].pose
    turned = found[:, :3] @ told[:, :3].T
    assert np.rad2deg(np.arccos(np.clip((turned @ [0, 0, 1])[2], -1, 1))) < 0.2


def test_scans_are_found_below_the_root(scan: Path) -> None:
    reader = SevenScenesReader(SevenScenesConfig(str(scan.parents[1])))
    assert reader.scene_ids() == ["kitchen/seq-01"]
    assert len(reader.read("kitchen/seq-01").frames) == 6


def test_intrinsics_may_lie_above_the_scan(scan: Path) -> None:
    (scan / "camera-intrinsics.txt").rename(scan.parent / "camera-intrinsics.txt")
    assert read(scan).frames[0].intrinsics[0] > 1


def test_saturated_depth_is_none(scan: Path) -> None:
    depth = np.asarray(Image.open(scan / "frame-000001.depth.png")).copy()
    depth[:5] = 65535
    Image.fromarray(depth).save(scan / "frame-000001.depth.png")
    assert not read(scan).frames[1].depth[:5].any()


def test_bad_files_are_rejected_with_their_reasons(scan: Path) -> None:
    (scan / "frame-000000.depth.png").write_bytes((scan / "frame-000000.depth.png").read_bytes()[:300])
    (scan / "frame-000001.pose.txt").write_text("1 0 0\nnot a pose")
    Image.fromarray(np.full((32, 32), 900, np.uint16)).save(scan / "frame-000002.depth.png")
    (scan / "frame-000003.pose.txt").unlink()
    Image.fromarray(np.zeros((64, 64, 3), np.uint8)).save(scan / "frame-000004.depth.png")
    samples, rejects = to_samples(read(scan, up=[0, -1, 0]), SHAPE, ViewConfig(candidate_step=1))
    assert [(r.frame_id[-1], r.reason) for r in rejects] == [
        ("0", "unreadable depth"),
        ("1", "unreadable pose"),
        ("2", "wrong shape"),
        ("3", "unreadable pose"),
        ("4", "unreadable depth"),
    ]
    assert "[32, 32], the scan has [64, 64]" in rejects[2].value
    assert samples[0].view_valid.tolist() == [1, 0, 0]


def test_without_intrinsics_the_scan_is_named(scan: Path) -> None:
    (scan / "camera-intrinsics.txt").unlink()
    with pytest.raises(ValueError, match=r"scene seq-01: no camera-intrinsics\.txt .*camera=7-scenes"):
        read(scan)
    (scan / "camera-intrinsics.txt").write_text("585 0 320")
    with pytest.raises(ValueError, match=r"camera-intrinsics\.txt: .* holds \[1, 3\], not \[3, 3\]"):
        read(scan)


def test_the_official_release_has_a_published_camera_and_splits(scan: Path) -> None:
    shutil.copytree(scan, scan.parent / "seq-02")
    for each in (scan, scan.parent / "seq-02"):
        (each / "camera-intrinsics.txt").unlink()
    (scan.parent / "TrainSplit.txt").write_text("sequence1\r\n")
    (scan.parent / "TestSplit.txt").write_text("sequence2\r\n")
    frame = read(scan.parent, up=[0, -1, 0], camera="7-scenes", split="test").frames[0]
    np.testing.assert_array_equal(frame.intrinsics, [585, 585, 320, 240])
    given = read(scan.parent, up=[0, -1, 0], intrinsics=[50, 51, 31, 32]).frames[0]
    np.testing.assert_array_equal(given.intrinsics, [50, 51, 31, 32])

    def ids(**config) -> list[str]:
        return SevenScenesReader(SevenScenesConfig(str(scan.parent), **config)).scene_ids()

    assert (ids(), ids(split="train"), ids(split="test")) == (["seq-01", "seq-02"], ["seq-01"], ["seq-02"])
    for wrong in ({"camera": "x"}, {"split": "x"}, {"intrinsics": [1]}):
        with pytest.raises(ValueError, match="expected"):
            ids(**wrong)


def test_files_of_a_mac_are_no_frames(scan: Path) -> None:
    want = read(scan, up=[0, -1, 0]).frames.frame_ids
    for path in list(scan.iterdir()):
        (scan / f"._{path.name}").write_bytes(b"Mac OS X")
    assert read(scan, up=[0, -1, 0]).frames.frame_ids == want


def test_an_empty_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no scan here"):
        SevenScenesReader(SevenScenesConfig(str(tmp_path))).scene_ids()
    with pytest.raises(ValueError, match="scene seq-02: no file named"):
        SevenScenesReader(SevenScenesConfig(str(tmp_path))).read("seq-02")


@pytest.mark.parametrize(
    "text", ["[1, 2", "[]", '{"view_captions": {"frame-000000": "text"}}', '{"scene_captions": 3}']
)
def test_a_bad_captions_file_is_named(scan: Path, text: str) -> None:
    (scan / "captions.json").write_text(text)
    with pytest.raises(ValueError, match=r"captions\.json"):
        read(scan)


@pytest.mark.skipif(not REDKITCHEN.is_dir(), reason="the redkitchen scan is not beside the repository")
class TestRedkitchen:
    @pytest.fixture(scope="class")
    @classmethod
    def tensors(cls) -> dict[str, np.ndarray]:
        """Every 4th frame as a view of one sample, through Parquet: what training reads."""
        shape = SampleShape(views=25, height=224, width=224)
        reader = SevenScenesReader(SevenScenesConfig(str(REDKITCHEN)))
        scene = reader.read("redkitchen")
        scene.frames = scene.frames[::4]
        samples, rejects = to_samples(scene, shape, ViewConfig(colour=False))
        assert not rejects
        return decode(encode(samples, shape))

    def test_overlapping_views_agree(self, tensors: dict[str, np.ndarray]) -> None:
        """Every pair that overlaps by half or more agrees to 2.5 cm in the median, at 224 x 224."""
        depth, scale, camera, pose = (tensors[k][0] for k in ("depth", "depth_scale", "intrinsics", "pose"))
        points = unproject(*(torch.from_numpy(np.array(a)) for a in (depth, scale, camera, pose))).numpy()
        medians = []
        for i in range(len(points)):
            for j in range(len(points)):
                found = agreement(points[i], depth[j] * scale, camera[j], pose[j])
                if i != j and found.overlap >= 0.5:
                    medians.append(found.median_m)
        assert len(medians) > 100
        assert np.median(medians) < 0.013
        assert max(medians) < 0.025

    def test_an_inverted_pose_would_show(self, tensors: dict[str, np.ndarray]) -> None:
        depth, scale, camera, pose = (tensors[k][0] for k in ("depth", "depth_scale", "intrinsics", "pose"))
        turned = pose[..., :3].swapaxes(-1, -2)
        wrong = np.concatenate([turned, -turned @ pose[..., 3:]], -1)
        points = unproject(*(torch.from_numpy(np.array(a)) for a in (depth, scale, camera, wrong))).numpy()
        pairs = [
            agreement(points[i], depth[j] * scale, camera[j], wrong[j])
            for i in range(0, 25, 3)
            for j in range(25)
            if i != j
        ]
        assert np.median([p.median_m for p in pairs if p.overlap >= 0.2]) > 0.2

    def test_the_floor_is_level_and_below_the_table(self, tensors: dict[str, np.ndarray]) -> None:
        names = ("depth", "depth_scale", "intrinsics", "pose")
        points = unproject(*(torch.from_numpy(np.array(tensors[k][0])) for k in names)).numpy().reshape(-1, 3)
        heights = points[(points != 0).any(-1), 2]
        counts, edges = np.histogram(heights, np.arange(-2.0, 0.5, 0.02))
        table = edges[counts.argmax()]
        below = edges[:-1] < table - 0.4
        floor = edges[:-1][below][counts[below].argmax()]
        assert 0.6 < table - floor < 0.85, "a table stands about 0.7 m high"
        assert counts[edges[:-1] < floor - 0.15].sum() < 0.001 * len(heights), "nothing lies below the floor"

    def test_sub_scenes_of_eight_views(self) -> None:
        scene = SevenScenesReader(SevenScenesConfig(str(REDKITCHEN))).read("redkitchen")
        shape = SampleShape(views=8, height=224, width=224)
        config = ViewConfig(chunk_frames=20, candidate_step=1, captioned_first=True)
        samples, rejects = to_samples(scene, shape, config)
        assert not rejects
        assert len(samples) == 5
        assert all(sum(map(bool, s.view_captions)) == 4 for s in samples)
        assert all(len(s.colour) == 8 for s in samples)
