"""The contact sheet: its parts by known answers, the whole by its size and content."""

import dataclasses
import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from jobs.shards.preview import (
    PreviewConfig,
    colours,
    corners,
    depth_picture,
    point_map_picture,
    point_maps,
    preview,
)
from poma3d.sample import Sample


def make_sample(views: int = 2, size: int = 12, colour: bool = True) -> Sample:
    """Cameras at the origin of a z-up world, looking along +y at a wall 2 m away; one pixel is blind."""
    depth = np.full((views, size, size), 2000, np.uint16)
    depth[:, 0, 0] = 0
    pose = np.array([[1, 0, 0, 0], [0, 0, 1, 0], [0, -1, 0, 0]], np.float32)
    jpeg = io.BytesIO()
    Image.new("RGB", (size, size), (200, 30, 30)).save(jpeg, "jpeg")
    return Sample(
        scene_id="room-1",
        source="test",
        depth=depth,
        intrinsics=np.tile(np.array([size, size, (size - 1) / 2, (size - 1) / 2], np.float32), (views, 1)),
        pose=np.tile(pose, (views, 1, 1)),
        view_valid=np.ones(views, np.uint8),
        view_captions=[["a wall."]] * views,
        scene_captions=["a room with a wall."],
        colour=[jpeg.getvalue()] * views if colour else [],
    )


def test_point_maps_are_in_the_world() -> None:
    points = point_maps(make_sample())
    assert points.shape == (2, 12, 12, 3)
    assert points[..., 1].max() == pytest.approx(2.0)
    assert (points[:, 0, 0] == 0).all()
    assert points[0, 1, 5, 2] > 0 > points[0, 10, 5, 2]  # up in the picture is up in the world


def test_holes_are_grey_and_near_differs_from_far() -> None:
    picture = depth_picture(np.array([[0.0, 1.0, 3.0]]), 1.0, 3.0)
    assert len(set(picture[0, 0])) == 1
    assert picture[0, 1].sum() > picture[0, 2].sum()


def test_point_map_picture_puts_the_axes_into_the_channels() -> None:
    points = np.array([[[0.0, 0.0, 0.0], [2.0, 1.0, 0.0], [1.0, 2.0, 2.0]]])
    picture = point_map_picture(points, np.zeros(3), np.full(3, 2.0))
    assert picture[0, 1:].tolist() == [[255, 128, 0], [128, 255, 255]]


def test_corners_ignore_holes() -> None:
    points = np.full((4, 4, 3), 5.0)
    points[0] = 0.0
    low, high = corners(points)
    assert low.tolist() == high.tolist() == [5.0] * 3
    assert corners(np.zeros((2, 2, 3)))[1].tolist() == [1.0] * 3


@pytest.mark.parametrize("colour", [True, False])
def test_contact_sheet(tmp_path: Path, colour: bool) -> None:
    sample = make_sample(colour=colour)
    sheet = preview([sample] * 3, tmp_path / "deep" / "sheet.png", PreviewConfig(scenes=2, views=2, dpi=40))
    pixels = np.asarray(Image.open(sheet).convert("RGB"))
    one = preview([sample], tmp_path / "one.png", PreviewConfig(views=2, dpi=40))
    assert pixels.shape[0] == 2 * np.asarray(Image.open(one)).shape[0]
    red = (np.abs(pixels.astype(int) - [200, 30, 30]) < 12).all(axis=-1).mean()
    assert (red > 0.01) == colour


def test_scene_without_any_depth_still_has_a_sheet(tmp_path: Path) -> None:
    sample = dataclasses.replace(make_sample(), depth=np.zeros((2, 12, 12), np.uint16))
    assert preview([sample], tmp_path / "sheet.png", PreviewConfig(dpi=40)).exists()
    assert len(colours(sample)) == 2


def test_nothing_to_show_is_said(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no samples"):
        preview([], tmp_path / "sheet.png", PreviewConfig())
