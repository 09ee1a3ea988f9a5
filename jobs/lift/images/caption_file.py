"""The rows of a file of captions, JSONL or CSV, as people's tools write them: a byte-order mark, line
separators inside of texts, long cells.

A row that does not fit the header is an error: a caption with an unquoted comma would be stored cut.
"""

from __future__ import annotations

import csv
import io
import json
from collections import Counter
from typing import Any

from plinth.errors import DataError

CSV_SUFFIX = ".csv"
SHOWN_CHARACTERS = 60


def read_rows(content: bytes, where: str) -> list[Any]:
    """The rows of a caption file in order; those of a CSV file are dicts of texts.

    Args:
        content: the whole file, UTF-8 with or without a byte-order mark.
        where: names the file in errors; a CSV file ends in .csv.

    Raises:
        DataError: not UTF-8, a line that is not JSON, a row of CSV that does not fit the header.
    """
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(
            f"{where}: not a text file in UTF-8 (byte {error.start}).", "Save it as UTF-8."
        ) from None
    return _csv_rows(text, where) if where.endswith(CSV_SUFFIX) else _json_rows(text, where)


def _json_rows(text: str, where: str) -> list[Any]:
    rows = []
    # JSON texts may hold U+2028, U+0085 and others at which str.splitlines would split.
    for number, line in enumerate(text.split("\n"), start=1):
        try:
            rows += [json.loads(line)] if line.strip() else []
        except (ValueError, RecursionError) as error:  # RecursionError: nested without end
            raise DataError(f"{where}, line {number}: not JSON ({error}).", "Mend the line.") from None
    return rows


def _csv_rows(text: str, where: str) -> list[dict[str, str]]:
    csv.field_size_limit(max(csv.field_size_limit(), len(text)))  # a caption may be of any length
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    rows: list[dict[str, str]] = []
    header: list[str] = []
    start = 1
    try:
        for cells in reader:
            if not header:
                header = _header(cells, where)
            elif cells:
                rows.append(_row(header, cells, f"{where}, line {start}"))
            start = reader.line_num + 1
    except csv.Error as error:
        raise DataError(
            f"{where}, line {start}: not CSV ({error}).",
            'Put a text that holds commas, quotes or line breaks in "...", with "" for a quote in it.',
        ) from None
    return rows


def _header(cells: list[str], where: str) -> list[str]:
    twice = [name for name, count in Counter(cells).items() if name and count > 1]
    if twice:
        raise DataError(f"{where}: two columns have the name '{twice[0]}'.", "Rename one of them.")
    return cells


def _row(header: list[str], cells: list[str], where: str) -> dict[str, str]:
    if len(cells) != len(header):
        more = len(cells) > len(header)
        shown = cells[len(header) - 1] if more else cells[-1]
        raise DataError(
            f"{where}: {len(cells)} fields, the header has {len(header)} ({', '.join(header)}); the "
            f"{'field before those too many' if more else 'last field'} is {shown[:SHOWN_CHARACTERS]!r}.",
            'Put a text that holds commas in "...".' if more else "Add the missing fields, empty or not.",
        )
    return dict(zip(header, cells, strict=True))
