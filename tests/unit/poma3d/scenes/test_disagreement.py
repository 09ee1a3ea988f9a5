"""Cross-view disagreement: the measure against a naive one, the pairs, and the mistake that is named."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from poma3d.scenes.config import SevenScenesConfig
from poma3d.scenes.disagreement import Comparison, Disagreement, Pairs, diagnose, examine, seen_by
from poma3d.scenes.frame import Frame, SceneFrames
from poma3d.scenes.layouts.seven_scenes import SevenScenesReader
from poma3d.scenes.mistakes import Look
from poma3d.scenes.orientation import turned
from tests.helpers.scans import MISTAKES, REDKITCHEN, box_room, five_thousand, inverted, noisy, opengl, room

VIEWS = 12
WORLD = np.array([[0.0, 0, 1, 0.3], [1, 0, 0, -2], [0, 1, 0, 1], [0, 0, 0, 1]])
"""From the recording's world to that of the poses."""


def pairs_of(scene: SceneFrames) -> Pairs:
    pairs = Pairs(scene, len(scene.frames))
    for frame in scene.frames:
        pairs.add(frame)
    return pairs


def examined(scene: SceneFrames, max_mm: float = 40.0) -> Disagreement:
    return examine(pairs_of(scene), max_mm)


def changed(scene: SceneFrames, change: Callable[[Frame], Frame]) -> SceneFrames:
    return replace(scene, frames=[change(frame) for frame in scene.frames])


def narrow(frame: Frame) -> Frame:
    return replace(frame, depth=frame.depth[:, 36:84], intrinsics=frame.intrinsics - [0, 0, 36, 0])


def naive(one: Look, other: Look) -> tuple[list[float], list[float]]:
    """z and stored depth of the sampled pixels, one at a time."""
    z, stored = [], []
    height, width = one.depth.shape
    step = width // 32
    for v in range(step // 2, height, step):
        for u in range(step // 2, width, step):
            depth = float(one.depth[v, u]) * one.scale
            if depth == 0:
                continue
            fx, fy, cx, cy = one.intrinsics
            point = np.array([depth * (u - cx) / fx, depth * (v - cy) / fy, depth, 1.0])
            x, y, ahead, _ = np.linalg.solve(other.pose, one.pose @ point)
            fx, fy, cx, cy = other.intrinsics
            if ahead <= 0:
                continue
            column, row = round(fx * x / ahead + cx), round(fy * y / ahead + cy)
            if 0 <= row < other.depth.shape[0] and 0 <= column < other.depth.shape[1]:
                seen = float(other.depth[row, column]) * other.scale
                if seen > 0:
                    z.append(ahead)
                    stored.append(seen)
    return z, stored


def test_what_a_view_sees_of_another_equals_a_naive_projection() -> None:
    scene = noisy(box_room(VIEWS), 10)
    scene.frames[0].depth[10:30, 20:60] = 0
    [(one, other), *_] = pairs_of(scene).all()
    for first, second in ((one, other), (other, one)):
        z, stored, sampled = seen_by(first, second)
        expected_z, expected_stored = naive(first, second)
        assert 100 < len(z) < sampled
        np.testing.assert_allclose(z, expected_z, rtol=1e-12)
        np.testing.assert_array_equal(stored, expected_stored)


def test_right_views_that_share_too_little_have_no_mistake() -> None:
    """The bar is met or missed by a pixel: what moves pixels a little, or a pair alone, is no cause."""
    pairs = pairs_of(box_room(VIEWS)).all()
    assert len(pairs) > 1
    unmeasured = Comparison(np.nan, np.nan, 0)
    assert all(diagnose([pair], unmeasured, 40.0) is None for pair in pairs)
    found = diagnose(pairs, unmeasured, 40.0)
    assert found is None or found.parts


@pytest.mark.parametrize("sigma_mm", [0, 5])
def test_a_scan_that_is_right_is_silent(sigma_mm: float) -> None:
    found = examined(noisy(box_room(VIEWS), sigma_mm))
    assert found.median_mm is not None
    assert found.median_mm < 15
    assert (found.not_measured, found.warning) == ("", "")


@pytest.mark.parametrize("turns", [0, 1])
@pytest.mark.parametrize("sigma_mm", [0, 5])
@pytest.mark.parametrize("mistake", MISTAKES)
def test_the_mistake_is_named(mistake: str, sigma_mm: float, turns: int) -> None:
    """Also where the reader turned the pictures and the world after it took the files at their word."""
    make, words = MISTAKES[mistake]
    scene = changed(noisy(box_room(VIEWS), sigma_mm), make)

    def read(frame: Frame) -> Frame:
        return turned(replace(frame, pose=WORLD[:3, :3] @ frame.pose + WORLD[:3, 3:] * [0, 0, 0, 1]), turns)

    found = examined(replace(changed(scene, read), world=WORLD), max_mm=20)
    assert words in found.warning


@pytest.mark.parametrize("axes", [opengl, lambda frame: frame])
def test_inverted_poses_of_opengl_are_named(axes: Callable[[Frame], Frame]) -> None:
    """Also where the reader turns such axes, after it took the matrix at its word."""
    scene = changed(box_room(VIEWS), lambda frame: axes(inverted(opengl(frame))))
    assert "poses are inverted, of cameras with OpenGL's axes" in examined(scene).warning


def test_poses_that_stay_while_the_views_change_are_named() -> None:
    scene = noisy(box_room(VIEWS), 5)
    found = examined(changed(scene, lambda frame: replace(frame, pose=scene.frames[0].pose)))
    assert found.median_mm is not None
    assert found.median_mm > 40
    assert "the poses stay where they are while the views change" in found.warning


def test_depth_that_is_too_small_to_differ_by_much_is_named() -> None:
    """Millimetres read as a tenth of one: what disagrees is as small as the room."""
    scene = changed(noisy(box_room(VIEWS), 5), lambda frame: replace(frame, depth=frame.depth // 10))
    found = examined(scene, max_mm=400)
    assert found.median_mm is not None
    assert found.median_mm < 400
    assert "depth has 100 units a metre, not 1000" in found.warning


def test_two_mistakes_are_no_single_one() -> None:
    found = examined(changed(box_room(VIEWS), lambda frame: five_thousand(opengl(frame))))
    assert found.median_mm is None or found.median_mm > 40
    assert "no single mistake" in found.warning


def test_a_mistake_that_leaves_no_overlap_is_named() -> None:
    """With the wrong axes a camera that turns to one side seems to turn to the other: views of 27 degrees."""
    scene = changed(replace(box_room(25), frames=box_room(25).frames[::4]), narrow)
    assert examined(scene).median_mm is not None
    found = examined(changed(scene, opengl))
    assert found.median_mm is None
    assert found.not_measured
    assert "OpenGL's axes" in found.warning


def test_a_scan_that_cannot_be_measured_says_why() -> None:
    scene = box_room(VIEWS)
    one = replace(scene, frames=scene.frames[:1])
    still = replace(scene, frames=[scene.frames[0]] * 5)
    elsewhere = replace(scene.frames[0], depth=np.where(np.arange(128) < 64, scene.frames[0].depth, 0))
    near = replace(scene.frames[0], depth=np.full((96, 128), 10, np.uint16))
    away = [replace(near, pose=_shifted(near.pose, 0.5 * i)) for i in range(5)]
    points = replace(elsewhere, points=np.zeros((96, 128, 3), np.float16))
    for scan, why in (
        (one, "one frame only"),
        (still, "the camera hardly moves"),
        (replace(scene, frames=away), "neighbouring views share too little"),
        (room(0, views=8), "views that follow each other are far apart"),
        (replace(scene, frames=[points] * 3), "no usable frame with a camera"),
        (replace(scene, frames=[]), "no usable frame with a camera"),
    ):
        assert examined(scan) == Disagreement(not_measured=why)


def _shifted(pose: np.ndarray, by_m: float) -> np.ndarray:
    moved = pose.copy()
    moved[:, 3] += by_m
    return moved


def test_pairs_are_spread_over_a_long_scan() -> None:
    scene = box_room(VIEWS)
    frames = [scene.frames[i % VIEWS] for i in range(400)]
    pairs = Pairs(scene, len(frames))
    at = []
    for place, frame in enumerate(frames):
        before = len(pairs.all())
        pairs.add(frame)
        at += [place] if len(pairs.all()) > before else []
    assert len(at) == 12
    assert at[-1] > 300
    assert all(np.linalg.norm(one.pose[:3, 3] - other.pose[:3, 3]) < 1 for one, other in pairs.all())


@pytest.fixture(scope="module")
def real_scan() -> SceneFrames:
    """As it is recorded, decoded once."""
    if not REDKITCHEN.is_dir():
        pytest.skip("no real scan beside the repository")
    config = SevenScenesConfig(str(REDKITCHEN), up=[0, 0, 1], upright=False)
    scene = SevenScenesReader(config).read(REDKITCHEN.name)
    return replace(scene, frames=list(scene.frames[::2]))


def test_a_real_scan_disagrees_by_its_noise(real_scan: SceneFrames) -> None:
    found = examined(real_scan)
    assert found.median_mm is not None
    assert 5 < found.median_mm < 15
    assert found.warning == ""


@pytest.mark.parametrize("mistake", [name for name in MISTAKES if name != "focal"])
def test_the_mistake_is_named_in_a_real_scan(mistake: str, real_scan: SceneFrames) -> None:
    """But for the focal length: 10 % is within the noise of this scan, whose camera turns little."""
    make, words = MISTAKES[mistake]
    assert words in examined(changed(real_scan, make)).warning
