"""Reading the files of recorded scans; what is wrong with one is a BadFrame or a ValueError."""

from __future__ import annotations

import os
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from poma3d.depth_files import decode_depth
from poma3d.scenes.frame import BadFrame
from poma3d.scenes.text_files import File, floats, read_lines

HEADERS_READ = 15
"""Depth files whose headers decide the usual size of a scan."""
ONE_LINE = {9: (3, 3), 12: (3, 4), 16: (4, 4)}
"""Matrices that some tools write in one line."""
LAST_ROW, ROUNDED = np.array([0.0, 0, 0, 1]), 1e-3
DEEP = "**/"
PICTURE_ERRORS = (
    OSError,
    SyntaxError,
    ValueError,
    KeyError,
    zipfile.BadZipFile,
    Image.DecompressionBombError,
)
"""What opening and decoding raise for a damaged or missing picture: SyntaxError is Pillow's for a PNG, the
bomb its refusal of a header that claims too many pixels, KeyError zipfile's for a missing member."""


def read_depth(path: File, size: tuple[int, int] | None) -> np.ndarray:
    """Depth uint16 [h, w] of a file that `poma3d.depth_files` reads, 0 = none.

    Args:
        path: the file.
        size: (h, w) that the scan's intrinsics are for; any when None.

    Raises:
        BadFrame: the file is missing, damaged, not 16-bit grey, or of another size.
    """
    try:
        depth = decode_depth(path.read_bytes())
    except (*PICTURE_ERRORS, zlib.error) as error:
        raise BadFrame("unreadable depth", f"{path.name}: {error}") from error
    if size is not None and depth.shape != size:
        raise BadFrame("wrong shape", f"{path.name} is {list(depth.shape)}, the scan has {list(size)}")
    return depth


def read_matrix(path: File, shape: tuple[int, int], what: str) -> np.ndarray:
    """A matrix float64 of at least `shape` from a text file, cut to `shape`; it may stand in one line.

    Raises:
        BadFrame: "unreadable `what`": the file is missing, not numbers, or too small.
    """
    return _whole_matrix(path, shape, what)[: shape[0], : shape[1]]


def read_pose(path: File) -> np.ndarray:
    """A pose float64 [3, 4] from a text file of 3 x 4 or 4 x 4 numbers.

    Raises:
        BadFrame: it cannot be read, its last row says that it is no rigid motion, or it is not finite: -inf
            must not meet another matrix, where it would become NaN.
    """
    pose = rigid(_whole_matrix(path, (3, 4), "pose"))
    if not np.isfinite(pose).all():
        raise BadFrame("non-finite pose", f"{path.name}: {pose[0].tolist()}")
    return pose


def rigid(matrix: np.ndarray) -> np.ndarray:
    """The first three rows of a pose [3, 4] or [4, 4].

    Raises:
        BadFrame: the last row is not (0, 0, 0, 1), as where a matrix is stored column by column.
    """
    last = matrix[3:4, :4]
    if np.isfinite(last).all() and np.abs(last - LAST_ROW).max(initial=0) > ROUNDED:
        raise BadFrame(
            "pose is no rigid motion", f"its last row is {last[0].tolist()}, expected 0 0 0 1: transposed?"
        )
    return matrix[:3, :4]


def _whole_matrix(path: File, shape: tuple[int, int], what: str) -> np.ndarray:
    try:
        matrix = np.array([floats(line) for line in read_lines(path) if line.strip()], np.float64)
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise BadFrame(f"unreadable {what}", f"{path.name}: {error}") from error
    if len(matrix) == 1 and matrix.size in ONE_LINE:
        matrix = matrix.reshape(ONE_LINE[matrix.size])
    if matrix.ndim != 2 or matrix.shape[0] < shape[0] or matrix.shape[1] < shape[1]:
        raise BadFrame(f"unreadable {what}", f"{path.name} holds {list(matrix.shape)}, not {list(shape)}")
    return matrix


def read_intrinsics(path: Path) -> np.ndarray | None:
    """fx, fy, cx, cy float64 [4] from a 3x3 (or larger) matrix; None when there is no such file."""
    try:
        matrix = read_matrix(path, (3, 3), "intrinsics")
    except BadFrame:
        return None
    return np.array([matrix[0, 0], matrix[1, 1], matrix[0, 2], matrix[1, 2]])


def listed(folder: Path, pattern: str) -> list[Path]:
    """Sorted paths below a folder that match a glob, hidden ones left out.

    A Mac's archives hold a file `._NAME` of attributes beside every NAME: no path with a part that begins
    with a dot is ever data. `**/NAME` looks at any depth and follows links to folders, each folder once.
    """
    deep = pattern.startswith(DEEP)
    name = pattern.removeprefix(DEEP)
    found = (p for f in (folders_below(folder) if deep else [folder]) for p in f.glob(name))
    return sorted(p for p in found if not any(n.startswith(".") for n in p.relative_to(folder).parts))


def folders_below(root: Path) -> Iterator[Path]:
    """A folder and the visible ones below it. Links are followed after the folders themselves, so that each
    is found once and under its own name; a link to a folder that holds it is a loop and leads nowhere."""
    seen: set[Path] = set()
    starts = [root]
    while starts:
        for name, below, _ in os.walk(starts.pop(0)):
            folder = Path(name)
            real = folder.resolve()
            below[:] = sorted(part for part in below if not part.startswith("."))
            if real in seen:
                below.clear()
                continue
            seen.add(real)
            links = [folder / part for part in below if (folder / part).is_symlink()]
            starts += [link for link in links if not real.is_relative_to(link.resolve())]
            yield folder


def first_there(folder: Path, names: Iterable[str]) -> Path:
    """The first of some files of a folder that is there; else where the first should be."""
    paths = [folder / name for name in names]
    return next((path for path in paths if path.exists()), paths[0])


def frame_stems(folder: Path, suffix: str) -> list[str]:
    """Sorted names of the files with a suffix, without it: the ids of a scan's frames."""
    return [path.name.removesuffix(suffix) for path in listed(folder, f"*{suffix}")]


def usual_size(paths: Sequence[File]) -> tuple[int, int] | None:
    """The most common (h, w) among some of the images, from their headers; None when none opens."""
    sizes: Counter[tuple[int, int]] = Counter()
    for path in paths[:: max(1, len(paths) // HEADERS_READ)]:
        try:
            with path.open("rb") as file, Image.open(file) as image:
                sizes[image.height, image.width] += 1
        except PICTURE_ERRORS:
            continue
    return sizes.most_common(1)[0][0] if sizes else None
