"""Depth samples are read as they stand, whatever a file says of how to show them."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from poma3d.depth_files import decode_depth

DEPTH = np.array([[0, 700, 1400], [2100, 2800, 7999]], np.uint16)


def encoded(array: np.ndarray, suffix: str) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, suffix)
    return buffer.getvalue()


def pgm(header: bytes, samples: np.ndarray = DEPTH) -> bytes:
    return header + samples.astype(">u2" if samples.dtype.itemsize > 1 else "u1").tobytes()


@pytest.mark.parametrize(
    "file",
    [
        pgm(b"P5\n3 2\n65535\n"),
        pgm(b"P5\n3 2\n8000\n"),
        pgm(b"P5 3 2 10000 "),
        pgm(b"P5\n# a sensor\n3 # wide\n2\n# white\n8000\n"),
        pgm(b"P5\n3 2\n8000\n") + b"P5 another picture",
        encoded(DEPTH, "PNG"),
        encoded(DEPTH, "TIFF"),
        encoded(DEPTH.astype(">u2"), "TIFF"),
        encoded(DEPTH.astype(np.int32), "TIFF"),
    ],
)
def test_sixteen_bit_samples_stand(file: bytes) -> None:
    depth = decode_depth(file)
    assert depth.dtype == np.uint16
    np.testing.assert_array_equal(depth, DEPTH)


@pytest.mark.parametrize("maxval", [10, 200, 255])
def test_eight_bit_pgm_samples_stand(maxval: int) -> None:
    samples = np.arange(6, dtype=np.uint8).reshape(2, 3)
    np.testing.assert_array_equal(decode_depth(pgm(b"P5\n3 2\n%d\n" % maxval, samples)), samples)


def test_saturated_samples_are_none() -> None:
    assert decode_depth(pgm(b"P5 3 1 65535\n", np.array([65534, 65535, 1], np.uint16))).tolist() == [
        [65534, 0, 1]
    ]


@pytest.mark.parametrize(
    ("file", "found"),
    [
        (b"", "no PNG, TIFF or binary PGM"),
        (b"P5\n3 2\n", "without width, height and maxval"),
        (b"P2\n1 1\n10\n3\n", "no PNG, TIFF or binary PGM"),
        (pgm(b"P5\n3 2\n70000\n"), "maxval 70000"),
        (pgm(b"P5\n3 2\n0\n"), "maxval 0"),
        (pgm(b"P5\n3 3\n8000\n"), "needs 18 bytes of samples, there are 12"),
        (b"P5 1000000 1000000 65535\n", "claims 1000000 x 1000000"),
        (encoded(DEPTH, "PNG")[:45], "damaged"),
        (encoded(DEPTH.astype(np.uint8), "PNG"), r"uint8 \[2, 3\], expected 16-bit grey"),
        (encoded(DEPTH.astype(np.float32), "TIFF"), "float32"),
        (encoded(DEPTH.astype(np.int32) * 100, "TIFF"), "samples from 0 to 799900"),
        (encoded(np.zeros((4, 4, 3), np.uint8), "PNG"), "uint8"),
        (encoded(DEPTH.astype(np.uint8), "JPEG"), "no PNG, TIFF or binary PGM"),
    ],
)
def test_what_is_no_depth_map_says_what_it_is(file: bytes, found: str) -> None:
    with pytest.raises(ValueError, match=found):
        decode_depth(file)
