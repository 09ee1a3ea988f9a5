"""Scene captions from an annotation file: SceneVerse's `scene_cap.json` and its relatives.

{"scene0000_00": {"captions": ["In this room ...", ...]}, ...}       SceneVerse
{"scene0000_00": ["In this room ...", ...], ...}                    also with one text instead of a list
{"scene0000_00": [{"response": "In this room ..."}, ...], ...}      LEO's alignment files
[{"scene_id": "scene0000_00", "caption": "In this room ..."}, ...]   one entry per caption
"""

from __future__ import annotations

import json
from typing import Any

ID_FIELDS = ("scene_id", "scan_id", "scan")
TEXT_FIELDS = ("captions", "caption", "utterance", "description", "response", "text")


def read_scene_captions(content: bytes) -> dict[str, list[str]]:
    """Scene id -> captions, each once, none empty.

    Raises:
        ValueError: not such a file; says what was found.
    """
    try:
        found: Any = json.loads(content)
    except ValueError as error:
        raise ValueError(f"not JSON ({error})") from None
    if isinstance(found, dict):
        pairs = [(str(scene), value) for scene, value in found.items()]
    elif isinstance(found, list):
        pairs = [(_id_of(entry), entry) for entry in found]
    else:
        raise ValueError(f"expected scene ids with their captions, found a {type(found).__name__}")
    captions: dict[str, list[str]] = {}
    for scene, value in pairs:
        captions.setdefault(scene, []).extend(_texts(value, scene))
    return {scene: list(dict.fromkeys(texts)) for scene, texts in captions.items() if texts}


def captions_of(scene_id: str, annotations: dict[str, list[str]]) -> list[str]:
    """The captions of a scene; a part of a long scan (`SCAN/003`) has those of the scan."""
    return annotations.get(scene_id) or annotations.get(scene_id.split("/")[0], [])


def _id_of(entry: Any) -> str:
    for name in ID_FIELDS if isinstance(entry, dict) else ():
        if name in entry:
            return str(entry[name])
    raise ValueError(f"an entry without {' or '.join(ID_FIELDS)}: {str(entry)[:80]}")


def _texts(value: Any, scene: str) -> list[str]:
    """All captions in a value, stripped."""
    if isinstance(value, str):
        return [value.strip()] if value.strip() else []
    if isinstance(value, list):
        return [text for item in value for text in _texts(item, scene)]
    if isinstance(value, dict):
        for name in TEXT_FIELDS:
            if name in value:
                return _texts(value[name], scene)
        raise ValueError(f"scene {scene} has no {', '.join(TEXT_FIELDS)}; there are {', '.join(value)}")
    raise ValueError(f"scene {scene} has a {type(value).__name__} where its captions should be")
