"""Axes, scale and confidence of lifted maps; the real scan against its true camera."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from poma3d.geometry import unproject
from poma3d.lift.config import ConventionConfig
from poma3d.lift.convention import to_sample
from poma3d.lift.given import GivenLifter, decode_depth
from poma3d.lift.lifter import BadImage, GivenDepth, InputImage, Lifted
from poma3d.sample import Sample, SampleShape, encode
from poma3d.scenes.config import SevenScenesConfig, ViewConfig
from poma3d.scenes.layouts.seven_scenes import SevenScenesReader
from poma3d.scenes.views import to_samples
from tests.helpers.scans import REDKITCHEN, room

SHAPE = SampleShape(views=1, height=24, width=24)
INTRINSICS = np.array([20.0, 20.0, 11.5, 11.5])


def picture() -> InputImage:
    return InputImage("0a", np.full((30, 40, 3), 90, np.uint8), ["a wall"] * 7)


def points(sample: Sample) -> np.ndarray:
    """Point map [H, W, 3] of the sample's one view."""
    tensors = (torch.from_numpy(np.array(x[0])) for x in (sample.depth, sample.intrinsics, sample.pose))
    depth, intrinsics, pose = tensors
    return unproject(depth, sample.depth_scale, intrinsics, pose).numpy()


def made(depth: np.ndarray, config: ConventionConfig | None = None, **more) -> Sample:
    lifted = Lifted(depth.astype(np.float32), INTRINSICS, **{"metric": True, **more})
    sample = to_sample(picture(), lifted, "images", SHAPE, config or ConventionConfig())
    encode([sample], SHAPE)  # it fits the schema
    return sample


def test_the_world_is_z_up_and_y_ahead() -> None:
    depth = np.full((24, 24), 2.0)
    depth[0] = 3.0  # the top row is farther
    grid = points(made(depth))
    np.testing.assert_allclose(grid[12, 12, 1], 2.0, atol=2e-3)
    assert grid[1, 12, 2] > 0 > grid[-1, 12, 2], "the top of the image is up"
    assert grid[12, 0, 0] < 0 < grid[12, -1, 0]
    camera = points(made(depth, ConventionConfig(z_up=False)))
    np.testing.assert_allclose(
        np.stack([camera[..., 0], camera[..., 2], -camera[..., 1]], -1), grid, atol=1e-6
    )


def test_scale_known_or_not() -> None:
    ramp = np.linspace(1, 3, 24 * 24).reshape(24, 24)
    known = made(ramp)
    np.testing.assert_allclose(known.depth[0] * known.depth_scale, ramp, atol=6e-4)
    for sample in (made(ramp * 7, metric=False), made(ramp * 7, ConventionConfig(scale_metric=True))):
        np.testing.assert_allclose(np.median(sample.depth) * sample.depth_scale, 2.5, atol=2e-3)
    as_is = made(ramp * 7, ConventionConfig(median_depth_m=0.0), metric=False)
    np.testing.assert_allclose(as_is.depth[0] * as_is.depth_scale, ramp * 7, atol=6e-4)


def test_extents_beyond_a_room_get_a_coarser_unit() -> None:
    ramp = np.linspace(2, 300, 24 * 24).reshape(24, 24)
    far = made(ramp)
    assert far.depth_scale == pytest.approx(300 / 65535)
    np.testing.assert_allclose(far.depth[0] * far.depth_scale, ramp, atol=far.depth_scale)
    cut = made(ramp, ConventionConfig(max_depth_m=50.0))
    assert cut.depth_scale == 0.001
    assert (cut.depth[0] == 0).sum() == (ramp > 50).sum()


def test_the_least_confident_pixels_and_bad_values_lose_their_depth() -> None:
    depth = np.full((24, 24), 2.0)
    depth[0, 0], depth[0, 1], depth[0, 2] = np.nan, np.inf, -1.0
    confidence = np.arange(576, dtype=np.float32).reshape(24, 24)[::-1]
    sample = made(depth, ConventionConfig(drop_confidence=0.25), confidence=confidence)
    assert (sample.depth[0, 18:] == 0).all()
    assert (sample.depth[0, 0, :3] == 0).all()
    assert (sample.depth[0, 1:18] == 2000).all()
    assert sample.view_captions == [["a wall"] * 5], "more than the shape's captions are cut"


def test_values_that_cannot_be_are_named() -> None:
    for bad in ({"drop_confidence": 1.0}, {"depth_unit_m": 0.0}, {"max_depth_m": -1.0}, {"jpeg_quality": 0}):
        with pytest.raises(ValueError, match=next(iter(bad))):
            ConventionConfig(**bad).validate()


def test_a_picture_of_another_shape_than_its_depth_is_refused() -> None:
    given = GivenDepth(np.full((48, 64), 2, np.float32), np.array([60.0, 60, 31.5, 23.5]))
    upright, lying = np.zeros((96, 128, 3), np.uint8), np.zeros((128, 96, 3), np.uint8)
    one, other = GivenLifter().lift([InputImage("a", p, ["a room"], given) for p in (upright, lying)])
    assert isinstance(one, Lifted)
    assert isinstance(other, BadImage)
    assert (other.reason, other.value) == ("picture of another shape", "96 x 128, its depth map is 64 x 48")


def test_given_depth_is_handed_over_or_missed() -> None:
    frame = room(0, views=2).frames[0]
    given = GivenDepth(frame.depth.astype(np.float32) * 0.001, frame.intrinsics)
    with_depth = InputImage("a", frame.colour(), ["a room"], given)
    lifted, missing = GivenLifter().lift([with_depth, picture()])
    assert isinstance(lifted, Lifted)
    assert lifted.metric
    assert isinstance(missing, BadImage)
    assert missing.reason == "no depth or camera"


def test_depth_pictures_are_sixteen_bit() -> None:
    import io

    def png(array: np.ndarray) -> bytes:
        buffer = io.BytesIO()
        Image.fromarray(array).save(buffer, "PNG")
        return buffer.getvalue()

    depth = np.array([[0, 1000], [65535, 2500]], np.uint16)
    np.testing.assert_allclose(decode_depth(png(depth), 0.001), [[0, 1], [0, 2.5]])
    for bad in (b"nothing", png(np.zeros((4, 4, 3), np.uint8)), png(np.zeros((4, 4), np.uint8))):
        with pytest.raises(BadImage, match="unreadable depth"):
            decode_depth(bad, 0.001)


def test_a_lifted_map_of_the_real_scan_lies_where_its_room_map_does() -> None:
    """`given` with the scan's true camera: the same axes and metres as the single images of the scan, and
    the same points as its room maps, seen from the camera."""
    if not REDKITCHEN.is_dir():
        pytest.skip("the real RGB-D scan is not beside this checkout (../shared/data/rgbd/redkitchen)")
    shape = SampleShape(views=1, height=224, width=224)
    reader = SevenScenesReader(SevenScenesConfig(str(REDKITCHEN)))
    scene = reader.read(reader.scene_ids()[0])
    for frame in (scene.frames[0], scene.frames[len(scene.frames) // 2]):
        given = GivenDepth(frame.depth.astype(np.float32) * np.float32(scene.depth_scale), frame.intrinsics)
        [lifted] = GivenLifter().lift([InputImage("a", frame.colour(), ["a kitchen"], given)])
        sample = to_sample(
            InputImage("a", frame.colour(), ["a kitchen"]), lifted, "images", shape, ConventionConfig()
        )
        place = [f.frame_id for f in scene.frames].index(frame.frame_id)
        alone = type(scene)(scene.scene_id, scene.source, scene.frames[place : place + 1])
        [single] = to_samples(alone, shape, ViewConfig(candidate_step=1, single_images=True))[0]
        np.testing.assert_array_equal(sample.depth, single.depth)
        np.testing.assert_allclose(points(sample), points(single), atol=1e-5)
        [world] = to_samples(alone, shape, ViewConfig(candidate_step=1))[0]
        seen = points(world)
        back = np.linalg.inv(frame.pose[:, :3])  # recorded rotations are not quite orthonormal
        local = (seen - frame.pose[:, 3]) @ back.T  # in the camera's own axes
        want = np.stack([local[..., 0], local[..., 2], -local[..., 1]], -1)
        valid = sample.depth[0] > 0
        np.testing.assert_allclose(points(sample)[valid], want[valid], atol=2e-5)
