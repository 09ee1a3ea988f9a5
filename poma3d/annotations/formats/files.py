"""Files of annotations as they stand: JSON, JSON lines, CSV. A mistake names its file and line."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from poma3d.annotations.notes import BadRow
from poma3d.scenes.text_files import read_lines, read_text

Record = dict[str, Any]


def load_json(path: Path) -> Any:
    """The content of a JSON file.

    Raises:
        ValueError: it cannot be read, is no JSON, or an object has a key twice, of which JSON readers lose
        one.
    """
    return _parse(_text(path), str(path))


def json_lines(path: Path) -> Iterator[tuple[int, Record | BadRow]]:
    """The objects of a file of JSON lines with their line numbers from 1; blank lines are skipped.

    Raises:
        ValueError: the file cannot be read.
    """
    try:
        lines = read_lines(path)
    except (OSError, ValueError) as error:
        raise _unreadable(path, error) from None
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            value = json.loads(line, object_pairs_hook=_once)
        except json.JSONDecodeError as error:
            yield number, BadRow(f"not JSON ({error.msg} at character {error.colno})")
        except (ValueError, RecursionError) as error:
            yield number, BadRow(f"not JSON ({error})")
        else:
            yield number, value if isinstance(value, dict) else BadRow(f"no JSON object: {line[:60]}")


def read_table(path: Path, needed: Sequence[str]) -> list[tuple[int, dict[str, str] | BadRow]]:
    """The rows of a CSV file by column name, each with the number of the line it begins at.

    Raises:
        ValueError: the file cannot be read, lacks a needed column or names one twice, or its quotes do not
        close.
    """
    reader = csv.reader(io.StringIO(_text(path), newline=""), strict=True)
    rows: list[tuple[int, dict[str, str] | BadRow]] = []
    try:
        columns = next(reader, [])
        if missing := [name for name in needed if name not in columns]:
            raise ValueError(f"{path}: no column {', '.join(missing)}; there are {', '.join(columns)[:200]}")
        if len(set(columns)) < len(columns):
            raise ValueError(f"{path}: a column is named twice: {', '.join(columns)[:200]}")
        line = reader.line_num + 1
        for cells in reader:
            if len(cells) == len(columns):
                rows.append((line, dict(zip(columns, cells, strict=True))))
            elif cells:
                rows.append((line, BadRow(f"{len(cells)} cells, {len(columns)} columns")))
            line = reader.line_num + 1
    except csv.Error as error:
        raise ValueError(f"{path}, line {reader.line_num}: not CSV ({error})") from None
    return rows


def columns_of(path: Path) -> list[str]:
    """The first line of a CSV file."""
    return next(csv.reader(io.StringIO(_text(path), newline="")), [])


def _text(path: Path) -> str:
    try:
        return read_text(path)
    except (OSError, ValueError) as error:
        raise _unreadable(path, error) from None


def _unreadable(path: Path, error: Exception) -> ValueError:
    if isinstance(error, OSError):
        return ValueError(f"{path}: cannot be read ({error.strerror or error})")
    return ValueError(f"{path}: not text in UTF-8 ({error})")


def _parse(text: str, where: str) -> Any:
    try:
        return json.loads(text, object_pairs_hook=_once)
    except json.JSONDecodeError as error:
        place = f"line {error.lineno}, character {error.colno}"
        raise ValueError(f"{where}, {place}: not JSON ({error.msg})") from None
    except RecursionError:
        raise ValueError(f"{where}: not JSON of annotations (nested too deeply)") from None
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from None


def _once(pairs: list[tuple[str, Any]]) -> Record:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"an object has the key {twice!r} twice")
    return found
