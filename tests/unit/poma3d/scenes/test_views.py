"""Frames to samples: coverage, sub-scenes, padding, rejects, single images."""

import io
from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from poma3d.geometry import unproject
from poma3d.sample import SampleShape, decode, encode
from poma3d.scenes.config import ViewConfig
from poma3d.scenes.frame import BadFrame, Frame, LazyFrames, SceneFrames
from poma3d.scenes.views import CAMERA_TO_Z_UP, choose_views, to_samples
from tests.helpers.scans import room

SHAPE = SampleShape(views=3, height=24, width=32)


def spoil(frame: Frame, how: str) -> Frame:
    """A frame with one thing wrong."""
    if how == "non-finite pose":
        return replace(frame, pose=np.full((3, 4), -np.inf))
    if how == "pose is not a rotation":
        return replace(frame, pose=2 * frame.pose)
    if how == "no intrinsics":
        return replace(frame, intrinsics=np.array([0.0, 0, 20, 20]))
    if how == "too little valid depth":
        depth = frame.depth.copy()
        depth[len(depth) // 4 :] = 0
        return replace(frame, depth=depth)
    assert how == "wrong shape"
    return replace(frame, depth=frame.depth[None])


BAD = ["non-finite pose", "pose is not a rotation", "no intrinsics", "too little valid depth", "wrong shape"]


@pytest.mark.parametrize("how", BAD)
def test_a_bad_frame_is_rejected_with_its_reason(how: str) -> None:
    scene = room()
    scene.frames = [spoil(f, how) if i == 2 else f for i, f in enumerate(scene.frames)]
    samples, rejects = to_samples(scene, SHAPE, ViewConfig(candidate_step=1))
    assert [(r.scene_id, r.frame_id, r.reason) for r in rejects] == [(scene.scene_id, "002", how)]
    assert len(samples) == 1
    assert samples[0].view_valid.all()


@pytest.mark.parametrize("how", BAD)
def test_a_scene_without_a_valid_frame_gives_rejects_alone(how: str) -> None:
    scene = room()
    scene.frames = [spoil(f, how) for f in scene.frames]
    samples, rejects = to_samples(scene, SHAPE, ViewConfig(candidate_step=1))
    assert samples == []
    assert [r.reason for r in rejects] == [how] * 6


def test_an_empty_scene_gives_nothing() -> None:
    assert to_samples(SceneFrames("nothing", "test", []), SHAPE, ViewConfig()) == ([], [])


def test_a_sample_goes_through_parquet_and_keeps_its_views() -> None:
    scene = room()
    samples, _ = to_samples(scene, SHAPE, ViewConfig(candidate_step=1))
    table = encode(samples, SHAPE)
    back = decode(table)
    assert back["depth"].shape == (1, 3, 24, 32)
    sample = samples[0]
    assert sample.source == "rooms"
    assert sample.scene_captions == scene.captions[:4]
    for depth, pose, captions, jpeg in zip(
        sample.depth, sample.pose, sample.view_captions, sample.colour, strict=True
    ):
        frame = next(f for f in scene.frames if np.allclose(f.pose, pose, atol=1e-6))
        assert set(np.unique(depth)) <= set(np.unique(frame.depth)), "no depth is made up"
        assert captions == frame.captions[:5]
        assert Image.open(io.BytesIO(jpeg)).size == (32, 24)
    order = [f.frame_id for p in sample.pose for f in scene.frames if np.allclose(f.pose, p, atol=1e-6)]
    assert order == sorted(order)


def test_points_of_a_sample_are_points_of_its_frames() -> None:
    """A pixel of the sample carries the ray of the source pixel it came from, to under half of one."""
    scene = room(size=96)
    samples, _ = to_samples(scene, SampleShape(1, 32, 40), ViewConfig(candidate_step=1))
    sample = samples[0]
    frame = next(f for f in scene.frames if np.allclose(f.pose, sample.pose[0], atol=1e-6))
    whole = unproject(*map(torch.from_numpy, (frame.depth, np.array(0.001), frame.intrinsics, frame.pose)))
    small = unproject(*map(torch.from_numpy, (sample.depth, np.array(0.001), sample.intrinsics, sample.pose)))
    gap = torch.cdist(small[0].reshape(-1, 3), whole.reshape(-1, 3).float()).amin(1)
    pixel_m = torch.from_numpy(sample.depth[0].reshape(-1) * 0.001 / frame.intrinsics[0])
    assert (gap <= 0.75 * pixel_m + 1e-3).float().mean() > 0.99


def test_a_short_scene_is_filled_with_marked_repeats() -> None:
    scene = room(views=2)
    sample = to_samples(scene, replace(SHAPE, views=5), ViewConfig())[0][0]
    assert sample.view_valid.tolist() == [1, 1, 0, 0, 0]
    for i, j in ((2, 0), (3, 1), (4, 0)):
        np.testing.assert_array_equal(sample.depth[i], sample.depth[j])
        assert sample.colour[i] == sample.colour[j]


def test_candidates_are_thinned_only_while_views_last() -> None:
    seen = []

    def load(frame_id: str) -> Frame:
        seen.append(frame_id)
        return frames[int(frame_id)]

    frames = list(room(views=8).frames)
    scene = SceneFrames("s", "test", LazyFrames([str(i) for i in range(8)], load))
    to_samples(scene, SHAPE, ViewConfig(candidate_step=2))
    assert seen == ["0", "2", "4", "6"]
    seen.clear()
    to_samples(scene, replace(SHAPE, views=6), ViewConfig(candidate_step=2))
    assert seen == [str(i) for i in range(8)]


@pytest.mark.parametrize(("chunk", "parts"), [(0, 1), (4, 3), (5, 2), (100, 1)])
def test_a_long_scan_is_cut_into_near_equal_sub_scenes(chunk: int, parts: int) -> None:
    scene = room(views=12)
    samples, rejects = to_samples(scene, SHAPE, ViewConfig(candidate_step=1, chunk_frames=chunk))
    assert len(samples) == parts
    assert not rejects
    assert len({s.scene_id for s in samples}) == len({s.sample_id for s in samples}) == parts
    if chunk:
        assert samples[0].scene_id == f"{scene.scene_id}/000"
    places = [
        [i for p in s.pose for i, f in enumerate(scene.frames) if np.allclose(f.pose, p, atol=1e-6)]
        for s in samples
    ]
    flat = [i for part in places for i in part]
    assert flat == sorted(flat), "a sub-scene is consecutive frames"


def test_a_sub_scene_without_a_valid_frame_is_left_out() -> None:
    scene = room(views=6)
    scene.frames = [spoil(f, "non-finite pose") if i < 3 else f for i, f in enumerate(scene.frames)]
    samples, rejects = to_samples(scene, SHAPE, ViewConfig(candidate_step=1, chunk_frames=3))
    assert [s.scene_id for s in samples] == [f"{scene.scene_id}/001"]
    assert len(rejects) == 3


def test_unreadable_colour_is_rejected_and_another_view_taken(tmp_path) -> None:
    scene = room()
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"not a picture")
    first = to_samples(scene, SHAPE, ViewConfig(candidate_step=1))[0][0]
    worst = next(i for i, f in enumerate(scene.frames) if np.allclose(f.pose, first.pose[0], atol=1e-6))
    scene.frames = [replace(f, picture=broken) if i == worst else f for i, f in enumerate(scene.frames)]
    samples, rejects = to_samples(scene, SHAPE, ViewConfig(candidate_step=1))
    assert [(r.frame_id, r.reason) for r in rejects] == [(f"{worst:03d}", "unreadable colour")]
    assert samples[0].view_valid.all()
    assert len(samples[0].colour) == 3
    assert not to_samples(scene, SHAPE, ViewConfig(candidate_step=1, colour=False))[1]


def test_frames_with_captions_can_go_first() -> None:
    scene = room(views=8)
    scene.frames = [f if i in (1, 4, 5) else replace(f, captions=[]) for i, f in enumerate(scene.frames)]
    sample = to_samples(scene, SHAPE, ViewConfig(candidate_step=1, captioned_first=True))[0][0]
    assert all(sample.view_captions)


def test_a_single_image_lies_in_its_own_z_up_frame() -> None:
    scene = room()
    shape = replace(SHAPE, views=1)
    samples, _ = to_samples(scene, shape, ViewConfig(candidate_step=1, single_images=True))
    assert [s.scene_id for s in samples] == [f"{scene.scene_id}/{f.frame_id}" for f in scene.frames]
    sample = samples[0]
    assert sample.scene_captions == []
    assert sample.view_captions == [scene.frames[0].captions]
    tensors = map(
        torch.from_numpy, (sample.depth, np.array(sample.depth_scale), sample.intrinsics, sample.pose)
    )
    points = unproject(*tensors)[0]
    torch.testing.assert_close(points[..., 1], torch.from_numpy(sample.depth[0] * np.float32(0.001)))
    assert points[0, 16, 2] > 0 > points[-1, 16, 2], "the picture's upper half is up"
    assert points[12, 0, 0] < 0 < points[12, -1, 0], "its right half is right"
    np.testing.assert_array_equal(CAMERA_TO_Z_UP[:, :3] @ [1, 2, 3], [1, 3, -2])
    assert encode(samples, shape).num_rows == 6


def test_single_images_can_be_scaled_to_a_median_depth() -> None:
    config = ViewConfig(candidate_step=1, single_images=True, single_median_depth_m=2.5)
    for sample in to_samples(room(), replace(SHAPE, views=1), config)[0]:
        assert np.median(sample.depth * sample.depth_scale) == pytest.approx(2.5, rel=1e-3)


def test_single_images_need_a_shape_of_one_view() -> None:
    with pytest.raises(ValueError, match="views=3"):
        to_samples(room(), SHAPE, ViewConfig(single_images=True))


@pytest.mark.parametrize(
    "change", [{"voxel_m": 0.0}, {"candidate_step": 0}, {"chunk_frames": -1}, {"min_valid_depth": 2.0}]
)
def test_impossible_configs_are_refused(change: dict) -> None:
    with pytest.raises(ValueError, match=next(iter(change))):
        to_samples(room(views=1), SHAPE, ViewConfig(**change))


voxel_sets = st.lists(st.sets(st.integers(0, 30), min_size=1, max_size=12), min_size=1, max_size=9)


@settings(max_examples=60, deadline=None)
@given(voxel_sets, st.integers(1, 6))
def test_greedy_coverage(sets: list[set[int]], count: int) -> None:
    """As many views as asked for, each once, in order; at least 1 - 1/e of the best coverage."""
    chosen = choose_views([np.array(sorted(s)) for s in sets], count)
    assert len(chosen) == min(count, len(sets))
    assert chosen == sorted(set(chosen))
    covered = len(set().union(*(sets[i] for i in chosen)))
    best = max(len(set().union(*pick)) for pick in combinations(sets, len(chosen)))
    assert covered >= (1 - 1 / np.e) * best - 1e-9


def test_coverage_takes_the_most_telling_views() -> None:
    views = [np.arange(10), np.arange(9), np.arange(5, 15), np.array([20])]
    assert choose_views(views, 2) == [0, 2]
    assert choose_views(views, 3) == [0, 2, 3]
    assert choose_views(views, 1, preferred=[False, True, False, True]) == [1]


def test_coverage_starts_anew_when_all_is_covered() -> None:
    views = [np.array([1]), np.arange(10), np.arange(8), np.array([2])]
    assert choose_views(views, 2) == [1, 2]


def test_lazy_frames_raise_when_asked() -> None:
    def load(frame_id: str) -> Frame:
        raise BadFrame("unreadable depth", frame_id)

    frames = LazyFrames(["a", "b"], load)
    assert len(frames[1:]) == 1
    assert frames[1:].frame_ids == ["b"]
    with pytest.raises(BadFrame, match="unreadable depth: b"):
        frames[1]
