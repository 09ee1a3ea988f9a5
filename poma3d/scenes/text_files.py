"""Text files of recordings as people's tools write them: a byte-order mark, decimal commas."""

from __future__ import annotations

import re
import zipfile
from pathlib import Path

File = Path | zipfile.Path
"""A file on disk, or a member of a zip that is read in place."""
SHOWN_CHARACTERS = 40
MATRIX_NUMBERS = 16
"""Of a 4x4 matrix."""


def read_text(path: File) -> str:
    """The text of a file in UTF-8, without its byte-order mark.

    Raises:
        OSError: it cannot be read.
        ValueError: it is not UTF-8.
    """
    return path.read_text(encoding="utf-8-sig")


def read_lines(path: File) -> list[str]:
    """The lines of such a file, which end at line breaks alone: a text may hold U+2028 or U+0085, at which
    str.splitlines would split.

    Raises:
        OSError, ValueError: as `read_text`.
    """
    return read_text(path).split("\n")


def floats(text: str) -> list[float]:
    """Numbers that are separated by spaces.

    Raises:
        ValueError: something else; decimal commas are named as such.
    """
    numbers = []
    for word in text.split():
        try:
            numbers.append(float(word))
        except ValueError:
            raise ValueError(_not_a_number(word)) from None
    return numbers


def axis_alignment(path: Path) -> list[float] | None:
    """The 16 numbers, row by row, of the line `axisAlignment` in a ScanNet scan's text file; None without it.

    Raises:
        OSError: it cannot be read.
        ValueError: the line does not hold 16 numbers.
    """
    found = re.search(r"^\s*axisAlignment\s*=(.*)$", read_text(path), re.MULTILINE)
    if found is None:
        return None
    problem = f"{path}: axisAlignment must be 16 numbers, found {found[1].strip()!r}"
    try:
        numbers = floats(found[1])
    except ValueError as error:
        raise ValueError(f"{problem} ({error})") from error
    if len(numbers) != MATRIX_NUMBERS:
        raise ValueError(f"{problem} ({len(numbers)} numbers)")
    return numbers


def _not_a_number(word: str) -> str:
    if re.fullmatch(r"[+-]?\d+,\d+([eE][+-]?\d+)?", word):
        return f"{word!r} has a decimal comma: write {word.replace(',', '.')}"
    if "," in word or ";" in word:
        return f"{word[:SHOWN_CHARACTERS]!r} is no number: separate numbers by spaces, not commas"
    return f"{word[:SHOWN_CHARACTERS]!r} is no number"
