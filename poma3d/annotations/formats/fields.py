"""Fields of a row, each checked: a wrong one is a `BadRow` that names it."""

from __future__ import annotations

import ast
import json
import math
from typing import Any

from poma3d.annotations.formats.files import Record
from poma3d.annotations.notes import BadRow
from poma3d.annotations.rows import Quaternion, Vector

UNIT = 1e-3
"""How far the norm of a quaternion may be from 1; the published ones are within 1e-13."""
SPELLINGS = {
    **dict.fromkeys(("true", "t", "yes", "y", "1", "1.0"), True),
    **dict.fromkeys(("false", "f", "no", "n", "0", "0.0"), False),
}
SHOWN = 60
"""Characters of a wrong value that are shown."""


def shown(value: Any) -> str:
    """A wrong value for a message."""
    text = json.dumps(value, default=str)
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}..."


def record(value: Any, what: str = "row") -> Record:
    """An object."""
    if not isinstance(value, dict):
        raise BadRow(f"{what} is no object: {shown(value)}")
    return value


def present(row: Record, *names: str) -> Any:
    """The first of several names that the row has; what it holds."""
    for name in names:
        if name in row:
            return row[name]
    raise BadRow(f"no {' or '.join(names)}")


def text(row: Record, *names: str) -> str:
    """A text that is not blank."""
    value = present(row, *names)
    if not isinstance(value, str):
        raise BadRow(f"{names[0]} is no text: {shown(value)}")
    if not value.strip():
        raise BadRow(f"{names[0]} is empty")
    return value


def optional_text(row: Record, name: str) -> str:
    """A text, which may be blank or missing."""
    value = row.get(name, "")
    if not isinstance(value, str):
        raise BadRow(f"{name} is no text: {shown(value)}")
    return value


def identifier(row: Record, *names: str) -> str:
    """An id, a text or an integer, as text. A floating number may be another id than was meant."""
    value = present(row, *names)
    if isinstance(value, str) and value.strip():
        return value
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    raise BadRow(f"{names[0]} must be a text or an integer, found {shown(value)}")


def texts(value: Any, name: str) -> list[str]:
    """A list of texts."""
    if not isinstance(value, list) or not all(isinstance(each, str) for each in value):
        raise BadRow(f"{name} is no list of texts: {shown(value)}")
    return value


def boolean(row: Record, name: str) -> bool:
    """True or false in any spelling: `bool("False")` is true."""
    value = present(row, name)
    if isinstance(value, bool):
        return value
    known = SPELLINGS.get(str(value).strip().lower())
    if known is None:
        raise BadRow(f"{name} is neither true nor false: {shown(value)}")
    return known


def number(value: Any, name: str) -> float:
    """A finite number."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise BadRow(f"{name} is no number: {shown(value)}")
    try:
        found = float(value)
    except OverflowError:
        found = math.inf
    if not math.isfinite(found):
        raise BadRow(f"{name} is not finite: {shown(value)}")
    return found


def vector(value: Any, name: str) -> Vector:
    """Three numbers: a list, or an object with x, y and z."""
    if isinstance(value, dict):
        value = [present(value, axis, f"_{axis}") for axis in "xyz"]
    if not isinstance(value, list) or len(value) != 3:
        raise BadRow(f"{name} must be three numbers, found {shown(value)}")
    x, y, z = (number(each, name) for each in value)
    return x, y, z


def quaternion(value: Any, name: str) -> Quaternion:
    """A unit quaternion (x, y, z, w): a list in that order, or an object, whose keys are read by name."""
    if isinstance(value, dict):
        value = [present(value, f"_{axis}", axis) for axis in "xyzw"]
    if not isinstance(value, list) or len(value) != 4:
        raise BadRow(f"{name} must be a quaternion of four numbers, found {shown(value)}")
    x, y, z, w = (number(each, name) for each in value)
    norm = math.hypot(x, y, z, w)
    if abs(norm - 1.0) > UNIT:
        raise BadRow(f"{name} is no unit quaternion: its norm is {norm:.4g}")
    return x, y, z, w


def whole_numbers(value: Any, name: str) -> tuple[int, ...]:
    """A list of integers."""
    if not isinstance(value, list) or not all(type(each) is int for each in value):  # bool is an int, too
        raise BadRow(f"{name} is no list of integers: {shown(value)}")
    return tuple(value)


def written_list(value: Any, name: str) -> list[Any]:
    """A list, or the text of one as Python or JSON writes it; nothing is run."""
    if isinstance(value, str):
        try:
            value = ast.literal_eval(value)
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            raise BadRow(f"{name} is no list: {shown(value)}") from None
    if not isinstance(value, list):
        raise BadRow(f"{name} is no list: {shown(value)}")
    return value
