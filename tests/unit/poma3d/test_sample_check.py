"""What is wrong with samples, each fault by itself."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from poma3d.sample_check import faults

N, V, C = 3, 2, 2
Arrays = dict[str, np.ndarray]


def good() -> Arrays:
    """Three samples of two views of 4 x 4 pixels; the second view of the last repeats the first."""
    unit = np.zeros((N, V, C, 4), np.float16)
    unit[..., 1] = 1
    return {
        "view_valid": np.array([[1, 1], [1, 1], [1, 0]], np.uint8),
        "depth": np.full((N, V, 4, 4), 1000, np.uint16),
        "depth_scale": np.full(N, 0.001, np.float32),
        "intrinsics": np.full((N, V, 4), 3.0, np.float32),
        "pose": np.tile(np.eye(3, 4, dtype=np.float32), (N, V, 1, 1)),
        "image_embedding": unit[:, :, 0].copy(),
        "caption_embedding": unit.copy(),
        "caption_count": np.array([[2, 1], [0, 0], [1, 1]], np.uint8),
        "scene_caption_embedding": unit[:, 0].copy(),
        "scene_caption_count": np.array([2, 0, 1], np.uint8),
    }


def put(name: str, where: tuple[int, ...], value: float) -> Callable[[Arrays], None]:
    def change(arrays: Arrays) -> None:
        arrays[name][where] = value

    return change


FAULTS = [
    (put("view_valid", (0,), 0), "no valid view"),
    (put("depth", (0, 1), 0), "valid views without any depth"),
    (put("depth_scale", (0,), np.nan), "a depth_scale that is not above 0"),
    (put("depth_scale", (0,), -0.001), "a depth_scale that is not above 0"),
    (put("intrinsics", (0, 1, 1), -3.0), "a focal length that is not above 0"),
    (put("intrinsics", (0, 1, 2), np.inf), "intrinsics that are not finite"),
    (put("pose", (0, 1, 0, 3), np.nan), "a pose that is not finite"),
    (put("pose", (0, 1, 0, 0), 2.0), "a pose that is no rotation"),
    (put("pose", (0, 1, 0, 0), -1.0), "a pose that is no rotation"),
    (put("image_embedding", (0, 0, 1), 0.5), "image_embedding that is no unit vector"),
    (put("caption_embedding", (0, 1, 0, 1), np.nan), "caption_embedding that is no unit vector"),
    (put("scene_caption_embedding", (0, 1, 1), 0), "scene_caption_embedding that is no unit vector"),
]


@pytest.mark.parametrize(("change", "text"), FAULTS)
def test_each_fault_is_named_with_its_sample(change: Callable[[Arrays], None], text: str) -> None:
    arrays = good()
    change(arrays)
    [(found, rows)] = faults(arrays).items()
    assert text in found
    assert rows.tolist() == [True, False, False]


def test_good_samples_have_none_nor_have_paddings() -> None:
    arrays = good()
    assert faults(arrays) == {}
    for name in ("depth", "intrinsics", "pose", "image_embedding"):
        arrays[name][2, 1] = 0  # a repeat that fills a short scene
    arrays["caption_embedding"][1] = np.nan  # of captions that do not exist
    assert faults(arrays) == {}


def test_points_in_place_of_depth() -> None:
    arrays = {"view_valid": np.ones((N, V), np.uint8), "xyz": np.ones((N, V, 4, 4, 3), np.float16)}
    assert faults(arrays) == {}
    arrays["xyz"][1, 0] = 0
    arrays["xyz"][2, 1, 0, 0, 0] = np.inf
    found = {text: rows.tolist() for text, rows in faults(arrays).items()}
    assert found == {
        "points that are not finite": [False, False, True],
        "valid views without any point": [False, True, False],
    }
