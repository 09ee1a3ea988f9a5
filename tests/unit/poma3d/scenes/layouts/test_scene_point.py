"""ScenePoint files, written to their published layout from a room whose points are known."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from poma3d.sample import SampleShape, encode, to_samples
from poma3d.scenes import views
from poma3d.scenes.config import ScenePointConfig, ViewConfig
from poma3d.scenes.layouts.scene_point import ScenePointReader
from tests.helpers.scans import SCENE_POINT_VIEWS as VIEWS
from tests.helpers.scans import scene_point_maps, write_scene_point

SHAPE = SampleShape(VIEWS, 16, 16, captions=2, scene_captions=1, xyz=True)


def reader(root: Path, **changes: Any) -> ScenePointReader:
    return ScenePointReader(ScenePointConfig(str(root), **changes))


def test_points_come_through_as_they_are(tmp_path: Path) -> None:
    tensors = write_scene_point(tmp_path / "scannet" / "scene0000_00.safetensors")
    assert reader(tmp_path).scene_ids() == ["scene0000_00"]
    scene = reader(tmp_path).read("scene0000_00")
    height, width = tensors["point_map"].shape[1:3]
    shape = SampleShape(VIEWS, height, width, xyz=True)
    [sample], rejects = views.to_samples(scene, shape, ViewConfig())
    assert rejects == []
    np.testing.assert_array_equal(sample.xyz, tensors["point_map"])
    [again] = to_samples(encode([sample], shape))
    np.testing.assert_array_equal(again.xyz, tensors["point_map"])
    np.testing.assert_array_equal(again.depth, tensors["point_map"].any(axis=-1))
    assert again.sample_id == sample.sample_id
    assert len(again.colour) == VIEWS
    assert "depth" not in encode([sample], shape).schema.names
    with pytest.raises(ValueError, match="has points, the data set stores depth and camera"):
        encode([sample], SampleShape(VIEWS, height, width))


def test_views_that_repeat_come_back_marked(tmp_path: Path) -> None:
    points, colours = scene_point_maps()
    points[3], colours[3] = points[0], colours[0]
    write_scene_point(tmp_path / "a.safetensors", point_map=points, color_images=colours)
    [sample], _ = views.to_samples(reader(tmp_path).read("a"), SHAPE, ViewConfig())
    assert sample.view_valid.tolist() == [1, 1, 1, 0]
    assert sample.xyz is not None
    np.testing.assert_array_equal(sample.xyz[3], sample.xyz[0])


def test_what_is_not_a_point_is_none_and_empty_views_are_rejected(tmp_path: Path) -> None:
    points, _ = scene_point_maps()
    points[0] = np.nan
    points[1, :2] = np.inf
    write_scene_point(tmp_path / "a.safetensors", point_map=points, color_images=None)
    [sample], rejects = views.to_samples(reader(tmp_path).read("a"), SHAPE, ViewConfig())
    assert [(r.frame_id, r.reason) for r in rejects] == [("000", "too little valid depth")]
    assert sample.xyz is not None
    assert np.isfinite(sample.xyz).all()
    assert sample.colour == []


@pytest.mark.parametrize("scale", [1.0, 255.0])
def test_pictures_of_floats(tmp_path: Path, scale: float) -> None:
    colours = scene_point_maps()[1]
    write_scene_point(tmp_path / "a.safetensors", color_images=(colours / 255 * scale).astype(np.float32))
    frame = reader(tmp_path).read("a").frames[2]
    np.testing.assert_array_equal(frame.colour(), colours[2])


def test_captions_of_views_and_scenes(tmp_path: Path) -> None:
    write_scene_point(tmp_path / "a.safetensors")
    lines = [{"scan_id": "a", "utterance": [f"view {v}", " "]} for v in range(VIEWS)]
    lines.insert(2, {"scan_id": "b", "utterance": ["another scene"]})
    path, of_scenes = tmp_path / "views.jsonl", tmp_path / "scene_cap.json"
    path.write_text("\n".join(map(json.dumps, lines)))
    of_scenes.write_text(json.dumps({"a": {"captions": ["a room"]}}))
    both = reader(tmp_path, view_captions_file=str(path), scene_captions_file=str(of_scenes))
    assert both.scene_ids() == ["a"]
    scene = both.read("a")
    assert [frame.captions for frame in scene.frames] == [[f"view {v}"] for v in range(VIEWS)]
    assert scene.captions == ["a room"]

    fewer = tmp_path / "fewer.jsonl"
    fewer.write_text(json.dumps(lines[0]))
    with pytest.raises(ValueError, match=r"captions of 1 views, a\.safetensors has 4"):
        reader(tmp_path, view_captions_file=str(fewer)).read("a")
    other = tmp_path / "other.jsonl"
    other.write_text(json.dumps(lines[2]))
    with pytest.raises(ValueError, match="captions of none of the 1 scenes: its ids are such as b"):
        reader(tmp_path, view_captions_file=str(other)).scene_ids()
    for content, words in (('{"scan_id": "a"}', "without 'scan_id' or 'utterance'"), ("{", "Expecting")):
        bad = tmp_path / f"bad{len(content)}.jsonl"
        bad.write_text(content)
        with pytest.raises(ValueError, match=words):
            reader(tmp_path, view_captions_file=str(bad)).scene_ids()
    with pytest.raises(ValueError, match=r"no\.jsonl"):
        reader(tmp_path, view_captions_file=str(tmp_path / "no.jsonl")).scene_ids()


@pytest.mark.parametrize(
    ("tensors", "words"),
    [
        (
            {"point_map": None, "color_images": None, "points": np.zeros((1, 2, 2, 3))},
            "no tensor 'point_map'",
        ),
        (
            {"point_map": np.zeros((2, 3, 4, 4), np.float16)},
            r"is \[2, 3, 4, 4\], expected \[views, h, w, 3\]",
        ),
        ({"color_images": np.zeros((1, 4, 4, 3), np.uint8)}, r"expected \[4, h, w, 3\]"),
    ],
)
def test_files_of_another_layout_are_named(tmp_path: Path, tensors: dict[str, Any], words: str) -> None:
    write_scene_point(tmp_path / "a.safetensors", **tensors)
    with pytest.raises(ValueError, match=words):
        reader(tmp_path).read("a")


def test_damaged_missing_and_doubled_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no scene here"):
        reader(tmp_path).scene_ids()
    write_scene_point(tmp_path / "a.safetensors")
    content = (tmp_path / "a.safetensors").read_bytes()
    (tmp_path / "b.safetensors").write_bytes(content[:5000])
    with pytest.raises(ValueError, match=r"b\.safetensors"):
        reader(tmp_path).read("b")
    write_scene_point(tmp_path / "more" / "a.safetensors")
    with pytest.raises(ValueError, match="have one name"):
        reader(tmp_path).scene_ids()


def test_a_world_of_another_up_is_turned(tmp_path: Path) -> None:
    points = write_scene_point(tmp_path / "a.safetensors")["point_map"]
    turned = reader(tmp_path, up=[0.0, -1.0, 0.0]).read("a").frames[0].points
    assert turned is not None
    x, y, z = np.moveaxis(points[0].astype(np.float32), -1, 0)
    np.testing.assert_allclose(turned.astype(np.float32), np.stack([x, z, -y], -1), atol=4e-3)
