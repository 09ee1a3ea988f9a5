"""The page of a scene: complete, bounded, escaped, and nothing outside the file."""

from __future__ import annotations

import base64
import html
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from jobs.cli import main
from jobs.view import three
from jobs.view.config import PageConfig
from jobs.view.page import RankedBy, Ranking, page_of, write_page
from jobs.view.scene import ViewOf, shown_scene, spread, views_of
from plinth.errors import ConfigError, DataError
from poma3d.sample import Sample
from tests.helpers.view.scenes import SCRIPT, SIDE, sample

CONFIG = PageConfig(points=2000)


def page(samples: list[Sample], rankings: list[Ranking] | None = None, config: PageConfig = CONFIG) -> str:
    chosen = spread(views_of(samples), config.views)
    return page_of(shown_scene(SCRIPT, samples, chosen, config), config, rankings or [], note=SCRIPT)


def data_of(text: str) -> dict[str, Any]:
    found = re.search(r'<script id="data" type="application/json">(.*?)</script>', text)
    assert found is not None
    loaded: dict[str, Any] = json.loads(found[1])
    return loaded


def array(data: dict[str, Any], name: str, dtype: str) -> np.ndarray:
    return np.frombuffer(base64.b64decode(data[name]), dtype)


def test_names_and_captions_are_shown_as_text() -> None:
    text = page([sample()], [Ranking(SCRIPT, [0.1, 0.2, 0.3, 0.4])])
    assert SCRIPT not in text
    assert text.count("<script") == 3, "data, library, viewer"
    assert html.escape(SCRIPT) in text
    data = data_of(text)
    assert data["captions"][0] == [f"wall 0 {SCRIPT}", 'a "quoted" caption']
    assert data["rankings"][0]["text"] == SCRIPT


def test_a_page_says_what_its_values_are() -> None:
    samples = [sample()]
    scene = shown_scene(SCRIPT, samples, views_of(samples), CONFIG)
    rankings = [Ranking("which?", [0.1, 0.2, 0.3, 0.4])]
    assert data_of(page(samples, rankings))["rankedBy"] == "cosine"
    text = page_of(scene, CONFIG, rankings, ranked_by=RankedBy("attention", f"Ranked by {SCRIPT}"))
    assert data_of(text)["rankedBy"] == "attention"
    assert f"Ranked by {html.escape(SCRIPT)}" in text
    assert SCRIPT not in text


def test_nothing_is_outside_the_file() -> None:
    text = page([sample()])
    without = text.replace(three.three_js(), "")
    assert not re.findall(r"<link|@import|url\(|https?://", without)
    assert all(source.startswith("data:") for source in re.findall(r'src="([^"]+)"', without))
    policy = re.search(r'http-equiv="Content-Security-Policy" content="([^"]+)"', text)
    assert policy is not None
    assert "default-src 'none'" in html.unescape(policy[1])


def test_points_survive_the_page() -> None:
    config = PageConfig(points=10**6)
    scene = shown_scene("room", [sample()], views_of([sample()]), config)
    data = data_of(page_of(scene, config))
    back = np.array(data["origin"]) + data["step"] * array(data, "xyz", "<u2").reshape(-1, 3).astype(float)
    assert np.abs(back - scene.cloud.points).max() <= data["step"]
    np.testing.assert_array_equal(array(data, "rgb", "u1").reshape(-1, 3), scene.cloud.rgb)
    seen = np.unpackbits(array(data, "seen", "u1").reshape(len(back), -1), axis=1, bitorder="little")
    np.testing.assert_array_equal(seen[:, :4].astype(bool), scene.cloud.seen_by)
    np.testing.assert_allclose(
        array(data, "normals", "i1").reshape(-1, 3) / 127, scene.cloud.normals, atol=0.005
    )


def test_the_size_is_bounded_by_the_config() -> None:
    samples = [sample(f"scan/{i:03d}", views=8) for i in range(8)]
    config = PageConfig(points=500, views=6)
    scene = shown_scene("scan", samples, spread(views_of(samples), 6), config)
    assert len(scene.cloud.points) <= 500
    assert (len(scene.views), scene.of_views) == (6, 64)
    assert scene.views[-1].name == "scan/007, view 7"
    assert "<dd>6 of 64</dd>" in page_of(scene, config)


def test_repeats_are_left_out() -> None:
    assert views_of([sample(view_valid=np.array([1, 0, 1, 0], np.uint8))]) == [ViewOf(0, 0), ViewOf(0, 2)]


def test_without_colour_points_show_their_height() -> None:
    scene = shown_scene("room", [sample(colour=[])], views_of([sample()]), CONFIG)
    assert not scene.coloured
    top, low = (scene.cloud.points[:, 2] > 1.5), (scene.cloud.points[:, 2] < 0.2)
    assert scene.cloud.rgb[top, 1].mean() > scene.cloud.rgb[low, 1].mean() + 50, (
        "viridis is bright at the top"
    )


def test_points_without_cameras_have_a_page() -> None:
    xyz = np.random.default_rng(0).uniform(1, 3, (4, SIDE, SIDE, 3)).astype(np.float16)
    scene = shown_scene(
        "room", [sample(xyz=xyz, depth=np.ones((4, SIDE, SIDE), np.uint16))], views_of([sample()]), CONFIG
    )
    assert [view.pyramid for view in scene.views] == [None] * 4
    assert [view.depth for view in scene.views] == [None] * 4
    assert data_of(page_of(scene, CONFIG))["pyramids"] == [None] * 4


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"view_valid": np.zeros(4, np.uint8)}, "no views"),
        ({"depth": np.zeros((4, SIDE, SIDE), np.uint16)}, "no view has a point"),
    ],
)
def test_a_scene_with_nothing_in_it_is_one_line(changes: dict[str, Any], word: str) -> None:
    bare = sample(**changes)
    with pytest.raises(DataError, match=word):
        shown_scene("room", [bare], views_of([bare]), CONFIG)


def test_a_page_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="--output"):
        write_page("<p>", tmp_path / "file" / "page.html")
    assert write_page("<p>é", tmp_path / "new" / "page.html").read_text(encoding="utf-8") == "<p>é"
    assert [p.name for p in (tmp_path / "new").iterdir()] == ["page.html"]


def test_another_trimesh_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(three, "END", "nowhere")
    three.three_js.cache_clear()
    with pytest.raises(ConfigError, match=r"trimesh~=5\.2"):
        three.three_js()
    monkeypatch.undo()
    three.three_js.cache_clear()
    assert three.three_js().startswith(three.LICENCE), "with its licence"


def test_poma_view(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = folder / "out" / "scene.html"
    assert (
        main(["view", str(folder / "rooms"), "room-0-0000003", "--output", str(output), "--points", "900"])
        == 0
    )
    assert "room-0-0000003" in output.read_text(encoding="utf-8")
    assert "2 of 2 views" in capsys.readouterr().out


def test_an_unknown_scene_names_those_that_are_spelt_alike(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = folder / "scene.html"
    assert main(["view", str(folder / "rooms"), "room-0-00000033", "--output", str(output)]) == 2
    said = capsys.readouterr().err
    assert "no scene 'room-0-00000033'" in said
    assert "room-0-0000003" in said.split("such as")[1]
    assert not output.exists()


def test_single_images_are_named_one_by_one(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Each is in the frame of its own camera: merged they would be no room."""
    assert main(["view", str(folder / "images"), "room-0-0000003", "--output", str(folder / "x.html")]) == 2
    said = capsys.readouterr().err
    assert "single images" in said
    part = said.split("such as ")[1].strip().rstrip(".")
    assert main(["view", str(folder / "images"), part, "--output", str(folder / "x.html")]) == 0


def test_counts_below_one_name_the_flag(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["view", str(folder / "rooms"), "room-0-0000003", "--points", "0"]) == 2
    assert "--points is 0" in capsys.readouterr().err
