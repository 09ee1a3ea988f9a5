"""Encoded pictures -> 8-bit RGB as a person would see them, by stated rules.

    way up          as EXIF's orientation says; as stored where there is none, or none that can be read, and
                    where the pixels belong to a depth map (`as_stored`)
    several frames  the first
    grey, palette   converted; 16-bit grey divided by 257, so that full white stays full white
    16-bit colour   the higher byte of each sample
    transparency    laid on white
    CMYK            converted without a colour profile (profiles are never applied)
    HEIC            through pillow-heif, which the extra `heic` installs; AVIF through Pillow itself

32-bit and floating-point samples have no rule: what is white is not known. What a decoder raises on damaged
bytes is an `UnreadablePicture`: every format raises errors of its own, so no list of them is complete.

Legend: h w pixels.
"""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError, features

UINT16_MAX = 65535
GREY_16_TO_8 = 257
"""65535 / 255."""
WHITE = (255, 255, 255, 255)
ORIENTATION = 0x0112
"""EXIF's tag."""
UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""Orientation -> what turns the picture upright; 1 is upright."""
LAYERED = ("RGBA", "RGBa", "LA", "La", "PA")
"""Modes with an alpha channel."""
HEIC = {b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis"}
AVIF = {b"avif", b"avis"}
LONGEST_BRANDS = 512
"""Bytes in which the first box of a file of the HEIF family ends: it names what the file is readable as."""
REASON_CHARACTERS = 120


class UnreadablePicture(ValueError):
    """Bytes that are no picture, or a damaged one; says why in one line."""


def decode_picture(source: bytes | Path, as_stored: bool = False) -> np.ndarray:
    """uint8 [h, w, 3] of an encoded picture.

    Args:
        as_stored: leave its rows and columns where they are, whatever EXIF says.

    Raises:
        UnreadablePicture: it cannot be decoded, or has samples without a rule.
        OSError: the file cannot be read.
    """
    return np.asarray(to_rgb(open_picture(source), as_stored))


def open_picture(source: bytes | Path) -> Image.Image:
    """The picture, of which only the header is read: its size and mode are known.

    Raises:
        UnreadablePicture: no picture, or one that needs a decoder which is not installed.
        OSError: the file cannot be read.
    """
    encoded = source.read_bytes() if isinstance(source, Path) else source
    try:
        _prepare(encoded)
        return Image.open(io.BytesIO(encoded))
    except Exception as error:
        raise _unreadable(error) from error


def to_rgb(picture: Image.Image, as_stored: bool = False) -> Image.Image:
    """The picture decoded: mode RGB, upright.

    Args:
        picture: of `open_picture`. A JPEG may have been told by `draft` to decode at a fraction of its size.
        as_stored: leave its rows and columns where they are, whatever EXIF says.

    Raises:
        UnreadablePicture: it cannot be decoded, or has samples without a rule.
    """
    try:
        picture.load()
        turn = None if as_stored else UPRIGHT.get(_orientation(picture))
        rgb = _in_rgb(picture)
        return rgb.transpose(turn) if turn is not None else rgb
    except Exception as error:
        raise _unreadable(error) from error


def _in_rgb(picture: Image.Image) -> Image.Image:
    if picture.mode.startswith("I"):
        samples = np.asarray(picture).astype(np.int64)
        if samples.min(initial=0) < 0 or samples.max(initial=0) > UINT16_MAX:
            raise UnreadablePicture(f"grey samples up to {samples.max()}, expected 8 or 16 bits")
        grey = (samples + GREY_16_TO_8 // 2) // GREY_16_TO_8
        return Image.fromarray(grey.astype(np.uint8)).convert("RGB")
    if picture.mode == "F":
        raise UnreadablePicture("floating-point samples, expected 8 or 16 bits")
    if picture.mode in LAYERED or "transparency" in picture.info:
        layer = picture.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", layer.size, WHITE), layer).convert("RGB")
    return picture.convert("RGB")


def _orientation(picture: Image.Image) -> int:
    """1 to 8; 1 where nothing says so."""
    try:
        found = picture.getexif().get(ORIENTATION, 1)
    except Exception:  # every damaged EXIF block raises another error, and the picture itself is whole
        return 1
    return found if isinstance(found, int) else 1


def _prepare(encoded: bytes) -> None:
    """Have the decoder at hand that Pillow does not bring."""
    brands = _brands(encoded)
    if brands & AVIF and not features.check("avif"):
        raise UnreadablePicture("an AVIF picture, and this build of Pillow has no AVIF: install pillow>=11.3")
    if brands & HEIC:
        try:
            from pillow_heif import register_heif_opener
        except ImportError:
            raise UnreadablePicture(
                "a HEIC picture: install its decoder with pip install 'poma3d-platform[heic]'"
            ) from None
        register_heif_opener()


def _brands(encoded: bytes) -> set[bytes]:
    """What a file of the HEIF family (HEIC, AVIF) says it is; nothing for any other."""
    if encoded[4:8] != b"ftyp":
        return set()
    end = min(int.from_bytes(encoded[:4], "big"), LONGEST_BRANDS)
    return {encoded[start : start + 4] for start in (8, *range(16, end, 4))}


def _unreadable(error: Exception) -> UnreadablePicture:
    if isinstance(error, UnreadablePicture):
        return error
    if isinstance(error, UnidentifiedImageError):
        return UnreadablePicture("no picture of a known format")
    reason = (str(error).strip() or type(error).__name__).splitlines()[0]
    return UnreadablePicture(reason[:REASON_CHARACTERS])
