"""captions.json of a scan: by which names its frames are found, and what fits none."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from poma3d.scenes.frame import CAPTION_OF_NO_FRAME
from poma3d.scenes.scan_captions import Captions, read_captions

FRAMES = [f"frame-{n:06d}" for n in range(4)]


def captions(folder: Path, views: dict[str, list[str]], frame_ids: list[str]) -> Captions:
    folder.mkdir(exist_ok=True)
    content = "\ufeff" + json.dumps({"view_captions": views})
    (folder / "captions.json").write_text(content, encoding="utf-8")
    return read_captions("scan", folder, frame_ids)


@pytest.mark.parametrize(
    "key",
    [
        "frame-000002", "frame-000002.color.jpg", "frame-000002.depth.png", "FRAME/frame-000002.JPG",
        "color/frame-000002.png", "scan/frame-000002", "2", "000002", "000002.jpg",
    ],
)  # fmt: skip
def test_a_frame_by_each_of_its_names(key: str, tmp_path: Path) -> None:
    (tmp_path / "scan" / "color").mkdir(parents=True)
    (tmp_path / "scan" / "FRAME").mkdir()
    read = captions(tmp_path / "scan", {key: ["a wall"]}, FRAMES)
    assert read.views == {"frame-000002": ["a wall"]}
    assert not read.rejects


@pytest.mark.parametrize("key", ["frame-000009", "9", "2.5", "seq-02/frame-000002", "", "frame-2x"])
def test_what_fits_no_frame_is_named(key: str, tmp_path: Path) -> None:
    read = captions(tmp_path / "scan", {key: ["a wall"], "1": ["a door"]}, FRAMES)
    assert read.views == {"frame-000001": ["a door"]}
    [reject] = read.rejects
    assert (reject.scene_id, reject.frame_id, reject.reason) == ("scan", key, CAPTION_OF_NO_FRAME)
    assert "frame-000000" in reject.value


def test_two_names_of_one_frame_join_their_captions(tmp_path: Path) -> None:
    said = {"000001.jpg": ["b", "c"], "1": ["b"], "frame-000001": ["a", "b"]}
    assert captions(tmp_path, said, FRAMES).views == {"frame-000001": ["a", "b", "c"]}


def test_numbers_that_may_be_places_name_nothing(tmp_path: Path) -> None:
    every_20th = ["frame-000000", "frame-000020", "frame-000040"]
    said = {"0": ["a"], "20": ["b"], "40": ["c"]}
    assert list(captions(tmp_path, said, every_20th).views) == every_20th
    places = captions(tmp_path, {"0": ["a"], "1": ["b"], "2": ["c"]}, every_20th)
    assert (places.views, len(places.rejects)) == ({}, 3)
    # Where the numbers are the ids themselves, as in ScanNet, there is no doubt.
    own = captions(tmp_path, {"0": ["a"], "1": ["b"]}, ["0", "20", "40"])
    assert (own.views, len(own.rejects)) == ({"0": ["a"]}, 1)


def test_a_number_of_two_frames_names_neither(tmp_path: Path) -> None:
    read = captions(tmp_path, {"1": ["a"], "a-1": ["b"]}, ["a-1", "b-1"])
    assert (read.views, len(read.rejects)) == ({"a-1": ["b"]}, 1)


def test_nested_too_deep_is_no_captions_file(tmp_path: Path) -> None:
    (tmp_path / "captions.json").write_text("[" * 200_000)
    with pytest.raises(ValueError, match=r"captions\.json: not a captions file"):
        read_captions("scan", tmp_path, FRAMES)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ([1], "it holds a list"),
        (None, "it holds null"),
        ({"scene_captions": "a kitchen"}, "scene_captions is a text"),
        ({"scene_captions": [True]}, "scene_captions holds true or false"),
        ({"view_captions": ["a wall"]}, "view_captions is a list"),
        ({"view_captions": {"2": "a wall"}}, "view_captions of 2 is a text"),
        ({"view_captions": {"1": ["a wall"], "2": ["a wall", 3]}}, "view_captions of 2 holds a number"),
    ],
)
def test_what_is_not_of_the_form_is_named_by_its_key(content: object, words: str, tmp_path: Path) -> None:
    (tmp_path / "captions.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match=rf"captions\.json: {words}; expected .\"scene_captions\""):
        read_captions("scan", tmp_path, FRAMES)
