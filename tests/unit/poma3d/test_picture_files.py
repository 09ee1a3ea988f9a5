"""Pictures of every kind that users have, written by Pillow itself, against the right pixels."""

from __future__ import annotations

import io
import struct
import sys
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageFile
from pillow_heif import register_heif_opener

from poma3d.picture_files import UnreadablePicture, decode_picture

RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)


def photo(height: int = 40, width: int = 60) -> np.ndarray:
    """Four corners of four colours: shows how it is turned."""
    pixels = np.empty((height, width, 3), np.uint8)
    pixels[: height // 2, : width // 2], pixels[: height // 2, width // 2 :] = RED, GREEN
    pixels[height // 2 :, : width // 2], pixels[height // 2 :, width // 2 :] = BLUE, WHITE
    return pixels


def encoded(image: Image.Image | np.ndarray, kind: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(buffer, kind, **options)
    return buffer.getvalue()


def with_orientation(value: int) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = value
    return exif.tobytes()


TURNS = {
    1: lambda p: p,
    2: np.fliplr,
    3: lambda p: np.rot90(p, 2),
    4: np.flipud,
    5: lambda p: np.swapaxes(p, 0, 1),
    6: lambda p: np.rot90(p, -1),
    7: lambda p: np.rot90(np.swapaxes(p, 0, 1), 2),
    8: lambda p: np.rot90(p, 1),
}
"""EXIF orientation -> what brings stored pixels upright (CIPA DC-008, 4.6.4.A)."""


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF", "WEBP", "AVIF"])
@pytest.mark.parametrize("orientation", TURNS)
def test_pictures_are_turned_upright_as_exif_says(kind: str, orientation: int) -> None:
    stored = encoded(photo(), kind, exif=with_orientation(orientation))
    expected = TURNS[orientation](photo()).astype(int)
    found = decode_picture(stored).astype(int)
    assert found.shape == expected.shape
    assert np.abs(found - expected).mean() < 8  # what the lossy formats lose


@pytest.mark.parametrize("orientation", [1, 6])
def test_heic_photos_are_read_and_upright(orientation: int) -> None:
    register_heif_opener()
    stored = encoded(photo(), "HEIF", exif=with_orientation(orientation), quality=95)
    expected = TURNS[orientation](photo()).astype(int)
    found = decode_picture(stored).astype(int)
    assert found.shape == expected.shape
    assert np.abs(found - expected).mean() < 8


def test_a_missing_heic_decoder_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    register_heif_opener()
    stored = encoded(photo(), "HEIF")
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    with pytest.raises(UnreadablePicture, match=r"HEIC.*pip install 'poma3d-platform\[heic\]'"):
        decode_picture(stored)


def test_damaged_exif_costs_nothing() -> None:
    stored = encoded(photo(), "JPEG", exif=b"Exif\x00\x00MM\x00\x2a\xff\xff\xff\xff")
    np.testing.assert_array_equal(decode_picture(stored), decode_picture(encoded(photo(), "JPEG")))


@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_a_jpeg_without_exif_is_what_pillow_decodes(mode: str) -> None:
    stored = encoded(Image.fromarray(photo()).convert(mode), "JPEG", quality=75)
    np.testing.assert_array_equal(
        decode_picture(stored), np.asarray(Image.open(io.BytesIO(stored)).convert("RGB"))
    )


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_16_bit_grey_keeps_black_white_and_what_lies_between(kind: str) -> None:
    samples = np.array([[0, 257, 128 * 257, 65535, 128, 129]], np.uint16)
    found = decode_picture(encoded(Image.fromarray(samples), kind))
    assert found[0, :, 0].tolist() == [0, 1, 128, 255, 0, 1]
    assert (found == found[..., :1]).all()


def test_16_bit_colour_is_the_higher_byte() -> None:
    def chunk(name: bytes, content: bytes) -> bytes:
        return (
            struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))
        )

    row = b"\0" + struct.pack(">3H", 0x1234, 0xFFFF, 0x00FF)
    header = struct.pack(">IIBBBBB", 1, 1, 16, 2, 0, 0, 0)
    png = (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(row))
        + chunk(b"IEND", b"")
    )
    assert decode_picture(png).tolist() == [[[0x12, 0xFF, 0x00]]]


@pytest.mark.parametrize(("alpha", "expected"), [(255, (200, 100, 0)), (0, WHITE), (51, (244, 224, 204))])
def test_what_is_transparent_lies_on_white(alpha: int, expected: tuple[int, int, int]) -> None:
    rgba = np.full((2, 2, 4), (200, 100, 0, alpha), np.uint8)
    assert decode_picture(encoded(rgba))[0, 0].tolist() == list(expected)


def test_a_transparent_colour_of_a_palette_and_grey_with_alpha_lie_on_white() -> None:
    palette = Image.fromarray(np.array([[0, 1]], np.uint8), "P")
    palette.putpalette([10, 20, 30, 40, 50, 60])
    assert decode_picture(encoded(palette))[0].tolist() == [[10, 20, 30], [40, 50, 60]]
    assert decode_picture(encoded(palette, transparency=1))[0].tolist() == [[10, 20, 30], [255] * 3]
    grey = np.array([[[90, 255], [90, 0]]], np.uint8)
    assert decode_picture(encoded(grey))[0].tolist() == [[90] * 3, [255] * 3]


def test_cmyk_and_one_bit_pictures_are_converted() -> None:
    cmyk = Image.new("CMYK", (8, 8), (0, 255, 255, 0))
    assert decode_picture(encoded(cmyk, "TIFF"))[0, 0].tolist() == list(RED)
    assert decode_picture(encoded(Image.new("1", (8, 8), 1)))[0, 0].tolist() == list(WHITE)


def test_of_several_frames_the_first_counts() -> None:
    first, second = Image.new("L", (4, 4), 10), Image.new("L", (4, 4), 200)
    stored = encoded(first, "GIF", save_all=True, append_images=[second])
    assert decode_picture(stored)[0, 0].tolist() == [10] * 3


@pytest.mark.parametrize(
    "samples",
    [np.full((2, 2), 0.5, np.float32), np.full((2, 2), 70000, np.int32), np.full((2, 2), -1, np.int32)],
)
def test_samples_without_a_rule_are_refused(samples: np.ndarray) -> None:
    with pytest.raises(UnreadablePicture, match="samples"):
        decode_picture(encoded(Image.fromarray(samples), "TIFF"))


@pytest.mark.parametrize(
    "kind", ["PNG", "JPEG", "TIFF", "WEBP", "GIF", "BMP", "PPM", "JPEG2000", "AVIF", "ICO"]
)
def test_a_damaged_picture_of_any_format_is_one_kind_of_error(kind: str) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8)
    whole = encoded(pixels, kind)
    rng = np.random.default_rng(1)
    reasons = []
    for cut in (1, 8, 20, len(whole) // 2):
        flipped = bytearray(whole)
        for at in rng.integers(0, min(len(whole), 200), 8).tolist():
            flipped[at] ^= 0xFF
        for damaged in (whole[:cut], bytes(flipped)):
            try:
                decode_picture(damaged)
            except UnreadablePicture as error:
                reasons.append(str(error))
    assert len(reasons) >= 3
    assert all(reason and len(reason.splitlines()) == 1 for reason in reasons)


def test_whatever_a_decoder_raises_names_its_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(image: ImageFile.ImageFile) -> None:
        raise struct.error("unpack requires a buffer of 4 bytes")

    stored = encoded(photo(), "TIFF")
    monkeypatch.setattr("PIL.TiffImagePlugin.TiffImageFile.load", fail)
    with pytest.raises(UnreadablePicture, match="unpack requires a buffer of 4 bytes"):
        decode_picture(stored)


def test_a_header_that_claims_too_many_pixels_is_refused() -> None:
    stored = bytearray(encoded(photo(), "BMP"))
    stored[18:26] = struct.pack("<ii", 60_000, 60_000)
    with pytest.raises(UnreadablePicture):
        decode_picture(bytes(stored))


def test_no_picture_and_no_file(tmp_path: Path) -> None:
    for nothing in (b"", b"a text"):
        with pytest.raises(UnreadablePicture, match="no picture of a known format"):
            decode_picture(nothing)
    (tmp_path / "a.png").write_bytes(encoded(photo()))
    np.testing.assert_array_equal(decode_picture(tmp_path / "a.png"), photo())
    with pytest.raises(FileNotFoundError):
        decode_picture(tmp_path / "b.png")
