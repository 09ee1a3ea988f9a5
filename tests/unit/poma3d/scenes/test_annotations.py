"""Scene captions in the forms in which they are published."""

from __future__ import annotations

import json
from typing import Any

import pytest

from poma3d.scenes.annotations import captions_of, read_scene_captions


@pytest.mark.parametrize(
    "content",
    [
        {"s0": {"captions": ["a", "b", "a", " "]}, "s1": {"captions": ["c"]}},
        {"s0": ["a", "b"], "s1": "c"},
        {"s0": [{"response": "a"}, {"response": " b "}], "s1": [{"response": "c"}]},
        [
            {"scene_id": "s0", "caption": "a"},
            {"scan_id": "s1", "captions": ["c"]},
            {"scan": "s0", "text": "b"},
        ],
    ],
)
def test_all_forms_say_the_same(content: Any) -> None:
    assert read_scene_captions(json.dumps(content).encode()) == {"s0": ["a", "b"], "s1": ["c"]}


def test_parts_of_a_scan_have_its_captions() -> None:
    known = {"s0": ["a"], "s0/001": ["b"]}
    assert captions_of("s0/000", known) == ["a"]
    assert captions_of("s0/001", known) == ["b"]
    assert captions_of("s1", known) == []


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("{", "not JSON"),
        ("3", "found a int"),
        ('{"s0": {"views": []}}', "scene s0 has no captions"),
        ('{"s0": 3}', "scene s0 has a int"),
        ('[{"caption": "a"}]', "an entry without scene_id"),
    ],
)
def test_other_files_are_named(content: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        read_scene_captions(content.encode())
