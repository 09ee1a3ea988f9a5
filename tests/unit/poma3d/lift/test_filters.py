"""What is rejected, why, and which images repeat an earlier one."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from poma3d.lift.config import FilterConfig
from poma3d.lift.filters import (
    check_lifted,
    check_stored,
    decode_image,
    find_duplicates,
    keep_captions,
    perceptual_hash,
)
from poma3d.lift.lifter import BadImage, Lifted

GATES = FilterConfig()


def encoded(pixels: np.ndarray, kind: str = "PNG", **options: int) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind, **options)
    return buffer.getvalue()


def smooth(seed: int, height: int = 96, width: int = 128) -> np.ndarray:
    """A picture of broad shapes, as photographs are to a hash."""
    coarse = np.random.default_rng(seed).integers(0, 256, (9, 12, 3), np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))


def reason_of(call, *arguments) -> str:
    with pytest.raises(BadImage) as caught:
        call(*arguments)
    return caught.value.reason


@pytest.mark.parametrize(
    ("captions", "kept"),
    [
        (["a red chair"], ["a red chair"]),
        ([" a chair ", "a chair", ""], ["a chair"]),
        (["IMG_20391.jpg", "a desk"], ["a desk"]),
        (["椅子和桌子"], ["椅子和桌子"]),
    ],
)
def test_captions_that_are_text_are_kept_once(captions: list[str], kept: list[str]) -> None:
    assert keep_captions(captions, GATES) == kept


@pytest.mark.parametrize(
    ("captions", "reason"),
    [
        ([], "no caption"),
        (["  "], "no caption"),
        (["1234 5678"], "caption is no text"),
        (["ab"], "caption is no text"),
    ],
)
def test_an_image_without_a_caption_is_rejected(captions: list[str], reason: str) -> None:
    assert reason_of(keep_captions, captions, GATES) == reason


def test_images_that_cannot_be_decoded_are_rejected() -> None:
    jpeg = encoded(smooth(0), "JPEG")
    for broken in (b"", b"no picture", jpeg[:200]):
        assert reason_of(perceptual_hash, broken, GATES) == "undecodable image"
        assert reason_of(decode_image, broken, GATES, 64) == "undecodable image"
    assert reason_of(perceptual_hash, encoded(smooth(0, 20, 128)), GATES) == "tiny image"
    assert reason_of(decode_image, encoded(smooth(0)), FilterConfig(max_megapixels=0.01), 64) == "huge image"


def test_a_large_image_is_decoded_small_and_whole() -> None:
    pixels = smooth(1, 300, 400)
    for kind in ("PNG", "JPEG"):
        small = decode_image(encoded(pixels, kind), GATES, 100)
        assert small.shape == (75, 100, 3)
        want = np.asarray(Image.fromarray(pixels).resize((100, 75), Image.Resampling.BICUBIC))
        assert np.abs(small.astype(int) - want).mean() < 6
    assert decode_image(encoded(pixels), GATES, 768).shape == (300, 400, 3), "nothing is made larger"
    assert decode_image(encoded(pixels[..., 0]), GATES, 768).shape == (300, 400, 3), "grey becomes colour"


def test_the_hash_survives_size_and_compression_and_tells_images_apart() -> None:
    hashes = []
    for seed in range(20):
        pixels = smooth(seed)
        larger = np.asarray(Image.fromarray(pixels).resize((256, 192), Image.Resampling.BICUBIC))
        versions = [encoded(pixels), encoded(pixels, "JPEG", quality=60), encoded(larger, "JPEG", quality=85)]
        found = np.array([perceptual_hash(v, GATES) for v in versions], np.uint64)
        assert np.bitwise_count(found ^ found[0]).max() <= GATES.duplicate_distance
        hashes.append(found)
    repeats = find_duplicates(np.concatenate(hashes), GATES.duplicate_distance)
    assert repeats.tolist() == [x for i in range(20) for x in (-1, 3 * i, 3 * i)]


@pytest.mark.parametrize("distance", [-1, 0, 1, 2, 5])
def test_duplicates_are_those_of_the_naive_search(distance: int) -> None:
    rng = np.random.default_rng(distance + 1)
    hashes = rng.integers(0, 2**64, 60, np.uint64)[rng.integers(0, 60, 300)]
    flips = rng.integers(0, 64, (300, 3)).astype(np.uint64)
    for column in range(3):
        hashes = hashes ^ (np.uint64(1) << flips[:, column]) * (rng.random(300) < 0.4).astype(np.uint64)
    expected = []
    for i, value in enumerate(hashes):
        away = np.bitwise_count(hashes[:i] ^ value).astype(int)
        same, near = np.flatnonzero(away == 0), np.flatnonzero(away <= distance)
        firsts = [j for j in near if not (hashes[:j] == hashes[j]).any()]
        if distance < 0 or len(near) == 0:
            expected.append(-1)
        else:
            expected.append(int(same[0]) if len(same) else firsts[0])
    assert find_duplicates(hashes, distance).tolist() == expected


def flat(metres: float) -> np.ndarray:
    return np.full((12, 16), metres, np.float32)


def slope(near: float, far: float) -> np.ndarray:
    return np.tile(np.linspace(near, far, 16, dtype=np.float32), (12, 1))


def lifted(depth: np.ndarray, focal: float = 14.0, metric: bool = True, confidence=None) -> Lifted:
    return Lifted(depth, np.array([focal, focal, 7.5, 5.5]), metric, confidence)


@pytest.mark.parametrize(
    ("case", "reason"),
    [
        (lifted(flat(2.0)), "flat depth"),
        (lifted(slope(70, 90)), "all far"),
        (lifted(np.where(slope(1, 4) > 3.6, slope(1, 4), np.nan)), "too little valid depth"),
        (lifted(flat(np.nan)), "too little valid depth"),
        (lifted(flat(0.0)), "too little valid depth"),
        (lifted(slope(1, 4), focal=1.0), "absurd field of view"),
        (lifted(slope(1, 4), focal=500.0), "absurd field of view"),
        (lifted(slope(1, 4), focal=np.nan), "absurd camera"),
        (Lifted(slope(1, 4), np.array([14, 14, 15.5, 11.5]), True), "intrinsics of another image size"),
        (lifted(slope(1, 4), confidence=flat(1.1)), "low confidence"),
        (lifted(slope(1, 4), confidence=flat(np.nan)), "low confidence"),
    ],
)
def test_depth_and_cameras_that_cannot_be_right(case: Lifted, reason: str) -> None:
    assert reason_of(check_lifted, case, FilterConfig(min_confidence=1.2)) == reason


def test_good_depth_passes() -> None:
    check_lifted(lifted(slope(1, 4), confidence=flat(2.0)), FilterConfig(min_confidence=1.2))
    check_lifted(lifted(slope(70, 90), metric=False), GATES)  # up to scale nothing is far
    check_stored(np.ones((1, 4, 4), np.uint16), GATES)
    assert reason_of(check_stored, np.zeros((1, 4, 4), np.uint16), GATES) == "too little valid depth"


@pytest.mark.parametrize(
    "bad",
    [
        {"min_valid_depth": 2.0},
        {"duplicate_distance": 16},
        {"min_fov_deg": 140.0},
        {"min_letter_share": -1.0},
    ],
)
def test_values_that_cannot_be_are_named(bad: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(bad))):
        FilterConfig(**bad).validate()
