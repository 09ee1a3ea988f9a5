"""Frames as recorded give the features that ingest and evaluation give for them."""

from __future__ import annotations

import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from jobs.evaluate.measure import encode
from poma3d.export import SceneEncoder
from poma3d.geometry import rotation_to_z_up
from poma3d.sample import Sample
from poma3d.scenes.config import SevenScenesConfig, ViewConfig
from poma3d.scenes.files import read_depth, read_matrix, read_pose
from poma3d.scenes.frame import ColourCamera, Frame, SceneFrames
from poma3d.scenes.layouts.seven_scenes import SevenScenesReader
from poma3d.scenes.orientation import estimate_up
from poma3d.scenes.views import to_samples
from tests.helpers import tiny
from tests.helpers.scans import REDKITCHEN, box_room, full_pose, write_seven_scenes

SAME = 0.999
WORLD = rotation_to_z_up(np.array([0.3, -0.9, 0.2]))
"""Of a recording that is not level: y is roughly down, as in the first camera of KinectFusion."""
KITCHEN_COLOUR = ColourCamera(
    np.array([525.0, 525, 320, 240]), (480, 640), np.column_stack([np.eye(3), [-0.025, 0, 0]])
)
"""The 7-Scenes release's."""


@pytest.fixture(scope="module")
def encoder() -> SceneEncoder:
    return SceneEncoder(tiny.tower().build())


def ingested(root: Path, views: int, step: int, **config: Any) -> Sample:
    """One sample of a scan, as `poma ingest` makes it."""
    reader = SevenScenesReader(SevenScenesConfig(root=str(root), **config))
    shape = replace(tiny.shape(views), captions=0, scene_captions=0)
    scene = reader.read(reader.scene_ids()[0])
    scene.captions = []
    samples, rejects = to_samples(scene, shape, ViewConfig(candidate_step=step, colour=False))
    assert len(samples) == 1
    assert not rejects
    return samples[0]


def cosines(encoder: SceneEncoder, sample: Sample, found: torch.Tensor) -> np.ndarray:
    """Of each view with the same view of `sample` as evaluation encodes it."""
    expected = encode(encoder, [sample], batch_size=1)[0]
    return (expected * found[0].numpy()).sum(-1)


def recorded(scene: SceneFrames, world: np.ndarray = WORLD) -> dict[str, Any]:
    """Depth, intrinsics and poses of a scene in a world that is turned by `world`."""
    return {
        "depth": np.stack([frame.depth for frame in scene.frames]),
        "intrinsics": scene.frames[0].intrinsics,
        "poses": np.stack([full_pose(frame.pose, world) for frame in scene.frames]),
    }


@pytest.mark.parametrize("kind", ["numpy", "torch", "metres", "matrix"])
def test_frames_give_the_features_of_ingest(kind: str, encoder: SceneEncoder, tmp_path: Path) -> None:
    scene = box_room(4)
    write_seven_scenes(tmp_path / "scan", scene, WORLD)
    sample = ingested(tmp_path / "scan", views=4, step=1, registered=True)
    given = recorded(scene)
    if kind == "torch":
        given = {name: torch.from_numpy(array) for name, array in given.items()}
    elif kind == "metres":
        given["depth"] = given["depth"].astype(np.float32) / 1000
    elif kind == "matrix":
        fx, fy, cx, cy = given["intrinsics"]
        given["intrinsics"] = np.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1]])
        given["poses"] = list(given["poses"][:, :3])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # an empty room is unsure of its up
        found = encoder.from_frames(**given)
    assert found.features.shape == (1, 4, tiny.JOINT)
    assert cosines(encoder, sample, found.features).min() > SAME


def test_a_world_that_is_not_level_gives_other_features_without_levelling(
    encoder: SceneEncoder, tmp_path: Path
) -> None:
    """What `from_frames` is there for; else the test above could not fail."""
    scene = box_room(4)
    write_seven_scenes(tmp_path / "scan", scene, WORLD)
    sample = ingested(tmp_path / "scan", views=4, step=1, registered=True)
    poses = np.stack([WORLD @ frame.pose for frame in scene.frames]).astype(np.float32)
    found = encoder.from_depth(sample.depth[None], 0.001, sample.intrinsics[None], poses[None])
    assert cosines(encoder, sample, found.features).max() < SAME


@pytest.mark.parametrize("registered", [True, False])
def test_a_real_scan_gives_the_features_of_ingest(registered: bool, encoder: SceneEncoder) -> None:
    if not REDKITCHEN.is_dir():
        pytest.skip("the real RGB-D scan is not beside this checkout (../shared/data/rgbd/redkitchen)")
    stems = sorted(path.name.removesuffix(".depth.png") for path in REDKITCHEN.glob("*.depth.png"))
    depth = [read_depth(REDKITCHEN / f"{stem}.depth.png", None) for stem in stems]
    poses = [read_pose(REDKITCHEN / f"{stem}.pose.txt") for stem in stems]
    matrix = read_matrix(REDKITCHEN / "camera-intrinsics.txt", (3, 3), "intrinsics")
    sample = ingested(REDKITCHEN, views=len(stems), step=1, registered=registered)
    colour = None if registered else KITCHEN_COLOUR
    found = encoder.from_frames(depth, matrix, poses, colour=colour)
    assert cosines(encoder, sample, found.features).min() > SAME
    frames = [Frame(s, d, _four(matrix), p) for s, d, p in zip(stems, depth, poses, strict=True)]
    up = estimate_up(frames, 0.001).direction
    few = slice(None, None, len(stems) // 4)
    some = encoder.from_frames(depth[few], matrix, poses[few], colour=colour, up=up)
    together = (some.features * found.features[:, few]).sum(-1)
    assert together.min() > SAME


def _four(matrix: np.ndarray) -> np.ndarray:
    return np.array([matrix[0, 0], matrix[1, 1], matrix[0, 2], matrix[1, 2]])


def test_depth_of_another_unit(encoder: SceneEncoder) -> None:
    given = recorded(box_room(3))
    up = WORLD @ np.array([0.0, 0, 1])
    expected = encoder.from_frames(**given, up=up).features
    fifth = {**given, "depth": given["depth"] * 5}
    torch.testing.assert_close(encoder.from_frames(**fifth, up=up, depth_scale=0.0002).features, expected)
    holes = given["depth"].copy()
    holes[:, :20] = 65535
    none = given["depth"].copy()
    none[:, :20] = 0
    metres = np.where(none == 0, np.nan, none / 1000.0)
    found = [encoder.from_frames(**{**given, "depth": d}, up=up).features for d in (holes, none, metres)]
    torch.testing.assert_close(found[0], found[1])
    torch.testing.assert_close(found[2], found[1])


def test_an_unsure_up_is_said(encoder: SceneEncoder, recwarn: pytest.WarningsRecorder) -> None:
    given = (np.full((2, 40, 40), 2000), [40.0, 40, 19.5, 19.5], [np.eye(4)] * 2)
    encoder.from_frames(*given)
    (said,) = [str(warning.message) for warning in recwarn if warning.category is UserWarning]
    assert "not sure: give up=[x, y, z]" in said
    recwarn.clear()
    encoder.from_frames(*given, up=[0, -1, 0])
    assert not recwarn.list, "it was given"


def without(name: str, change: Any) -> dict[str, Any]:
    given = recorded(box_room(2)) | {"up": [0, -1, 0]}
    return {**given, name: change(given[name])}


def _scaled(poses: np.ndarray) -> np.ndarray:
    poses[1, :3, :3] *= 2
    return poses


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (without("intrinsics", lambda k: k / 2), r"2 of 2 frames.*frame 0: intrinsics of another image size"),
        (without("intrinsics", lambda k: k[:3]), r"intrinsics are \[3\], expected \[4\]"),
        (without("poses", _scaled), r"1 of 2 frames cannot be used: frame 1: pose is not a rotation"),
        (without("poses", lambda p: p[:1]), r"poses are \[1, 4, 4\], expected \[2, 3, 4\]"),
        (without("poses", lambda p: p.transpose(0, 2, 1)), "not transposed"),
        (without("depth", lambda d: d[0]), r"map of uint16 \[128\]"),
        (without("depth", lambda d: d.astype(np.float32)), "median of .* m: floats are metres"),
        (without("depth", lambda d: d.astype(np.int32) - 9000), "from -.* expected integers from 0"),
        (without("depth", lambda d: d * 0), "too little valid depth"),
        (without("depth", lambda d: d[:0]), "no frame"),
        (without("up", lambda up: up[:2]), r"up is \[2\]"),
        (without("up", lambda up: [0, 0, 0]), "has no direction"),
    ],
)
def test_frames_that_cannot_be_used_are_refused(
    given: dict[str, Any], message: str, encoder: SceneEncoder
) -> None:
    with pytest.raises(ValueError, match=message):
        encoder.from_frames(**given)


def test_pictures_are_not_a_camera(encoder: SceneEncoder) -> None:
    pictures: Any = np.zeros((2, 96, 128, 3), np.uint8)
    with pytest.raises(ValueError, match="expected the camera of the pictures"):
        encoder.from_frames(**recorded(box_room(2)), colour=pictures)


def ready(**changes: Any) -> dict[str, Any]:
    size = tiny.IMAGE_SIZE
    pose = np.concatenate([np.eye(3), np.zeros((3, 1))], axis=1)
    given = {
        "depth": np.full((1, 2, size, size), 2000, np.uint16),
        "depth_scale": 0.001,
        "intrinsics": np.broadcast_to([size, size, size / 2, size / 2], (1, 2, 4)),
        "pose": np.broadcast_to(pose, (1, 2, 3, 4)),
    }
    return given | changes


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"depth": torch.full((1, 2, 48, 48), 2000, dtype=torch.int32)},
        {"depth": np.full((1, 2, 48, 48), 2000, ">u2")},
        {"depth": np.full((1, 2, 48, 48), 2.0), "depth_scale": 1.0},
        {"depth_scale": np.array([0.001])},
    ],
)
def test_depth_that_is_ready_comes_from_numpy_or_torch(
    changes: dict[str, Any], encoder: SceneEncoder
) -> None:
    expected = encoder.from_depth(
        **{k: torch.as_tensor(v.copy() if k != "depth_scale" else v) for k, v in ready().items()}
    )
    torch.testing.assert_close(encoder.from_depth(**ready(**changes)).features, expected.features)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"intrinsics": np.full((1, 2, 4), [585.0, 585, 320, 240])}, r"\(320, 240\) is outside .* 641 x 481"),
        ({"intrinsics": np.ones((1, 2, 4), int)}, "intrinsics is torch.int64, expected float32"),
        ({"intrinsics": np.ones((2, 4))}, r"intrinsics is \[2, 4\], expected \[1, 2, 4\] for 2 views"),
        ({"pose": np.ones((1, 2, 4, 4))}, r"pose is \[1, 2, 4, 4\], expected \[1, 2, 3, 4\]"),
        ({"depth": np.ones((2, 48, 48))}, r"depth is \[2, 48, 48\], expected \[B, V, H, W\]"),
        ({"depth": np.ones((1, 2, 48, 48), np.int64)}, "depth is torch.int64"),
        ({"depth": np.ones((1, 2, 48, 48), bool)}, "array of bool"),
        ({"depth": [[1]]}, "depth is a list"),
    ],
)
def test_depth_that_is_not_ready_is_refused(
    changes: dict[str, Any], message: str, encoder: SceneEncoder
) -> None:
    with pytest.raises(ValueError, match=message):
        encoder.from_depth(**ready(**changes))
