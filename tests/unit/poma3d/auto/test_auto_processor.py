"""Recordings and points on the encoder's grid."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
import torch

from poma3d.auto import Poma3dModel, Poma3dProcessor
from poma3d.export import SceneEncoder
from poma3d.geometry import nearest_indices, rotation_to_z_up
from poma3d.scenes.frame import ColourCamera
from tests.helpers import tiny
from tests.helpers.scans import box_room, full_pose

WORLD = rotation_to_z_up(np.array([0.3, -0.9, 0.2]))
SIZE = (tiny.IMAGE_SIZE, tiny.IMAGE_SIZE)
VIEWS = 4


@pytest.fixture(scope="module")
def encoder() -> SceneEncoder:
    return SceneEncoder(tiny.tower().build())


@pytest.fixture(scope="module")
def processor() -> Poma3dProcessor:
    return Poma3dProcessor(SIZE)


@pytest.fixture(scope="module")
def scan() -> dict[str, Any]:
    """In a world that is not level."""
    frames = box_room(VIEWS).frames
    return {
        "depth": np.stack([frame.depth for frame in frames]),
        "intrinsics": frames[0].intrinsics,
        "poses": np.stack([full_pose(frame.pose, WORLD) for frame in frames]),
    }


@pytest.mark.parametrize("kind", ["estimated", "given", "metres", "colour"])
def test_depth_goes_the_way_of_from_frames(
    kind: str, encoder: SceneEncoder, processor: Poma3dProcessor, scan: dict[str, Any]
) -> None:
    given = dict(scan)
    if kind == "given":
        given["up"] = WORLD @ [0, 0, 1]
    elif kind == "metres":
        given["depth"] = scan["depth"].astype(np.float32) / 1000
    elif kind == "colour":  # sees less than the depth camera: depth is cut to it
        rows, columns = scan["depth"].shape[1:]
        camera = scan["intrinsics"] * [1.5, 1.5, 1, 1]
        given["colour"] = ColourCamera(camera, (rows, columns))
    model = Poma3dModel.of(encoder)
    with torch.inference_mode(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # up of a box is not sure
        inputs = processor(**given)
        found, expected = model(**inputs), encoder.from_frames(**given)
    assert inputs["point_maps"].shape == (1, VIEWS, *SIZE, 3)
    for name in ("features", "tokens", "projected"):
        assert torch.equal(found[name], getattr(expected, name)), name


def test_pictures_follow_their_depth_maps(processor: Poma3dProcessor, scan: dict[str, Any]) -> None:
    """Where a picture has the depth as its colour, so has the grid."""
    shown = np.repeat((scan["depth"] // 40).clip(0, 255).astype(np.uint8)[..., None], 3, axis=-1)
    inputs = processor(**scan, rgb=shown, up=WORLD @ [0, 0, 1])
    assert inputs["rgb"].shape == (1, VIEWS, *SIZE, 3)
    assert inputs["rgb"].dtype == torch.uint8
    rows, columns = (nearest_indices(a, b) for a, b in zip(scan["depth"].shape[1:], SIZE, strict=True))
    expected = shown[:, rows[:, None], columns].astype(int)
    assert np.median(np.abs(inputs["rgb"][0].numpy() - expected)) <= 1
    without = processor(**scan, up=WORLD @ [0, 0, 1])
    assert torch.equal(without["point_maps"], inputs["point_maps"])


def test_xyz_is_the_same_scene(processor: Poma3dProcessor, scan: dict[str, Any]) -> None:
    level = processor(**scan, up=WORLD @ [0, 0, 1])["point_maps"]
    turned = level.double() @ torch.from_numpy(WORLD).T
    again = processor(xyz=turned[0], up=WORLD @ [0, 0, 1])["point_maps"]
    torch.testing.assert_close(again, level, atol=1e-5, rtol=0)
    assert torch.equal(again.any(-1), level.any(-1)), "no point is none"
    twice = processor(xyz=torch.cat([level, level]), rgb=np.zeros((2, VIEWS, 96, 96, 3), np.uint8))
    assert torch.equal(twice["point_maps"][1], level[0])
    assert twice["rgb"].shape == (2, VIEWS, *SIZE, 3)


def test_xyz_is_brought_to_the_grid_without_made_up_points(processor: Poma3dProcessor) -> None:
    xyz = np.random.default_rng(0).uniform(-2, 2, (1, 60, 80, 3)).astype(np.float32)
    xyz[0, :30] = np.nan
    made = processor(xyz=xyz)["point_maps"][0, 0].numpy()
    assert not made[:24].any()
    there = {tuple(point) for point in xyz.reshape(-1, 3).tolist()}
    assert {tuple(point) for point in made[24:].reshape(-1, 3).tolist()} <= there


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"intrinsics": 3}, "frame 0: intrinsics of another image size: principal point"),
        ({"poses": None}, "poses is missing: give depth, intrinsics and poses of one scan, or xyz"),
        ({"xyz": np.ones((1, 4, 4, 3))}, "xyz is points already: leave out depth, intrinsics, poses"),
        ({"rgb": np.zeros((VIEWS, 10, 60, 3), np.uint8)}, "frame 0: picture of another shape: 60 x 10"),
        ({"rgb": np.zeros((3, 96, 128, 3), np.uint8)}, "rgb has 3 pictures, depth has 4 maps"),
        ({"rgb": np.zeros((VIEWS, 96, 128, 3))}, "picture 0 is float64 .* expected uint8"),
        ({"return_tensors": "np"}, "return_tensors is 'np', expected 'pt'"),
    ],
)
def test_frames_that_cannot_be_used_are_named(
    change: dict[str, Any], sentence: str, processor: Poma3dProcessor, scan: dict[str, Any]
) -> None:
    given = {**scan, **change}
    if change.get("intrinsics"):
        given["intrinsics"] = scan["intrinsics"] * change["intrinsics"]
    with pytest.raises(ValueError, match=sentence) as caught:
        processor(**given)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"xyz": np.zeros((4, 4, 3))}, r"xyz is \[4, 4, 3\], expected \[V, h, w, 3\]"),
        ({"xyz": np.ones((1, 4, 4, 3), int)}, r"xyz is torch\.int64, expected floating-point metres"),
        ({"xyz": np.zeros((1, 4, 4, 3))}, "xyz holds no point"),
        (
            {"xyz": np.arange(48.0).reshape(1, 4, 4, 3) * 1000},
            "from their middle, .*: give metres",
        ),
        ({"xyz": np.ones((1, 4, 4, 3)), "up": [1, 0]}, r"up is \[2\], expected \[3\]"),
        (
            {"xyz": np.ones((1, 40, 40, 3)), "rgb": np.zeros((1, 10, 40, 3), np.uint8)},
            "picture 0 is 40 x 10, its points are 40 x 40",
        ),
        (
            {"xyz": np.ones((1, 40, 40, 3)), "rgb": np.zeros((2, 40, 40, 3), np.uint8)},
            "rgb has 2 pictures, xyz has 1 views",
        ),
    ],
)
def test_points_that_cannot_be_used_are_named(
    given: dict[str, Any], sentence: str, processor: Poma3dProcessor
) -> None:
    with pytest.raises(ValueError, match=sentence):
        processor(**given)
