"""The cloud of a page: points merged evenly, cameras as pyramids, normals on the side that was seen."""

from __future__ import annotations

from collections import defaultdict

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from poma3d.geometry import project, unproject
from poma3d.view.cloud import Cloud, merge, normals, pyramids, quantise

HW = (24, 32)
INTRINSICS = np.array([30.0, 28.0, 15.5, 11.0])
POSE = np.array([[0.0, 0, 1, 2], [-1, 0, 0, 1], [0, -1, 0, 1.5]])  # looks along x, level


def scene(seed: int = 0, views: int = 3) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    points = rng.uniform(-3, 3, (views, *HW, 3))
    points[rng.random((views, *HW)) < 0.2] = 0
    return points, rng.integers(0, 256, (views, *HW, 3)).astype(np.uint8)


def naive(
    points: np.ndarray, rgb: np.ndarray, size: float
) -> dict[tuple[int, ...], tuple[list[float], set[int]]]:
    """Mean of each cell, point by point, and the views that see it."""
    rows = [
        (points[v, i, j], rgb[v, i, j], v)
        for v in range(len(points))
        for i in range(HW[0])
        for j in range(HW[1])
        if points[v, i, j].any()
    ]
    low = np.min([p for p, _, _ in rows], axis=0)
    cells = defaultdict(list)
    for point, colour, view in rows:
        cells[tuple(int(x) for x in (point - low) / size)].append((point, colour, view))
    return {
        cell: (
            [*np.mean([p for p, _, _ in of], axis=0), *np.rint(np.mean([c for _, c, _ in of], axis=0))],
            {v for _, _, v in of},
        )
        for cell, of in cells.items()
    }


def test_cells_are_merged_to_their_means() -> None:
    points, rgb = scene()
    cloud = merge(points, rgb, 300)
    expected = naive(points, rgb, cloud.spacing_m)
    assert len(cloud.points) == len(expected) <= 300
    found = np.hstack([cloud.points, cloud.rgb])
    means = np.array([row for row, _ in expected.values()])
    near = np.abs(found[:, None] - means[None]).max(axis=-1)
    match = near.argmin(axis=1)
    assert sorted(match) == list(range(len(expected))), "each cell once"
    assert near.min(axis=1).max() < 1e-5
    views = [seen for _, seen in expected.values()]
    assert [set(np.flatnonzero(row)) for row in cloud.seen_by] == [views[i] for i in match]


@given(most=st.integers(1, 3000), seed=st.integers(0, 5))
@settings(max_examples=25, deadline=None)
def test_never_more_points_than_asked_for(most: int, seed: int) -> None:
    points, rgb = scene(seed)
    cloud = merge(points, rgb, most)
    total = int(points.any(axis=-1).sum())
    assert 1 <= len(cloud.points) <= most
    assert (len(cloud.points) == total) == (total <= most)
    assert cloud.seen_by.any(axis=1).all(), "every point is seen by some view"


def test_few_points_stay_as_they_are() -> None:
    points, rgb = scene()
    cloud = merge(points, rgb, 10**6)
    seen = points.any(axis=-1)
    assert cloud.spacing_m == 0
    np.testing.assert_array_equal(cloud.points, points[seen].astype(np.float32))
    np.testing.assert_array_equal(cloud.rgb, rgb[seen])
    np.testing.assert_array_equal(cloud.seen_by.argmax(axis=1), np.nonzero(seen)[0])


def test_one_place_becomes_one_point() -> None:
    points = np.tile(np.array([1.0, 2.0, 3.0]), (2, *HW, 1))
    cloud = merge(points, np.zeros((2, *HW, 3), np.uint8), 5)
    np.testing.assert_allclose(cloud.points, [[1, 2, 3]])
    assert cloud.seen_by.tolist() == [[True, True]]


@pytest.mark.parametrize(("value", "word"), [(0.0, "no view has a point"), (np.nan, "NaN")])
def test_nothing_to_look_at_is_said(value: float, word: str) -> None:
    with pytest.raises(ValueError, match=word):
        merge(np.full((1, *HW, 3), value), np.zeros((1, *HW, 3), np.uint8), 10)


@given(seed=st.integers(0, 20), size=st.sampled_from([1e-3, 1.0, 50.0]))
@settings(max_examples=25, deadline=None)
def test_sixteen_bits_are_half_a_step_off_at_most(seed: int, size: float) -> None:
    points = np.random.default_rng(seed).normal(0, size, (50, 3)).astype(np.float32)
    small = quantise(points)
    back = small.origin + small.step * small.values.astype(np.float64)
    assert small.values.dtype == np.uint16
    assert np.abs(back - points).max() <= 0.5 * small.step * (1 + 1e-6) + 1e-9


def test_a_single_point_is_quantised() -> None:
    point = np.array([[1.0, -2.0, 0.5]], np.float32)
    small = quantise(point)
    np.testing.assert_allclose(small.origin + small.step * small.values, point)


def test_pyramids_end_at_the_corners_of_their_pictures() -> None:
    found = pyramids(INTRINSICS[None], POSE[None], HW, 0.4)[0]
    np.testing.assert_allclose(found[0], POSE[:, 3])
    pixels, depth = project(found[1:], INTRINSICS, POSE)
    np.testing.assert_allclose(depth, 0.4)
    right, low = HW[1] - 0.5, HW[0] - 0.5
    np.testing.assert_allclose(pixels, [[-0.5, -0.5], [right, -0.5], [right, low], [-0.5, low]], atol=1e-9)


def test_normals_of_a_wall_point_at_the_camera() -> None:
    depth = torch.full((1, *HW), 3.0)
    points = unproject(depth, 1.0, torch.tensor(INTRINSICS)[None], torch.tensor(POSE)[None]).numpy()
    found = normals(points)[0]
    np.testing.assert_allclose(found[4:-4, 4:-4], np.broadcast_to([-1.0, 0, 0], (16, 24, 3)), atol=1e-6)
    assert not found[:2].any(), "no normal where a neighbour is missing"


def test_tiny_maps_have_no_normals() -> None:
    assert not normals(np.ones((1, 3, 3, 3))).any()


def test_a_cloud_says_what_it_is() -> None:
    points, rgb = scene()
    cloud: Cloud = merge(points, rgb, 200)
    length = np.linalg.norm(cloud.normals, axis=1)
    assert ((np.abs(length - 1) < 1e-5) | (length == 0)).all()
    assert (cloud.points.dtype, cloud.rgb.dtype, cloud.seen_by.dtype) == (np.float32, np.uint8, np.bool_)
