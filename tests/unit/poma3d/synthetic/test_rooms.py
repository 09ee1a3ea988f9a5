"""Synthetic rooms: what captions say is what is in view, cameras are true, seeds decide everything."""

import pickle
from collections import Counter

import numpy as np
import pytest
import torch

from poma3d.geometry import project, unproject
from poma3d.synthetic.captions import class_counts, vocabulary, words
from poma3d.synthetic.config import RoomsConfig
from poma3d.synthetic.layout import furnish
from poma3d.synthetic.raycast import Solid, Stage
from poma3d.synthetic.rooms import RoomsReader, pieces_in_view, place_cameras

COLOUR_WORDS = {"red", "green", "blue", "white", "black", "brown", "yellow", "grey", "purple", "orange"}


@pytest.fixture(scope="module")
def reader() -> RoomsReader:
    return RoomsReader(RoomsConfig(rooms=24, image_size=48, views=3))


def test_captions_recover_the_classes_in_view(reader: RoomsReader) -> None:
    """The truth is the id buffer; the labels come from the strings that a sample stores."""
    config = reader.config
    for index in range(24):
        rng = np.random.default_rng([config.seed, index])
        room = furnish(rng)
        stage = Stage(room.size, room.solids)
        cameras = place_cameras(room, config, rng)
        scene = reader.read(reader.scene_ids()[index])
        in_any: set[int] = set()
        for camera, frame in zip(cameras, scene.frames, strict=True):
            seen = pieces_in_view(stage, stage.cast(camera), config.visible_share)
            in_any |= set(seen)
            truth = Counter(piece.name for piece in seen.values())
            assert class_counts(frame.captions[:1]) == truth
            assert class_counts(frame.captions) == truth, "no other caption may say more"
            assert room.kind in frame.captions[0]
        assert class_counts(scene.captions) == Counter(room.solids[i].piece.name for i in in_any)


def test_visible_means_enough_pixels() -> None:
    room = furnish(np.random.default_rng(4))
    config = RoomsConfig(image_size=48, views=1)
    stage = Stage(room.size, room.solids)
    hits = stage.cast(place_cameras(room, config, np.random.default_rng(0))[0])
    for least in (0.0005, 0.01, 0.1):
        seen = pieces_in_view(stage, hits, least)
        for i, solid in enumerate(room.solids):
            pixels = int((hits.solid == i).sum())
            assert (i in seen) == (solid.piece.name is not None and pixels >= least * 48 * 48)
            if i in seen:
                assert seen[i].pixels == pixels


def test_the_vocabulary_is_closed_and_knows_no_colours(reader: RoomsReader) -> None:
    known = set(vocabulary())
    assert not known & COLOUR_WORDS
    assert len(known) < 150
    for scene_id in reader.scene_ids():
        scene = reader.read(scene_id)
        captions = scene.captions + [c for frame in scene.frames for c in frame.captions]
        assert all(caption.strip() for caption in captions)
        assert {word for caption in captions for word in words(caption)} <= known
        assert all(2 <= len(frame.captions) <= 5 for frame in scene.frames)


def test_a_room_depends_on_its_seed_and_index_only(reader: RoomsReader) -> None:
    other = pickle.loads(pickle.dumps(RoomsReader(RoomsConfig(rooms=2, first=7, image_size=48, views=3))))
    assert other.scene_ids() == reader.scene_ids()[7:9]
    a, b = reader.read(other.scene_ids()[0]), other.read(other.scene_ids()[0])
    assert a.captions == b.captions
    for one, two in zip(a.frames, b.frames, strict=True):
        np.testing.assert_array_equal(one.depth, two.depth)
        np.testing.assert_array_equal(one.colour(), two.colour())
        np.testing.assert_array_equal(one.pose, two.pose)
    fresh = RoomsReader(RoomsConfig(rooms=1, first=7, seed=1, image_size=48, views=3))
    assert fresh.read(fresh.scene_ids()[0]).captions != a.captions


def test_cameras_are_true(reader: RoomsReader) -> None:
    """Points of every view lie in the room, and no view sees through what another one saw."""
    compared = 0
    for index, scene_id in enumerate(reader.scene_ids()[:8]):
        size = np.array(furnish(np.random.default_rng([0, index])).size)
        scene = reader.read(scene_id)
        for frame in scene.frames:
            assert frame.depth.dtype == np.uint16
            assert (frame.depth > 0).all()
            camera = map(torch.from_numpy, (frame.intrinsics, frame.pose))
            points = unproject(torch.from_numpy(frame.depth), scene.depth_scale, *camera).numpy()
            assert (points > -0.01).all()
            assert (points < size + 0.01).all()
            for other in scene.frames:
                pixels, z = project(points, other.intrinsics, other.pose)
                inside = (z > 0) & ((pixels > 0) & (pixels < np.array(other.depth.shape) - 1)).all(-1)
                columns, rows = np.rint(pixels[inside]).astype(int).T
                limit = other.depth[rows, columns] * scene.depth_scale
                compared += inside.sum() if other is not frame else 0
                if inside.any():
                    assert (z[inside] > 0.9 * limit - 0.1).mean() > 0.9
    assert compared > 10_000


def test_furniture_never_intersects() -> None:
    for seed in range(60):
        room = furnish(np.random.default_rng(seed))
        pieces = [s for s in room.solids if s.piece.name is not None]
        assert len(pieces) >= 2
        for i, a in enumerate(pieces):
            x0, y0, x1, y1 = a.footprint()
            assert min(x0, y0) > -1e-9
            assert x1 < room.size[0] + 1e-9
            assert y1 < room.size[1] + 1e-9
            for b in pieces[:i]:
                assert not turned_rectangles_meet(a, b), f"seed {seed}: {a.piece.name} and {b.piece.name}"


def turned_rectangles_meet(a: Solid, b: Solid) -> bool:
    """Separating axes of two footprints, each turned by its own yaw."""

    def corners(s: Solid) -> np.ndarray:
        c, n = np.cos(s.yaw), np.sin(s.yaw)
        half = np.array([[i * s.piece.width, j * s.piece.depth] for i in (-0.5, 0.5) for j in (-0.5, 0.5)])
        return half @ np.array([[c, n], [-n, c]]) + [s.x, s.y]

    ca, cb = corners(a), corners(b)
    for yaw in (a.yaw, a.yaw + np.pi / 2, b.yaw, b.yaw + np.pi / 2):
        axis = np.array([np.cos(yaw), np.sin(yaw)])
        if (ca @ axis).max() <= (cb @ axis).min() or (cb @ axis).max() <= (ca @ axis).min():
            return False
    return True


def test_train_and_held_out_rooms_are_disjoint() -> None:
    train = RoomsReader(RoomsConfig(rooms=100))
    held_out = RoomsReader(RoomsConfig(rooms=100, first=1_000_000))
    assert not set(train.scene_ids()) & set(held_out.scene_ids())


def test_without_colour_nothing_is_painted() -> None:
    reader = RoomsReader(RoomsConfig(rooms=1, image_size=32, views=1, colour=False))
    assert reader.read(reader.scene_ids()[0]).frames[0].colour() is None


@pytest.mark.parametrize(
    ("change", "says"),
    [({"rooms": 0}, "rooms is 0"), ({"seed": -1}, "seed"), ({"field_of_view_deg": 180.0}, "field_of_view")],
)
def test_impossible_configs_are_refused(change: dict, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        RoomsReader(RoomsConfig(**change))


@pytest.mark.parametrize("scene_id", ["kitchen", "room-1-0000000"])
def test_an_unknown_room_is_refused(reader: RoomsReader, scene_id: str) -> None:
    with pytest.raises(ValueError, match="ids look like"):
        reader.read(scene_id)
