"""The ray caster against a slow one that tests every ray with every part in float64."""

import numpy as np
import pytest

from poma3d.synthetic.furniture import CLASSES, build
from poma3d.synthetic.layout import furnish
from poma3d.synthetic.raycast import ROOM, Camera, Hits, Solid, Stage
from poma3d.synthetic.rooms import look_at
from poma3d.synthetic.shading import shade


def camera_at(eye: tuple[float, float, float], aim: tuple[float, float, float], size: int = 24) -> Camera:
    pose = look_at(np.array([eye]), np.array([aim]))[0]
    return Camera(np.array([0.7 * size, 0.7 * size, (size - 1) / 2, (size - 1) / 2]), pose, size, size)


def slow_depth(size: tuple[float, float, float], solids: list[Solid], camera: Camera) -> np.ndarray:
    """Depth [H, W] by brute force."""
    fx, fy, cx, cy = camera.intrinsics
    v, u = np.mgrid[: camera.height, : camera.width].astype(float)
    rays = np.stack([(u - cx) / fx, (v - cy) / fy, np.ones_like(u)], -1) @ camera.pose[:, :3].T
    eye = camera.pose[:, 3]
    with np.errstate(divide="ignore"):
        depth = np.min(np.where(rays > 0, (np.array(size) - eye) / rays, -eye / rays), axis=-1)
        for solid in solids:
            c, s = np.cos(solid.yaw), np.sin(solid.yaw)
            turn = np.array([[c, s, 0], [-s, c, 0], [0, 0, 1]])
            o, d = turn @ (eye - [solid.x, solid.y, 0]), rays @ turn.T
            for x0, y0, z0, x1, y1, z1 in solid.piece.boxes:
                a, b = (np.array([x0, y0, z0]) - o) / d, (np.array([x1, y1, z1]) - o) / d
                near, far = np.minimum(a, b).max(-1), np.maximum(a, b).min(-1)
                depth = np.where((near <= far) & (near > 0), np.minimum(depth, near), depth)
            for x, y, r, z0, z1 in solid.piece.cylinders:
                aa = d[..., 0] ** 2 + d[..., 1] ** 2
                bb = d[..., 0] * (o[0] - x) + d[..., 1] * (o[1] - y)
                cc = (o[0] - x) ** 2 + (o[1] - y) ** 2 - r * r
                root = np.sqrt(np.maximum(bb * bb - aa * cc, 0))
                a, b = (z0 - o[2]) / d[..., 2], (z1 - o[2]) / d[..., 2]
                near = np.maximum((-bb - root) / aa, np.minimum(a, b))
                far = np.minimum((-bb + root) / aa, np.maximum(a, b))
                hit = (bb * bb - aa * cc > 0) & (near <= far) & (near > 0)
                depth = np.where(hit, np.minimum(depth, near), depth)
    return depth


@pytest.mark.parametrize("seed", range(12))
def test_depth_equals_brute_force(seed: int) -> None:
    """Also for pieces that reach behind the camera, where the projected rectangle must be cut."""
    rng = np.random.default_rng(seed)
    room = furnish(rng)
    w, d, h = room.size
    for _ in range(4):
        eye = (rng.uniform(0.3, w - 0.3), rng.uniform(0.3, d - 0.3), h - 0.1)
        camera = camera_at(eye, (rng.uniform(0, w), rng.uniform(0, d), rng.uniform(0, 1.5)))
        got = Stage(room.size, room.solids).cast(camera).depth
        want = slow_depth(room.size, room.solids, camera)
        wrong = np.abs(got - want) > 1e-3
        assert wrong.mean() < 0.004, "more than the rounding at silhouettes"
        assert (got > 0).all()


def test_a_ray_along_an_axis_has_a_finite_depth() -> None:
    """Odd image, level camera: the middle ray has two components of exactly 0."""
    camera = Camera(
        np.array([10.0, 10, 5, 5]), look_at(np.array([[2.0, 1, 1]]), np.array([[2.0, 3, 1]]))[0], 11, 11
    )
    piece = build("wardrobe", np.random.default_rng(0))
    depth = Stage((4, 6, 3), [Solid(piece, 2, 5, 0.0)]).cast(camera).depth
    assert np.isfinite(depth).all()
    assert depth[5, 5] == pytest.approx(4 - piece.depth / 2, abs=0.05)


def test_ids_name_what_is_hit() -> None:
    lamp, fridge = build("lamp", np.random.default_rng(0)), build("fridge", np.random.default_rng(0))
    stage = Stage((6, 6, 2.6), [Solid(lamp, 1, 5, 0.3), Solid(fridge, 3, 5, 0.2)])
    hits = stage.cast(camera_at((3, 1, 1.2), (3, 5, 1.0)))
    assert hits.solid[12, 12] == 1
    assert stage.owner[hits.part[12, 12]] == 1
    assert hits.solid[0, 23] == ROOM
    assert set(np.unique(hits.solid)) <= {ROOM, 0, 1}


def test_an_empty_room_is_walls() -> None:
    stage = Stage((4, 4, 2.5), [])
    hits = stage.cast(camera_at((2, 1, 1.25), (2, 4, 1.25)))
    assert hits.depth[12, 12] == pytest.approx(3, abs=0.01)
    assert (hits.solid == ROOM).all()


@pytest.mark.parametrize("name", sorted(CLASSES))
def test_parts_stay_in_the_footprint(name: str) -> None:
    """What layout keeps apart is the footprint, so nothing may stick out of it."""
    for seed in range(8):
        piece = build(name, np.random.default_rng(seed))
        w, d, h = (
            piece.width / 2 + 1e-6,
            piece.depth / 2 + 1e-6,
            piece.height + 0.6,
        )  # a desk carries a screen
        for x0, y0, z0, x1, y1, z1 in piece.boxes:
            assert -w <= x0 < x1 <= w
            assert -d <= y0 < y1 <= d
            assert 0 <= z0 < z1 <= (h + 0.5 if name == "sink" else h)
        for x, y, r, z0, z1 in piece.cylinders:
            assert abs(x) + r <= w
            assert abs(y) + r <= d
            assert 0 <= z0 < z1 <= h


def test_shading_is_a_picture() -> None:
    room = furnish(np.random.default_rng(5))
    stage, camera = Stage(room.size, room.solids), camera_at((1, 1, 2), (2, 2, 1))
    hits: Hits = stage.cast(camera)
    picture = shade(stage, camera, hits, room.look)
    assert picture.shape == (24, 24, 3)
    assert picture.dtype == np.uint8
    assert picture.std() > 5
