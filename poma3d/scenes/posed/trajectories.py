"""Text files that hold all poses of a recording, and what lies close in time.

    read_timed   a line each: time tx ty tz qx qy qz qw                (TUM RGB-D's groundtruth.txt)
    read_names   a line each: time path                                (TUM RGB-D's rgb.txt and depth.txt)
    read_log     five lines each: frame and two numbers, then 4 x 4    (Open3D's trajectory.log)
    read_rows    a line each: 4 x 4 numbers, row by row                (Replica's traj.txt)

Lines that are empty or begin with # are passed over. What is no such file is a ValueError that names file and
line; numbers that are not finite are left for the frame that they belong to.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from poma3d.scenes.text_files import floats, read_lines

TIMED_NUMBERS, NAMED_WORDS, LOG_NUMBERS = 8, 2, 3


def quaternion_rotation(quaternion: Sequence[float] | np.ndarray) -> np.ndarray:
    """Rotation [3, 3] of a quaternion qx, qy, qz, qw of any length above 0; NaN where it has none."""
    length = float(np.linalg.norm(quaternion))
    if not 0 < length < np.inf:
        return np.full((3, 3), np.nan)
    x, y, z, w = np.asarray(quaternion, np.float64) / length
    return np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
            [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
            [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
        ]
    )


def nearest(times: np.ndarray, time_s: float) -> tuple[int, float]:
    """Index of the nearest of some sorted times, and how many seconds away it is; inf where there is none."""
    if len(times) == 0:
        return 0, np.inf
    after = int(np.searchsorted(times, time_s))
    near = [i for i in (after - 1, after) if 0 <= i < len(times)]
    best = min(near, key=lambda i: abs(times[i] - time_s))
    return best, float(abs(times[best] - time_s))


def read_timed(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Sorted times float64 [n] in seconds, and poses float64 [n, 3, 4] camera -> world.

    Raises:
        ValueError: no such file, or a line that is not eight numbers.
    """
    times, poses = [], []
    for number, line in lines_of(path):
        values = numbers_of(path, number, line, TIMED_NUMBERS)
        times.append(values[0])
        poses.append(np.column_stack([quaternion_rotation(values[4:]), values[1:4]]))
    order = np.argsort(times, kind="stable")
    return np.array(times)[order], np.array(poses).reshape(-1, 3, 4)[order]


def read_names(path: Path) -> tuple[np.ndarray, list[str]]:
    """Sorted times float64 [n] in seconds, and the path that belongs to each.

    Raises:
        ValueError: no such file, or a line that is not a time and a path.
    """
    found = []
    for number, line in lines_of(path):
        words = line.split(maxsplit=1)
        if len(words) != NAMED_WORDS:
            raise ValueError(f"{path}, line {number}: {line[:40]!r}, expected a time in seconds and a path")
        found.append((float(numbers_of(path, number, words[0], 1)[0]), words[1]))
    found.sort()
    return np.array([time_s for time_s, _ in found]), [name for _, name in found]


def read_log(path: Path) -> list[tuple[int, np.ndarray]]:
    """The number of the frame of each entry, and its matrix float64 [4, 4] camera -> world.

    Raises:
        ValueError: no such file, or an entry that is not a line of three numbers and four lines of four.
    """
    lines = list(lines_of(path))
    found = []
    for start in range(0, len(lines), 5):
        entry = lines[start : start + 5]
        number, line = entry[0]
        head = numbers_of(path, number, line, LOG_NUMBERS)
        if not head[0].is_integer():
            raise ValueError(f"{path}, line {number}: {line[:40]!r}, expected the number of a frame first")
        if len(entry) < 5:
            raise ValueError(f"{path}, line {number}: the file ends within this entry of five lines")
        found.append((int(head[0]), np.stack([numbers_of(path, *row, 4) for row in entry[1:]])))
    return found


def read_rows(path: Path) -> list[np.ndarray]:
    """A matrix float64 [4, 4] camera -> world of each line.

    Raises:
        ValueError: no such file, or a line that is not 16 numbers.
    """
    return [numbers_of(path, number, line, 16).reshape(4, 4) for number, line in lines_of(path)]


def lines_of(path: Path) -> Iterator[tuple[int, str]]:
    """Number, counted from 1, and text of the lines that say something."""
    try:
        lines = read_lines(path)
    except (OSError, ValueError) as error:
        raise ValueError(f"{path}: cannot be read ({error})") from error
    for number, line in enumerate(lines, start=1):
        if line.strip() and not line.lstrip().startswith("#"):
            yield number, line.strip()


def numbers_of(path: Path, number: int, line: str, count: int) -> np.ndarray:
    """The numbers of a line, or ValueError."""
    try:
        values = np.array(floats(line))
    except ValueError as error:
        raise ValueError(f"{path}, line {number}: {error}, expected {count} numbers") from None
    if len(values) != count:
        raise ValueError(f"{path}, line {number}: {len(values)} numbers, expected {count}")
    return values
