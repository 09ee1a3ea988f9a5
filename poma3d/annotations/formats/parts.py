"""Which file of which format a file is, told by what stands in it, never by its name."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum
from itertools import chain, islice
from pathlib import Path
from typing import Any

from poma3d.annotations.formats.files import columns_of, json_lines, load_json

TABLE_SUFFIXES = (".csv",)
LOOKED_AT = 20
"""Rows that are looked at."""
LINES_SUFFIXES = (".jsonl", ".ndjson")


class Part(Enum):
    """A file of a format, in words."""

    SCANQA = "ScanQA's questions"
    SQA3D_QUESTIONS = "SQA3D's questions"
    SQA3D_ANSWERS = "SQA3D's annotations"
    SQA3D_SITUATIONS = "the situations of SQA3D's localisation task"
    SQA3D_POSES = "the poses of SQA3D's localisation task"
    HYPO3D = "Hypo3D as released"
    HYPO3D_QUESTIONS = "Hypo3D's converted questions"
    HYPO3D_ANSWERS = "Hypo3D's converted annotations"
    HYPO3D_ORIENTATIONS = "Hypo3D's table of orientations"
    MSNN = "MSNN as released"
    MSNN_QUESTIONS = "MSNN's converted questions"
    MSNN_ANSWERS = "MSNN's converted annotations"
    SCANREFER = "ScanRefer's descriptions"
    CAMERAS = "cameras of ScanRefer's annotators"
    NR3D = "Nr3D's table"
    SR3D = "Sr3D's table"
    UTTERANCES = "utterances as JSON lines or a JSON list"
    VOCABULARY = "an answer dictionary"
    CAPTIONS = "captions of scenes"
    MSQA = "MSQA"


@dataclass(frozen=True)
class Opened:
    """A file that was recognised."""

    path: Path
    part: Part
    content: Any
    """Of JSON: what it holds. Of JSON lines and tables: None, their readers open them."""


def open_part(path: Path) -> Opened:
    """Open a file and tell what it is.

    Raises:
        ValueError: it cannot be read, is empty, or is of no known format.
    """
    suffix = path.suffix.lower()
    if suffix == ".xlsx":
        raise ValueError(f"{path}: a spreadsheet; save it as CSV")
    if suffix in TABLE_SUFFIXES:
        return Opened(path, _table(path), None)
    if suffix in LINES_SUFFIXES:
        return Opened(path, _lines(path), None)
    content = load_json(path)
    part = _json(content)
    if part is None:
        raise ValueError(f"{path}: {_described(content)}; no annotation file that is known here")
    return Opened(path, part, content)


def _described(content: Any) -> str:
    if isinstance(content, dict):
        return f"an object with {', '.join(map(str, list(content)[:4]))}" if content else "an empty object"
    if isinstance(content, list):
        keys = next((list(row) for row in content if isinstance(row, dict)), [])
        return f"a list of rows with {', '.join(map(str, keys[:8]))}" if keys else "a list without rows"
    return f"a {type(content).__name__}"


def _table(path: Path) -> Part:
    columns = set(columns_of(path))
    if {"Front", "Back", "Left", "Right"} & columns and "scene_id" in columns:
        return Part.HYPO3D_ORIENTATIONS
    if "utterance" in columns and "scan_id" in columns:
        return Part.SR3D if "reference_type" in columns else Part.NR3D
    raise ValueError(
        f"{path}: a table with {', '.join(sorted(columns))[:120]}; no annotation file known here"
    )


def _lines(path: Path) -> Part:
    keys = _keys(row for _, row in json_lines(path))
    if keys & {"scan_id", "scene_id"} and keys & {"utterance", "description"}:
        return Part.UTTERANCES
    found = ", ".join(sorted(keys)) or "no object"
    raise ValueError(f"{path}: lines with {found[:120]}; expected scan_id and utterance")


def _keys(rows: Iterable[Any]) -> set[str]:
    """The keys of the first rows together: one of them may be a bad row."""
    return {key for row in islice(rows, LOOKED_AT) if isinstance(row, dict) for key in row}


def _json(content: Any) -> Part | None:
    if isinstance(content, list):
        return _list(content)
    if isinstance(content, dict):
        return _object(content)
    return None


def _list(content: list[Any]) -> Part | None:
    if _is_vocabulary(content):
        return Part.VOCABULARY
    keys = _keys(content)
    signs = (
        ({"camera", "scene_id"}, Part.CAMERAS),
        ({"situation", "question", "answers", "scan_id"}, Part.MSQA),
        ({"situation_text"}, Part.MSNN_QUESTIONS),
        ({"scene_id", "question", "question_id"}, Part.SCANQA),
        ({"scene_id", "object_id", "description"}, Part.SCANREFER),
        ({"utterance", "scan_id"}, Part.UTTERANCES),
    )
    return next((part for needed, part in signs if needed <= keys), None)


def _is_vocabulary(content: list[Any]) -> bool:
    """`[{answer: index}, {index: answer}]`."""
    if len(content) != 2 or not all(isinstance(each, dict) and each for each in content):
        return False
    first, second = (next(iter(each.items())) for each in content)
    return isinstance(first[1], int) and isinstance(second[1], str) and second[0].isdigit()


def _object(content: dict[str, Any]) -> Part | None:
    for name, tell in (("questions", _questions), ("annotations", _answers), ("situations", _situations)):
        if isinstance(content.get(name), list):
            return tell(_keys(content[name]))
    values = list(islice(content.values(), LOOKED_AT))
    listed = list(chain.from_iterable(value for value in values if isinstance(value, list)))
    by_item = list(chain.from_iterable(value.values() for value in values if isinstance(value, dict)))
    if {"questions_answers", "context_change"} & _keys(listed):
        return Part.HYPO3D
    if {"situation_text", "action", "interaction"} & _keys(by_item):
        return Part.MSNN
    captions = "response" in _keys(listed) or "captions" in _keys(values)
    return Part.CAPTIONS if captions or any(isinstance(each, str) for each in listed) else None


def _questions(keys: set[str]) -> Part | None:
    if "context_change" in keys:
        return Part.HYPO3D_QUESTIONS
    return Part.SQA3D_QUESTIONS if "situation" in keys else None


def _answers(keys: set[str]) -> Part | None:
    if "situation_id" in keys:
        return Part.SQA3D_POSES
    if "scan_id" in keys:
        return Part.MSNN_ANSWERS
    if {"rotation", "position"} & keys:
        return Part.SQA3D_ANSWERS
    return Part.HYPO3D_ANSWERS if "question_id" in keys else None


def _situations(keys: set[str]) -> Part | None:
    return Part.SQA3D_SITUATIONS if "situation" in keys else None
