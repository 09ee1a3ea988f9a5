"""TUM RGB-D, written by the test with its own times, units and poses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from poma3d.sample import SampleShape
from poma3d.scenes.config import TumConfig, ViewConfig
from poma3d.scenes.layouts.tum import TumReader
from poma3d.scenes.views import to_samples
from tests.helpers.scans import box_room, disagreement_mm
from tests.helpers.scenes.layouts import write_tum

NAME = "rgbd_dataset_freiburg3_long_office_household"
AGREE_MM = 10.0
INTRINSICS = [100.0, 110.0, 60.0, 50.0]


def reader(root: Path, **config: Any) -> TumReader:
    return TumReader(TumConfig(str(root), **({"intrinsics": INTRINSICS} | config)))


def test_views_agree(tmp_path: Path) -> None:
    original = box_room(4)
    write_tum(tmp_path / NAME, original)
    assert reader(tmp_path).scene_ids() == [NAME]
    scene = reader(tmp_path).read(NAME)
    assert disagreement_mm(scene) < AGREE_MM
    assert scene.depth_scale == 1 / 5000
    for frame, want in zip(scene.frames, original.frames, strict=True):
        np.testing.assert_allclose(frame.pose, want.pose, atol=1e-5)
        np.testing.assert_array_equal(frame.colour(), want.colour())
    wrong = reader(tmp_path, units_per_metre=1000.0).read(NAME)
    assert disagreement_mm(wrong) > 4 * AGREE_MM, "the check can fail"


@pytest.mark.parametrize(
    ("name", "config", "expected"),
    [
        ("rgbd_dataset_freiburg1_desk", {}, (525, 525, 319.5, 239.5)),
        ("rgbd_dataset_freiburg3_cabinet", {}, (535.4, 539.2, 320.1, 247.6)),
        ("rgbd_dataset_freiburg1_desk", {"camera": "freiburg1"}, (517.3, 516.5, 318.6, 255.3)),
    ],
)
def test_published_cameras_go_by_name(
    name: str, config: dict[str, Any], expected: tuple[float, ...], tmp_path: Path
) -> None:
    """Scaled from 640 x 480 to the depth maps, which are 128 x 96 here."""
    write_tum(tmp_path / name, box_room(2))
    found = reader(tmp_path, intrinsics=None, **config).read(name).frames[0].intrinsics
    np.testing.assert_allclose(found[:2], np.array(expected[:2]) / 5)
    np.testing.assert_allclose(found[2:] + 0.5, (np.array(expected[2:]) + 0.5) / 5)


def test_what_has_no_neighbour_in_time_is_left_out(tmp_path: Path) -> None:
    write_tum(tmp_path / NAME, box_room(6))
    folder = tmp_path / NAME
    poses = (folder / "groundtruth.txt").read_text().splitlines()
    del poses[2]
    poses[3] = " ".join([poses[3].split()[0], *["nan"] * 7])
    (folder / "groundtruth.txt").write_text("\n".join(poses))
    colours = (folder / "rgb.txt").read_text().splitlines()
    del colours[5]
    (folder / "rgb.txt").write_text("\n".join(colours))
    (folder / colours[1].split()[1]).unlink()
    scene = reader(tmp_path).read(NAME)
    samples, rejects = to_samples(scene, SampleShape(6, 24, 24), ViewConfig(candidate_step=1))
    assert [r.reason for r in rejects] == ["no pose", "non-finite pose", "no colour", "unreadable colour"]
    assert "the nearest in groundtruth.txt is 0.029 s away" in rejects[0].value
    assert samples[0].view_valid.sum() == 2


def test_bad_files_and_settings_are_named(tmp_path: Path) -> None:
    write_tum(tmp_path / "mine", box_room(2))
    with pytest.raises(ValueError, match=r"set reader\.tum\.camera to one of freiburg1, freiburg2"):
        reader(tmp_path, intrinsics=None).read("mine")
    with pytest.raises(ValueError, match="camera is kinect, expected one of"):
        reader(tmp_path, camera="kinect")
    with pytest.raises(ValueError, match="both given"):
        reader(tmp_path, camera="freiburg1")
    with pytest.raises(ValueError, match=r"intrinsics are \[1\.0\]"):
        reader(tmp_path, intrinsics=[1.0])
    path = tmp_path / "mine" / "groundtruth.txt"
    whole = path.read_text()
    path.write_text(whole + "1305031103.0 1 2")
    with pytest.raises(ValueError, match=r"groundtruth\.txt, line 4: 3 numbers, expected 8"):
        reader(tmp_path).read("mine")
    path.write_text(whole.replace(".", ","))
    with pytest.raises(ValueError, match=r"groundtruth\.txt, line 2: .* has a decimal comma"):
        reader(tmp_path).read("mine")
    path.write_text(whole)
    (tmp_path / "mine" / "rgb.txt").write_text("1305031102.5\n")
    with pytest.raises(ValueError, match=r"rgb\.txt, line 1: .*expected a time in seconds and a path"):
        reader(tmp_path).read("mine")
    (tmp_path / "mine" / "depth.txt").unlink()
    with pytest.raises(ValueError, match=r"depth\.txt: cannot be read"):
        reader(tmp_path).read("mine")
