"""Filters for what is too bad to learn from: pictures, captions, lifted depth and cameras; and duplicates.

Every filter raises `BadImage` with a reason of a few fixed words, by which rejects are counted.

Legend: h w pixels of an image, y x of the lifter's grid, n images.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from PIL import Image

from poma3d.geometry import off_centre
from poma3d.lift.config import HASH_BITS, FilterConfig
from poma3d.lift.lifter import BadImage, Lifted
from poma3d.picture_files import UnreadablePicture, open_picture, to_rgb

HASH_ROWS, HASH_COLUMNS = 8, 9
"""Grey thumbnail whose 8 x 8 horizontal differences are the perceptual hash."""
THUMBNAIL = 64
"""A JPEG is decoded at a fraction of its size, but not below this many pixels a side, before it is hashed."""
NEVER = np.iinfo(np.int64).max
"""Arrival of an image that does not exist."""
LOW, HIGH = 5, 95
"""Percentiles of depth between which its relief is measured."""


def keep_captions(captions: Sequence[str], config: FilterConfig) -> list[str]:
    """The captions that are text in Unicode, stripped, each once.

    Raises:
        BadImage: none is left.
    """
    kept = [text for text in dict.fromkeys(c.strip() for c in captions) if _is_text(text, config)]
    if kept or not config.require_caption:
        return kept
    if any(c.strip() for c in captions):
        raise BadImage("caption is no text", captions[0].strip()[:80])
    raise BadImage("no caption")


def perceptual_hash(encoded: bytes, config: FilterConfig) -> int:
    """64-bit difference hash of an encoded image: survives another size and another compression.

    Raises:
        BadImage: it cannot be decoded, or is too small or too large.
    """
    # JPEG alone is decoded in grey, and at a fraction of its size.
    picture = _decoded(encoded, config, lambda image: image.draft("L", (THUMBNAIL, THUMBNAIL)))
    tones = np.asarray(picture.convert("L").resize((HASH_COLUMNS, HASH_ROWS), Image.Resampling.BOX))
    return int.from_bytes(np.packbits(tones[:, 1:] > tones[:, :-1]).tobytes())


def decode_image(encoded: bytes, config: FilterConfig, side_px: int) -> np.ndarray:
    """RGB uint8 [h, w, 3] of an encoded image, upright (`poma3d.picture_files`).

    Args:
        side_px: larger images are brought to this longer side.

    Raises:
        BadImage: as `perceptual_hash`.
    """

    def smaller(image: Image.Image) -> None:
        # A JPEG is decoded at 1/2, 1/4 or 1/8 of its size where that is enough.
        scale = min(1.0, side_px / max(image.size))
        image.draft("RGB", (round(image.width * scale), round(image.height * scale)))

    picture = _decoded(encoded, config, smaller)
    picture.thumbnail((side_px, side_px), Image.Resampling.BICUBIC, reducing_gap=2.0)
    return np.asarray(picture)


def check_lifted(lifted: Lifted, config: FilterConfig) -> None:
    """Raise BadImage for depth or a camera that cannot be right."""
    if not np.isfinite(lifted.intrinsics).all() or min(lifted.intrinsics[:2]) <= 0:
        raise BadImage("absurd camera", f"{lifted.intrinsics.tolist()}")
    height, width = lifted.depth.shape
    for pixels, focal in ((width, lifted.intrinsics[0]), (height, lifted.intrinsics[1])):
        fov_deg = float(np.degrees(2 * np.arctan(pixels / 2 / focal)))
        if not config.min_fov_deg <= fov_deg <= config.max_fov_deg:
            raise BadImage("absurd field of view", f"{fov_deg:.1f} degrees")
    if off_centre(lifted.intrinsics, (height, width)) > config.max_off_centre:
        cx, cy = lifted.intrinsics[2:]
        raise BadImage(
            "intrinsics of another image size",
            f"principal point ({cx:g}, {cy:g}) in a depth map of {width} x {height}, at most "
            f"{config.max_off_centre} of the side from the middle",
        )
    valid = lifted.depth[np.isfinite(lifted.depth) & (lifted.depth > 0)]
    share = len(valid) / lifted.depth.size
    if not len(valid) or share < config.min_valid_depth:
        raise BadImage("too little valid depth", f"{share:.3f} of the pixels")
    low, median, high = np.percentile(valid, (LOW, 50, HIGH))
    if lifted.metric and 0 < config.max_median_depth_m < median:
        raise BadImage("all far", f"median {median:.1f} m")
    if high - low < config.min_relief * median:
        raise BadImage("flat depth", f"{(high - low) / median:.4f} of the median")
    if lifted.confidence is not None:
        mean = float(np.mean(lifted.confidence))
        if not mean >= config.min_confidence:  # also where it is not a number
            raise BadImage("low confidence", f"{mean:.3f}")


def check_stored(depth: np.ndarray, config: FilterConfig) -> None:
    """Raise BadImage where too little of the stored depth is left, after far and unsure pixels went."""
    share = float((depth > 0).mean())
    if share < config.min_valid_depth:
        raise BadImage("too little valid depth", f"{share:.3f} of the pixels are stored")


def find_duplicates(hashes: np.ndarray, distance: int) -> np.ndarray:
    """Which earlier image each image repeats: int64 [n], -1 where none.

    An image repeats the first one that has an equal hash, or else an earlier one within `distance` bits. That
    one may itself be a repeat, so the answer does not depend on what was dropped. Hashes within `distance`
    bits agree in at least one of `distance` + 1 bands: only those that share a band are compared.

    Args:
        hashes: uint64 [n] in their order of arrival.
        distance: bits; -1 finds nothing.
    """
    if distance < 0 or len(hashes) == 0:
        return np.full(len(hashes), -1, np.int64)
    unique, first, inverse = np.unique(hashes, return_index=True, return_inverse=True)
    near = np.full(len(unique), NEVER)
    for band in range(distance + 1 if distance else 0):
        # Every n-th bit, not a run of bits: many pictures share a plain sky or a white margin.
        mask = np.uint64(sum(1 << bit for bit in range(band, HASH_BITS, distance + 1)))
        _match_in_band(unique, first, unique & mask, distance, near)
    arrival = np.arange(len(hashes))
    exact = first[inverse]
    nearest = np.where(near == NEVER, -1, near)[inverse]
    return np.where(exact < arrival, exact, nearest)


def _match_in_band(
    unique: np.ndarray, first: np.ndarray, band: np.ndarray, distance: int, near: np.ndarray
) -> None:
    """Compare hashes of equal `band`; puts the earliest match's arrival into `near` [unique]."""
    order = np.argsort(band, kind="stable")
    keys = band[order]
    places = np.arange(len(order))
    step = 1
    while True:
        places = places[places + step < len(order)]
        places = places[keys[places] == keys[places + step]]
        if len(places) == 0:
            return
        a, b = order[places], order[places + step]
        close = np.bitwise_count(unique[a] ^ unique[b]) <= distance
        a, b = a[close], b[close]
        later, earlier = np.where(first[a] > first[b], a, b), np.minimum(first[a], first[b])
        np.minimum.at(near, later, earlier)
        step += 1


def _decoded(encoded: bytes, config: FilterConfig, prepare: Callable[[Image.Image], object]) -> Image.Image:
    """Mode RGB, upright; a picture of another size than is wanted is not decoded."""
    try:
        picture = open_picture(encoded)
        _check_size(picture, config)
        prepare(picture)
        return to_rgb(picture)
    except UnreadablePicture as error:
        # Beyond a limit of its own, above that of the gates, Pillow refuses before its header is known here.
        if isinstance(error.__cause__, Image.DecompressionBombError):
            raise BadImage("huge image", str(error)) from error
        raise BadImage("undecodable image", str(error)) from error


def _is_surrogate(character: str) -> bool:
    """Half of a character, as JSON can write it and UTF-8 cannot, or a byte that was none."""
    return "\ud800" <= character <= "\udfff"


def _check_size(image: Image.Image, config: FilterConfig) -> None:
    width, height = image.size
    if min(width, height) < config.min_side_px:
        raise BadImage("tiny image", f"{width} x {height}")
    if width * height > config.max_megapixels * 1e6:
        raise BadImage("huge image", f"{width} x {height}")


def _is_text(caption: str, config: FilterConfig) -> bool:
    if any(_is_surrogate(c) for c in caption):
        return False
    letters = sum(c.isalpha() for c in caption)
    spaces = sum(c.isspace() for c in caption)
    return letters >= config.min_caption_letters and (letters + spaces) >= config.min_letter_share * len(
        caption
    )
