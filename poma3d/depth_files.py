"""Encoded depth maps -> their samples, as they stand.

Depth is numbers, not a picture: no rule for looking at pictures may touch them. Pillow stretches a PGM so
that its maxval becomes 65535 (a depth of 8000 with maxval 8000 would read as 65.5 m), so PGM is read here.
PNG and TIFF samples of 16 bits it hands over unchanged.

Legend: h w pixels.
"""

from __future__ import annotations

import io
import re

import numpy as np
from PIL import Image, UnidentifiedImageError

SATURATED = 65535
"""Depth that some sensors write for "no depth", besides 0."""
MOST_PIXELS = 2**26
"""Of a depth map: 200 times a Kinect's; a header that claims more is damaged."""
FORMATS = ("PNG", "TIFF")
PGM = b"P5"
PGM_HEADER = re.compile(rb"P5" + 3 * rb"(?:\s|#[^\n]*\n)+(\d+)" + rb"(?:#[^\n]*\n|\s)")
"""Magic, width, height, maxval, between them white space and comments, one of either before the samples."""
HEADER_BYTES = 4096
"""A longer header of a PGM is none."""
ONE_BYTE = 255
"""The greatest maxval of samples of one byte; above it they have two, the higher first."""


def decode_depth(encoded: bytes) -> np.ndarray:
    """Samples uint16 [h, w] of a 16-bit grey PNG or TIFF, or of a binary PGM of 8 or 16 bits; 0 = none, also
    where a sample is 65535. A grey PNG of 8 bits is refused: those are made to be looked at.

    Raises:
        ValueError: none of these, damaged, or of other samples; says what was found.
    """
    samples = _pgm(encoded) if encoded[:2] == PGM else _picture(encoded)
    return np.where(samples == SATURATED, 0, samples).astype(np.uint16)


def _picture(encoded: bytes) -> np.ndarray:
    """Integer samples [h, w]."""
    with _opened(encoded) as image:
        try:
            samples = np.asarray(image)
        except Exception as error:  # every format has errors of its own, so no list of them is complete
            raise ValueError(f"damaged ({error})") from error
    if samples.ndim != 2 or samples.dtype.kind not in "ui" or samples.dtype.itemsize == 1:
        raise ValueError(f"{samples.dtype} {list(samples.shape)}, expected 16-bit grey [h, w]")
    if samples.min(initial=0) < 0 or samples.max(initial=0) > SATURATED:
        raise ValueError(f"samples from {samples.min()} to {samples.max()}, expected 0 to {SATURATED}")
    return samples


def _opened(encoded: bytes) -> Image.Image:
    try:
        image = Image.open(io.BytesIO(encoded), formats=FORMATS)
    except UnidentifiedImageError:
        raise ValueError(f"no {', '.join(FORMATS)} or binary PGM") from None
    except Exception as error:
        raise ValueError(f"damaged ({error})") from error
    _check_size(image.width, image.height)
    return image


def _pgm(encoded: bytes) -> np.ndarray:
    """uint8 or big-endian uint16 [h, w] (netpbm.sourceforge.net/doc/pgm.html)."""
    height, width, maxval, start = _pgm_header(encoded)
    dtype = np.dtype(np.uint8 if maxval <= ONE_BYTE else ">u2")
    needed = width * height * dtype.itemsize
    if len(encoded) - start < needed:
        raise ValueError(
            f"a PGM of {width} x {height} with maxval {maxval} needs {needed} bytes of samples, there are "
            f"{len(encoded) - start}"
        )
    return np.frombuffer(encoded, dtype, width * height, start).reshape(height, width)


def _pgm_header(encoded: bytes) -> tuple[int, int, int, int]:
    """Height, width, maxval, and where the samples begin."""
    found = PGM_HEADER.match(encoded[:HEADER_BYTES])
    if found is None:
        raise ValueError("a PGM without width, height and maxval")
    width, height, maxval = map(int, found.groups())
    _check_size(width, height)
    if not 0 < maxval <= SATURATED:
        raise ValueError(f"a PGM with maxval {maxval}, expected 1 to {SATURATED}")
    return height, width, maxval, found.end()


def _check_size(width: int, height: int) -> None:
    if not 0 < width * height <= MOST_PIXELS:
        raise ValueError(f"the header claims {width} x {height} pixels, which is no depth map")
