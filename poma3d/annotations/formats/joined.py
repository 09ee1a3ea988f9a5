"""Formats of two files: rows in one, what belongs to them in the other, joined by an id and never by
order."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from poma3d.annotations.formats.fields import record, text
from poma3d.annotations.formats.files import Record
from poma3d.annotations.notes import BadRow, Notes

Place = tuple[Path, str]
"""File and row."""
Keyed = dict[str, tuple[Record, Place]]


def numbered(rows: Any) -> Iterable[tuple[str, Any]]:
    """The rows of a list with how they are named: row 1, row 2, ..."""
    return ((f"row {number}", row) for number, row in enumerate(rows, 1))


def by_id(parts: Iterable[tuple[Path, Iterable[tuple[str, Any]]]], key_of: Any, notes: Notes) -> Keyed:
    """Id -> row of several files, in file order; a second row of an id is a problem, the first is kept.

    Args:
        key_of: the id of a row; raises BadRow.
    """
    found: Keyed = {}
    for path, rows in parts:
        for name, row in rows:
            try:
                key = key_of(record(row))
            except BadRow as error:
                notes.problem(path, name, error)
                continue
            if key in found:
                first_path, first_row = found[key][1]
                there = first_row if first_path == path else f"{first_path}, {first_row}"
                notes.problem(path, f"{name} (id {key})", f"the id stands in {there} already")
                continue
            found[key] = (row, (path, name))
    return found


def refuse_strangers(asked: Keyed, answered: Keyed, what: str) -> None:
    """Refuse two files that have nothing in common.

    Args:
        what: the second file, in words.

    Raises:
        ValueError: no id of the first is in the second.
    """
    if asked and answered and not asked.keys() & answered.keys():
        (_, (first, _)), (_, (second, _)) = next(iter(asked.values())), next(iter(answered.values()))
        raise ValueError(
            f"{second}: {what} of another split or data set: none of its {len(answered)} ids is in {first}, "
            f"such as {next(iter(answered))}. Give the two files of one split"
        )


def note_strangers(
    asked: Keyed, answered: Keyed, notes: Notes, reason: str = "no question has this id"
) -> None:
    """Rows of the second file that belong to no row of the first."""
    for key, (_, (path, name)) in answered.items():
        if key not in asked:
            notes.problem(path, f"{name} (id {key})", reason)


def listed_answers(row: Record) -> tuple[str, ...]:
    """The texts of `answers: [{answer, ...}]`, or of a list of texts."""
    answers = row.get("answers", [])
    if not isinstance(answers, list):
        raise BadRow("answers is no list")
    entries = [{"answer": each} if isinstance(each, str) else record(each, "an answer") for each in answers]
    return tuple(text(entry, "answer") for entry in entries)


def rows_under(content: Record, key: str) -> Sequence[Any]:
    """The list of rows under a key."""
    rows: Sequence[Any] = content[key]
    return rows
