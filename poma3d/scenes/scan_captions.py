"""Captions of one recorded scan, from the file `captions.json` in its folder:

    {"scene_captions": [text, ...], "view_captions": {frame: [text, ...]}}

A frame is named by its id, by one of its files (`frame-000012.color.jpg`) or by its number (`12`, `000012`).
A number that may be a place in the list as well as the number in a frame's name names nothing.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from poma3d.scenes.frame import CAPTION_OF_NO_FRAME, Reject
from poma3d.scenes.text_files import read_text

CAPTIONS_FILE = "captions.json"
FORM = '{"scene_captions": [text, ...], "view_captions": {frame: [text, ...]}}'
FILE_ENDING = re.compile(r"(\.(color|colour|rgb|depth|pose))?\.(jpe?g|png|webp|pgm|txt)$", re.IGNORECASE)
LAST_NUMBER = re.compile(r"(\d+)$")
SHOWN_CHARACTERS = 80


@dataclass(frozen=True)
class Captions:
    """Captions of one scan: of the scene, and of frames by their id."""

    scene: list[str] = field(default_factory=list)
    views: dict[str, list[str]] = field(default_factory=dict)
    rejects: list[Reject] = field(default_factory=list)
    """One for each key of `view_captions` that fits no frame."""


def read_captions(scene_id: str, folder: Path, frame_ids: Sequence[str]) -> Captions:
    """Captions of a scan; none when there is no such file.

    Args:
        scene_id: for the rejects.
        folder: of the scan.
        frame_ids: of all its frames in their order, those that were left out included.

    Raises:
        ValueError: the file is there and is something else; it names the file.
    """
    path = folder / CAPTIONS_FILE
    if not path.exists():
        return Captions()
    try:
        content = json.loads(read_text(path))
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(f"{path}: not a captions file ({error}); expected {FORM}") from error
    wrong = _misplaced(content)
    if wrong:
        raise ValueError(f"{path}: {wrong}; expected {FORM}")
    scene, views = content.get("scene_captions", []), content.get("view_captions", {})
    names = _frames_named(list(views), frame_ids, folder)
    found: dict[str, list[str]] = {}
    for key, frame_id in names.items():
        known = found.setdefault(frame_id, [])
        known += [text for text in views[key] if text not in known]
    rejects = [
        Reject(scene_id, key[:SHOWN_CHARACTERS], CAPTION_OF_NO_FRAME, f"{path.name}: {_example(frame_ids)}")
        for key in views
        if key not in names
    ]
    return Captions(scene, found, rejects)


def _misplaced(content: Any) -> str:
    """What in a captions file is not of its form, by its key; empty where all is."""
    if not isinstance(content, dict):
        return f"it holds {_kind(content)}"
    views = content.get("view_captions", {})
    if not isinstance(views, dict):
        return f"view_captions is {_kind(views)}"
    lists = {"scene_captions": content.get("scene_captions", [])}
    lists |= {f"view_captions of {key[:SHOWN_CHARACTERS]}": texts for key, texts in views.items()}
    for key, texts in lists.items():
        if not isinstance(texts, list):
            return f"{key} is {_kind(texts)}"
        if others := [text for text in texts if not isinstance(text, str)]:
            return f"{key} holds {_kind(others[0])}"
    return ""


def _kind(value: Any) -> str:
    """What a value of JSON is, in words."""
    kinds = {dict: "an object", list: "a list", str: "a text", bool: "true or false", type(None): "null"}
    return kinds.get(type(value), "a number")


def _frames_named(keys: Sequence[str], frame_ids: Sequence[str], folder: Path) -> dict[str, str]:
    """Key -> id of the frame that it names, without the keys that name none; ids themselves first."""
    ids = set(frame_ids)
    names = {key: key for key in keys if key in ids}
    numbers: dict[str, int] = {}
    for key in keys:
        stem = _stem(key, folder)
        if key in names or stem is None:
            continue
        if stem in ids:
            names[key] = stem
        elif stem.isdecimal():
            numbers[key] = int(stem)
    return names | _by_number(numbers, frame_ids)


def _stem(key: str, folder: Path) -> str | None:
    """A file's name without its ending; None for a file of another folder."""
    path = PurePosixPath(key.replace("\\", "/"))
    inside = str(path.parent) == "." or path.parent.name == folder.name or (folder / path.parent).is_dir()
    return FILE_ENDING.sub("", path.name) if inside else None


def _by_number(numbers: dict[str, int], frame_ids: Sequence[str]) -> dict[str, str]:
    """Keys that are the number in one frame's name."""
    frames: dict[int, list[str]] = {}
    for frame_id in frame_ids:
        if found := LAST_NUMBER.search(frame_id):
            frames.setdefault(int(found[1]), []).append(frame_id)
    counted_from_0 = list(frames) == list(range(len(frames)))
    if not counted_from_0 and not frames.keys() >= set(numbers.values()):
        return {}  # the keys may count the frames, whose names count otherwise
    return {key: frames[n][0] for key, n in numbers.items() if len(frames.get(n, [])) == 1}


def _example(frame_ids: Sequence[str]) -> str:
    return f"frames are named like {frame_ids[0]}" if frame_ids else "there are no frames"
