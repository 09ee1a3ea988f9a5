"""Point maps against a naive float64 pinhole, and the nearest-neighbour camera."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from poma3d.geometry import (
    agreement,
    from_opengl,
    nearest_indices,
    project,
    resize_depth_nearest,
    rotation_to_z_up,
    scale_intrinsics,
    unproject,
)


def random_pose(rng: np.random.Generator) -> np.ndarray:
    rotation, _ = np.linalg.qr(rng.normal(size=(3, 3)))
    rotation[:, 0] *= np.linalg.det(rotation)
    return np.concatenate([rotation, rng.normal(size=(3, 1))], axis=1)


def naive_point_map(depth: np.ndarray, scale: float, intrinsics: np.ndarray, pose: np.ndarray) -> np.ndarray:
    """The formula of the paper, pixel by pixel, float64."""
    fx, fy, cx, cy = intrinsics
    inverse = np.linalg.inv(np.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1]]))
    out = np.zeros((*depth.shape, 3))
    for v, u in np.ndindex(depth.shape):
        if depth[v, u] > 0:
            out[v, u] = pose[:, :3] @ (depth[v, u] * scale * inverse @ [u, v, 1.0]) + pose[:, 3]
    return out


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 7), st.integers(1, 9))
def test_unproject_equals_the_naive_pinhole(seed: int, height: int, width: int) -> None:
    rng = np.random.default_rng(seed)
    depth = rng.integers(0, 65536, (2, 3, height, width)).astype(np.uint16)
    depth[rng.random(depth.shape) < 0.3] = 0
    intrinsics = np.stack([rng.uniform(5, 9, (2, 3)) for _ in range(4)], -1)
    pose = np.stack([random_pose(rng) for _ in range(6)]).reshape(2, 3, 3, 4)
    scale = np.array([0.001, 0.01])
    got = unproject(
        torch.from_numpy(depth),
        torch.from_numpy(scale)[:, None],
        torch.from_numpy(intrinsics),
        torch.from_numpy(pose),
        dtype=torch.float64,
    ).numpy()
    for i, j in np.ndindex(2, 3):
        want = naive_point_map(depth[i, j], scale[i], intrinsics[i, j], pose[i, j])
        np.testing.assert_allclose(got[i, j], want, rtol=1e-9, atol=1e-9)
        assert not got[i, j][depth[i, j] == 0].any()


@pytest.mark.parametrize("kind", [torch.uint16, torch.int16, torch.int32, torch.float32])
def test_every_carrier_of_depth_gives_the_same_points(kind: torch.dtype) -> None:
    units = torch.tensor([[0, 1, 32767], [32768, 50000, 65535]], dtype=torch.int32)
    carried = units.to(torch.uint16).view(torch.int16) if kind is torch.int16 else units.to(kind)
    camera = torch.tensor([2.0, 2.0, 1.0, 0.5])
    points = unproject(carried, 0.001, camera, torch.eye(3, 4))
    torch.testing.assert_close(points[..., 2], units * 0.001)
    assert points.dtype == torch.float32
    assert points.shape == (2, 3, 3)


def test_depth_that_is_not_a_number_is_no_depth() -> None:
    depth = torch.tensor([[float("nan"), float("inf"), -1.0, 2.0]])
    pose = torch.tensor([[1.0, 0, 0, 5], [0, 1, 0, 6], [0, 0, 1, 7]])
    points = unproject(depth, 1.0, torch.tensor([1.0, 1.0, 0.0, 0.0]), pose)
    assert points[0, :3].abs().sum() == 0
    assert points[0, 3].tolist() == [11.0, 6.0, 9.0]


def test_low_precision_is_only_the_output() -> None:
    depth = torch.full((4, 4), 3.217)
    arguments = (depth, 1.0, torch.tensor([4.0, 4.0, 1.5, 1.5]), torch.eye(3, 4))
    coarse = unproject(*arguments, dtype=torch.bfloat16)
    assert torch.equal(coarse, unproject(*arguments).to(torch.bfloat16))


def test_project_undoes_unproject() -> None:
    rng = np.random.default_rng(3)
    pose, camera = random_pose(rng), np.array([50.0, 60.0, 9.5, 7.5])
    depth = rng.uniform(0.5, 4, (16, 20))
    points = unproject(*(torch.from_numpy(a) for a in (depth,)), 1.0, torch.from_numpy(camera),
                       torch.from_numpy(pose), dtype=torch.float64).numpy()  # fmt: skip
    pixels, z = project(points, camera, pose)
    v, u = np.mgrid[:16, :20]
    np.testing.assert_allclose(pixels, np.stack([u, v], -1), atol=1e-9)
    np.testing.assert_allclose(z, depth, atol=1e-9)


def test_points_behind_the_camera_have_no_pixel() -> None:
    pixels, z = project(np.array([[0.0, 0.0, -1.0]]), np.ones(4), np.eye(3, 4))
    assert np.isnan(pixels).all()
    assert z[0] == -1


@given(st.integers(1, 700), st.integers(1, 300))
def test_scaled_intrinsics_are_unbiased(source: int, target: int) -> None:
    """The ray of a resized pixel is that of the source pixel it took, within a pixel, mean zero."""
    camera = np.array([500.0, 400.0, 0.3 * source, 0.6 * source])
    fx, fy, cx, cy = scale_intrinsics(camera, (source, source), (target, target))
    taken = nearest_indices(source, target)
    assert taken.min() >= 0
    assert taken.max() < source
    for focal, centre, f, c in ((500.0, 0.3 * source, fx, cx), (400.0, 0.6 * source, fy, cy)):
        error = focal * (np.arange(target) - c) / f - (taken - centre)
        assert abs(error.mean()) < 1e-6
        assert np.abs(error).max() < 1


@pytest.mark.parametrize("factor", [1, 2, 3, 5])
def test_a_whole_factor_keeps_rays_exactly(factor: int) -> None:
    depth = np.arange(12 * factor * 8 * factor, dtype=np.uint16).reshape(8 * factor, 12 * factor)
    camera = np.array([30.0, 31.0, 5.2, 4.1])
    small = resize_depth_nearest(depth, 8, 12)
    fx, fy, cx, cy = scale_intrinsics(camera, depth.shape, small.shape)
    rows, columns = np.divmod(small.astype(int), depth.shape[1])
    np.testing.assert_allclose((np.arange(12) - cx) / fx, (columns[0] - 5.2) / 30.0)
    np.testing.assert_allclose((np.arange(8) - cy) / fy, (rows[:, 0] - 4.1) / 31.0)


@given(st.tuples(*[st.floats(-3, 3)] * 3).filter(lambda up: np.linalg.norm(up) > 0.01))
def test_rotation_to_z_up(up: tuple[float, float, float]) -> None:
    rotation = rotation_to_z_up(np.array(up))
    np.testing.assert_allclose(rotation @ up / np.linalg.norm(up), [0, 0, 1], atol=1e-5)
    np.testing.assert_allclose(rotation @ rotation.T, np.eye(3), atol=1e-6)
    assert np.linalg.det(rotation) > 0


def test_a_y_down_world_is_mapped_as_documented() -> None:
    np.testing.assert_allclose(rotation_to_z_up(np.array([0.0, -1, 0])) @ [1, 2, 3], [1, 3, -2], atol=1e-12)


def test_no_up_direction_is_refused() -> None:
    with pytest.raises(ValueError, match="no direction"):
        rotation_to_z_up(np.zeros(3))


def test_agreement_of_a_view_with_itself_and_with_a_moved_camera() -> None:
    camera, pose = np.array([20.0, 20.0, 9.5, 9.5]), np.eye(3, 4)
    depth = np.full((20, 20), 2.0)
    points = unproject(torch.from_numpy(depth), 1.0, torch.from_numpy(camera), torch.from_numpy(pose)).numpy()
    same = agreement(points, depth, camera, pose)
    assert same.overlap == 1
    assert same.median_m < 1e-6
    moved = pose.copy()
    moved[2, 3] = 0.25  # the second camera stands nearer and should have seen 1.75 m
    assert agreement(points, depth, camera, moved).median_m == pytest.approx(0.25)
    moved[2, 3] = -0.25  # farther away by more than the margin: hidden
    assert agreement(points, depth, camera, moved).overlap == 0
    away = np.concatenate([np.diag([1.0, -1.0, -1.0]), np.zeros((3, 1))], axis=1)
    assert agreement(points, depth, camera, away).overlap == 0
    assert np.isnan(agreement(np.zeros((2, 2, 3)), depth, camera, pose).median_m)


def test_axes_of_opengl() -> None:
    np.testing.assert_array_equal(from_opengl(np.eye(4)), np.diag([1, -1, -1, 1]))
    moved = from_opengl(np.arange(12.0).reshape(3, 4))
    np.testing.assert_array_equal(moved[:, 3], [3, 7, 11], err_msg="the camera stays where it is")
