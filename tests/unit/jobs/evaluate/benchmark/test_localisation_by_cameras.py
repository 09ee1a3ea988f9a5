"""Localisation from ScanRefer's cameras: brought to our world, the nearest view is right."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from jobs.evaluate.benchmark.places import DEGREES, METRES, localisation
from jobs.evaluate.benchmark.result import BenchmarkResult
from jobs.evaluate.measure import MODEL
from plinth.errors import DataError
from poma3d.evaluate.bootstrap import Estimate
from poma3d.evaluate.config import BootstrapConfig
from poma3d.evaluate.zero_shot.config import LocalisationConfig
from tests.helpers.view.benchmarks import encode, features, scenes
from tests.helpers.view.scenes import sample

ALIGNMENT = np.array([[0, -1, 0, 2.0], [1, 0, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
"""Raw -> world: a quarter turn and a shift."""


def raw(point: list[float]) -> list[float]:
    """A place of our world in the raw frame of the scan."""
    found: list[float] = (np.linalg.inv(ALIGNMENT) @ [*point, 1.0])[:3].tolist()
    return found


def files(path: Path, rows: list[tuple[str, list[float], list[float], str]]) -> list[str]:
    """Cameras of rows (scene, position, lookat, text) in our world, written in the raw frame, and texts."""
    cameras, texts = [], []
    for i, (scene, position, lookat, text) in enumerate(rows):
        key = {"scene_id": scene, "object_id": str(i), "object_name": "chair", "ann_id": "0"}
        camera = {"position": raw(position), "rotation": None, "lookat": raw(lookat)}
        del camera["rotation"]
        cameras.append({**key, "id": f"{scene}-{i}_0", "camera": camera})
        texts.append({**key, "description": text, "token": text.split()})
    (path / "cameras.json").write_text(json.dumps(cameras))
    (path / "texts.json").write_text(json.dumps(texts))
    return [str(path / "cameras.json"), str(path / "texts.json")]


def scans(path: Path, *names: str, aligned: bool = True) -> str:
    for name in names:
        numbers = " ".join(str(v) for v in ALIGNMENT.ravel()) if aligned else ""
        (path / f"{name}.txt").write_text(
            f"axisAlignment = {numbers}\n" if aligned else "colorHeight = 968\n"
        )
    return str(path)


def ask(config: LocalisationConfig, at: list[list[int]]) -> BenchmarkResult:
    made = scenes("scene0001_00", "scene0002_00")
    (result,) = localisation(config, "benchmark.localisation[0]", made, features(made, at), encode)
    return result


def value(result: BenchmarkResult, column: str) -> float:
    found = result.figures[MODEL][column]
    return found.value if isinstance(found, Estimate) else found


def config(path: Path, rows: list[Any], **changes: Any) -> LocalisationConfig:
    values: dict[str, Any] = {
        "files": files(path, rows), "scans": scans(path, "scene0001_00", "scene0002_00"), "best": [1, 2],
        "bootstrap": BootstrapConfig(draws=20),
    }  # fmt: skip
    return LocalisationConfig(**values | changes)


ROWS = [
    ("scene0001_00", [0.0, 0.5, 1.2], [0.0, 3.0, 1.2], "text 0"),  # ahead along +y: view 0, half a metre on
    ("scene0002_00", [0.0, 0.0, 1.2], [-3.0, 0.0, 1.2], "text 3"),  # along -x: view 1
]


def test_the_view_nearest_to_the_true_camera_is_right(tmp_path: Path) -> None:
    result = ask(config(tmp_path, ROWS), [[0, 1, 2, 4]] * 2)
    assert result.counts["rows placed"] == 2
    assert value(result, "R@1") == 0.5, (
        "the second text finds no view: all its views tie, so the right one is last"
    )
    assert result.references["nearest view"][METRES] == pytest.approx(0.25)
    assert result.references["nearest view"][DEGREES] == pytest.approx(0.0, abs=1e-4)
    assert result.references["chance"]["R@1"] == pytest.approx(0.25)
    assert result.references["chance"][DEGREES] == pytest.approx(90.0)


def test_distance_and_angle_are_those_of_the_best_view(tmp_path: Path) -> None:
    result = ask(config(tmp_path, ROWS[:1]), [[1, 0, 2, 3]] * 2)
    assert value(result, METRES) == pytest.approx(0.5)
    assert value(result, DEGREES) == pytest.approx(90.0)
    tied = ask(config(tmp_path, ROWS[:1]), [[0, 1, 0, 0]] * 2)
    assert value(tied, DEGREES) == pytest.approx(180.0), "of views that tie the farthest counts"


def test_without_their_alignment_cameras_are_left_out_and_counted(tmp_path: Path) -> None:
    rows = [
        *ROWS,
        ("scene0002_00", [0.0, 0.0, 1.2], [3.0, 0.0, 1.2], "text 3"),
        ("scene0009_00", [0.0] * 3, [1.0] * 3, "text 1"),
    ]
    asked = config(tmp_path, rows)
    (tmp_path / "scene0002_00.txt").unlink()
    result = ask(asked, [[0, 1, 2, 3]] * 2)
    assert result.counts["rows placed"] == 1
    assert result.counts["of scenes that are missing"] == 1
    assert [n for why, n in result.counts.items() if why.startswith("left out: the scan is not known")] == [2]
    with pytest.raises(DataError, match="can be placed"):
        ask(config(tmp_path, ROWS, scans=None), [[0, 1, 2, 3]] * 2)


def test_scans_without_alignment_keep_their_frame_and_are_counted(tmp_path: Path) -> None:
    asked = config(tmp_path, ROWS[:1])
    scans(tmp_path, "scene0001_00", aligned=False)
    result = ask(asked, [[0, 1, 2, 3]] * 2)
    assert result.counts["scans without axisAlignment"] == 1
    assert result.references["nearest view"][DEGREES] == pytest.approx(0.0, abs=1e-4)
    assert result.references["nearest view"][METRES] > 1.5, "the raw camera stands elsewhere"


def test_points_without_cameras_cannot_be_used(tmp_path: Path) -> None:
    xyz = np.ones((4, 40, 40, 3), np.float16)
    made = [sample("scene0001_00", xyz=xyz)]
    with pytest.raises(DataError, match="no cameras"):
        localisation(config(tmp_path, ROWS), "k", made, features(made, [[0] * 4]), encode)


def test_single_images_are_in_frames_of_their_own(tmp_path: Path) -> None:
    made = scenes("scene0001_00/000", "scene0002_00")
    found = features(made, [[0, 1, 2, 3]] * 2)
    (result,) = localisation(config(tmp_path, ROWS), "k", made, found, encode)
    assert result.counts["rows placed"] == 1
    assert result.counts["of scans that are kept as single images, each in the frame of its camera"] == 1


def test_a_folder_that_is_none_names_its_key(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"benchmark\.localisation\[0\]\.scans"):
        ask(config(tmp_path, ROWS, scans=str(tmp_path / "nowhere")), [[0, 1, 2, 3]] * 2)
