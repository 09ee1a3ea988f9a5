"""Every kind of picture through `poma lift`: what is stored is what a person sees."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pillow_heif
import pytest
from PIL import Image

from jobs.lift import command as lift
from jobs.lift.config import LiftJob
from plinth import config
from tests.helpers.lift.image_sets import HEIGHT, WIDTH, Photo, lift_job, members, photo, write_tar

ORIENTATION = 0x0112
STORED_AS = {
    1: None,
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}
"""EXIF's orientation -> how a camera that writes it has turned the upright picture."""
SIDE = 64
NEAR = 12.0
"""Mean difference in grey levels that two JPEGs, a palette and a grid of half the size make."""


def scene() -> Image.Image:
    """Smooth colours, another in each corner."""
    corners = np.array([[[220, 40, 40], [40, 200, 60]], [[50, 60, 210], [230, 220, 90]]], np.uint8)
    return Image.fromarray(corners).resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC)


def saved(picture: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def turned(orientation: int) -> bytes:
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    turn = STORED_AS[orientation]
    return saved(scene() if turn is None else scene().transpose(turn), "JPEG", quality=95, exif=exif)


def layered(mode: str) -> bytes:
    """The scene, with a hole in its lower right corner, where black lies below."""
    layer = scene().convert(mode)
    alpha = np.full((HEIGHT, WIDTH), 255, np.uint8)
    alpha[HEIGHT // 2 :, WIDTH // 2 :] = 0
    pixels = np.array(layer)
    pixels[alpha == 0] = 0
    pixels[..., -1] = alpha
    return saved(Image.fromarray(pixels, mode), "PNG")


def animated(kind: str) -> bytes:
    black = Image.new("RGB", scene().size)
    return saved(scene(), kind, save_all=True, append_images=[black, black], duration=100)


def stored(tmp_path: Path, image: bytes) -> np.ndarray:
    """uint8 [SIDE, SIDE, 3]: the picture of the only sample, as training reads it."""
    made = Photo(image, photo(0).caption, photo(0).depth, photo(0).intrinsics)
    write_tar(tmp_path / "x.tar", members("a", made))
    job = lift_job(tmp_path / "out", [{"uri": str(tmp_path / "x.tar")}])
    job["shape"] |= {"height": SIDE, "width": SIDE}
    dataset, _ = lift.lift(config.build(LiftJob, [("job", job)]))
    [sample] = dataset.samples()
    return np.asarray(Image.open(io.BytesIO(sample.colour[0])).convert("RGB"))


def expected(grey: bool = False, hole: bool = False) -> np.ndarray:
    picture = scene().convert("L").convert("RGB") if grey else scene()
    pixels = np.array(picture)
    if hole:
        pixels[HEIGHT // 2 :, WIDTH // 2 :] = 255
    return np.asarray(Image.fromarray(pixels).resize((SIDE, SIDE), Image.Resampling.BICUBIC))


def grey_16() -> bytes:
    return saved(Image.fromarray(np.asarray(scene().convert("L")).astype(np.uint16) * 257), "PNG")


KINDS: dict[str, tuple[bytes, dict[str, bool]]] = {
    **{f"EXIF {orientation}": (turned(orientation), {}) for orientation in STORED_AS},
    "progressive JPEG": (saved(scene(), "JPEG", quality=95, progressive=True), {}),
    "CMYK JPEG": (saved(scene().convert("CMYK"), "JPEG", quality=95), {}),
    "grey JPEG": (saved(scene().convert("L"), "JPEG", quality=95), {"grey": True}),
    "16-bit grey PNG": (grey_16(), {"grey": True}),
    "palette PNG": (saved(scene().quantize(128), "PNG"), {}),
    "alpha PNG": (layered("RGBA"), {"hole": True}),
    "grey alpha PNG": (layered("LA"), {"grey": True, "hole": True}),
    "animated GIF": (animated("GIF"), {}),
    "animated WebP": (animated("WEBP"), {}),
    "lossless WebP": (saved(scene(), "WEBP", lossless=True), {}),
    "TIFF": (saved(scene(), "TIFF", compression="tiff_lzw"), {}),
    "BMP": (saved(scene(), "BMP"), {}),
}


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_stored_is_what_a_person_sees(kind: str, tmp_path: Path) -> None:
    image, looks = KINDS[kind]
    difference = np.abs(stored(tmp_path, image).astype(int) - expected(**looks).astype(int))
    assert difference.mean() < NEAR


def test_avif(tmp_path: Path) -> None:
    difference = stored(tmp_path, saved(scene(), "AVIF", quality=90)).astype(int) - expected()
    assert np.abs(difference).mean() < NEAR


def test_heic(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    pillow_heif.from_pillow(scene()).save(buffer, quality=90)
    difference = stored(tmp_path, buffer.getvalue()).astype(int) - expected()
    assert np.abs(difference).mean() < NEAR
