"""Pictures of a colour camera of its own show what the depth map shows, and no picture is stretched."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from poma3d.geometry import scale_intrinsics
from poma3d.picture_files import ORIENTATION
from poma3d.sample import Sample, SampleShape
from poma3d.scenes.colour import colour_camera_of, picture_on_grid
from poma3d.scenes.config import SevenScenesConfig, ThreeRScanConfig, ViewConfig
from poma3d.scenes.frame import ColourCamera, Frame, SceneFrames
from poma3d.scenes.layouts.seven_scenes import UNTOLD_COLOUR, SevenScenesReader
from poma3d.scenes.layouts.three_rscan import ThreeRScanReader
from poma3d.scenes.orientation import turned
from poma3d.scenes.views import to_samples
from poma3d.synthetic.config import RoomsConfig
from poma3d.synthetic.layout import furnish
from poma3d.synthetic.raycast import Camera, Stage
from poma3d.synthetic.rooms import place_cameras
from poma3d.synthetic.shading import shade
from tests.helpers.recordings import stored, write_three_rscan
from tests.helpers.scans import camera_matrix, full_pose, room, write_matrix
from tests.helpers.scenes.matching import match

DEPTH_HW, GRID = (240, 320), 224
DEPTH_CAMERA = np.array([292.5, 292.5, 160.0, 120.0])
COLOUR_CAMERA = np.array([262.5, 262.5, 155.0, 117.0])
"""Of another focal length, its principal point moved."""
OFFSET_M = [0.025, 0.004, 0.0]
VIEWS = 6


@pytest.fixture(scope="module")
def scene() -> SceneFrames:
    """Furnished room, pictures by a camera beside the depth camera."""
    rng = np.random.default_rng(5)
    furnished = furnish(rng)
    stage = Stage(furnished.size, furnished.solids)
    camera = ColourCamera(COLOUR_CAMERA, DEPTH_HW, np.column_stack([np.eye(3), -np.array(OFFSET_M)]))
    frames = []
    for i, placed in enumerate(place_cameras(furnished, RoomsConfig(views=VIEWS), rng)):
        hits = stage.cast(Camera(DEPTH_CAMERA, placed.pose, *DEPTH_HW))
        eye = placed.pose[:, 3] + placed.pose[:, :3] @ OFFSET_M
        beside = Camera(COLOUR_CAMERA, np.column_stack([placed.pose[:, :3], eye]), *DEPTH_HW)
        picture = shade(stage, beside, stage.cast(beside), furnished.look)
        depth = np.rint(hits.depth * 1000).astype(np.uint16)
        frames.append(Frame(f"{i}", depth, DEPTH_CAMERA, placed.pose, picture, colour_camera=camera))
    return SceneFrames("room", "rooms", frames)


def stored_match(sample: Sample) -> tuple[float, float, float]:
    pictures = [np.asarray(Image.open(io.BytesIO(jpeg))) for jpeg in sample.colour]
    return match([depth * sample.depth_scale for depth in sample.depth], pictures)


def sample_of(scene: SceneFrames) -> Sample:
    shape = SampleShape(views=VIEWS, height=GRID, width=GRID)
    [sample], rejects = to_samples(scene, shape, ViewConfig(candidate_step=1))
    assert not rejects
    return sample


def test_edges_of_picture_and_depth_lie_on_each_other(scene: SceneFrames) -> None:
    scale, right, down = stored_match(sample_of(scene))
    assert abs(scale - 1) <= 0.011
    assert max(abs(right), abs(down)) < 1
    as_stored = replace(scene, frames=[replace(f, colour_camera=None) for f in scene.frames])
    scale, right, _ = stored_match(sample_of(as_stored))
    assert scale == pytest.approx(0.9, abs=0.015), "without its camera the picture shows more"
    assert abs(right) > 1


@pytest.mark.parametrize("turns", [1, 2, 3])
def test_a_turned_frame_turns_its_picture(scene: SceneFrames, turns: int) -> None:
    frame = scene.frames[0]
    grid = replace(frame, intrinsics=frame.intrinsics)
    want = picture_on_grid(grid, DEPTH_HW, 0.001)
    found = picture_on_grid(turned(grid, turns), DEPTH_HW if turns == 2 else DEPTH_HW[::-1], 0.001)
    assert want is not None
    assert found is not None
    assert np.abs(np.rot90(want, turns).astype(int) - found).mean() < 1


def test_holes_in_depth_take_the_depth_beside_them(scene: SceneFrames) -> None:
    frame = scene.frames[0]
    holed = frame.depth.copy()
    holed[::7, ::5] = 0
    whole, found = (picture_on_grid(f, DEPTH_HW, 0.001) for f in (frame, replace(frame, depth=holed)))
    assert np.abs(whole.astype(int) - found).mean() < 0.5
    assert picture_on_grid(replace(frame, depth=0 * holed), DEPTH_HW, 0.001) is not None


def test_depth_is_cut_to_what_the_picture_covers(scene: SceneFrames) -> None:
    """A telephoto colour camera: the sample shows the middle, and the points stay where they are."""
    narrow = ColourCamera(np.array([400.0, 400.0, 160.0, 120.0]), DEPTH_HW)
    frames = [replace(f, colour_camera=narrow) for f in scene.frames]
    shape = SampleShape(views=VIEWS, height=GRID, width=GRID)
    [sample], _ = to_samples(replace(scene, frames=frames), shape, ViewConfig(candidate_step=1))
    width_deg = np.rad2deg(2 * np.arctan(GRID / 2 / sample.intrinsics[0, 0]))
    assert width_deg == pytest.approx(np.rad2deg(2 * np.arctan(160 / 400)), abs=0.5)
    elsewhere = ColourCamera(np.array([900.0, 900.0, 160.0, 120.0]), DEPTH_HW)
    frames = [replace(f, colour_camera=elsewhere) for f in scene.frames]
    samples, rejects = to_samples(replace(scene, frames=frames), shape, ViewConfig(candidate_step=1))
    assert not samples
    assert {r.reason for r in rejects} == {"colour camera sees another view"}


def test_a_picture_of_another_shape_is_refused() -> None:
    scene = room(2, views=3)
    frames = [replace(f, picture=np.zeros((40, 60, 3), np.uint8)) for f in scene.frames]
    shape = SampleShape(views=3, height=24, width=24)
    samples, rejects = to_samples(replace(scene, frames=frames), shape, ViewConfig(candidate_step=1))
    assert not samples
    assert {r.reason for r in rejects} == {"picture of another shape"}
    assert "60 x 40, its depth map is 40 x 40" in rejects[0].value
    wide = ColourCamera(np.array([40.0, 40, 30, 20]), (40, 80))
    frames = [replace(f, colour_camera=wide) for f in frames]
    _, rejects = to_samples(replace(scene, frames=frames), shape, ViewConfig(candidate_step=1))
    assert {r.reason for r in rejects} == {"picture of another shape"}


def test_depth_pixels_that_are_not_square_show_a_wide_picture() -> None:
    """3RScan: depth of 224 x 172 beside pictures of 960 x 540, one view."""
    depth = np.full((172, 224), 2000, np.uint16)
    camera = np.array([176.594, 240.808, 114.613, 85.7915])
    frame = Frame("0", depth, camera, np.eye(4)[:3], np.zeros((540, 960, 3), np.uint8))
    assert picture_on_grid(frame, (172, 224), 0.001).shape == (540, 960, 3)
    colour = ColourCamera(np.array([756.832, 756.026, 492.889, 270.419]), (540, 960))
    assert colour_camera_of(camera, (172, 224), colour) is None
    assert colour_camera_of(camera * [1.1, 1.1, 1, 1], (172, 224), colour) is colour


def test_info_names_a_colour_camera_of_its_own(tmp_path: Path) -> None:
    """3RScan's release has one view for both; sets converted to its layout need not."""
    write_three_rscan(tmp_path, "scan", room(5, views=1), sideways=0)
    info = tmp_path / "scan" / "sequence" / "_info.txt"
    lines = [line for line in info.read_text().splitlines() if "Color" not in line]
    camera = room(5, views=1).frames[0].intrinsics

    def colour_camera(intrinsics: np.ndarray) -> ColourCamera | None:
        numbers = " ".join(f"{x:.6f}" for x in camera_matrix(intrinsics, 4).reshape(-1))
        stated = ["m_colorWidth = 120", "m_colorHeight = 120", f"m_calibrationColorIntrinsic = {numbers}"]
        info.write_text("\n".join([*lines, *stated]))
        reader = ThreeRScanReader(ThreeRScanConfig(str(tmp_path), upright=False))
        return reader.read("scan").frames[0].colour_camera

    same = scale_intrinsics(camera, (40, 40), (120, 120))
    assert colour_camera(same) is None
    other = colour_camera(same * [0.8, 0.8, 1, 1])
    assert other is not None
    assert other.size == (120, 120)


class TestSevenScenes:
    """The layout with a colour camera that is not the depth's."""

    def write(self, folder: Path, scene: SceneFrames) -> None:
        """At the size of the release."""
        folder.mkdir()
        for i, frame in enumerate(scene.frames):
            stem = folder / f"frame-{i:06d}"
            depth = np.repeat(np.repeat(frame.depth, 2, axis=0), 2, axis=1)
            Image.fromarray(depth).save(f"{stem}.depth.png", compress_level=1)
            colour = Image.fromarray(frame.picture).resize((640, 480), Image.Resampling.BICUBIC)
            colour.save(f"{stem}.color.png", compress_level=1)
            write_matrix(Path(f"{stem}.pose.txt"), full_pose(frame.pose, np.eye(3)))
        camera = scale_intrinsics(DEPTH_CAMERA, DEPTH_HW, (480, 640))
        write_matrix(folder / "camera-intrinsics.txt", camera_matrix(np.array([585, 585, *camera[2:]]), 3))

    def test_the_colour_camera_of_the_config(self, scene: SceneFrames, tmp_path: Path) -> None:
        self.write(tmp_path / "seq-01", scene)
        camera = scale_intrinsics(COLOUR_CAMERA, DEPTH_HW, (480, 640)).tolist()
        config = SevenScenesConfig(
            str(tmp_path), up=[0, 0, 1], colour_camera=camera, colour_offset_m=OFFSET_M
        )
        read = SevenScenesReader(config).read("seq-01")
        scale, right, down = stored_match(sample_of(read))
        assert abs(scale - 1) <= 0.011
        assert max(abs(right), abs(down)) < 1
        assert not read.warnings

    def test_the_release_is_known_and_nothing_is_assumed_in_silence(
        self, scene: SceneFrames, tmp_path: Path
    ) -> None:
        self.write(tmp_path / "seq-01", replace(scene, frames=scene.frames[:1]))

        def read(**config) -> SceneFrames:
            return SevenScenesReader(SevenScenesConfig(str(tmp_path), up=[0, 0, 1], **config)).read("seq-01")

        camera = read(camera="7-scenes").frames[0].colour_camera
        assert camera.intrinsics.tolist() == [525, 525, 320, 240]
        assert camera.from_depth[:, 3].tolist() == [-0.025, 0, 0]
        assert read(registered=True).frames[0].colour_camera is None
        assert not read(registered=True).warnings
        other = read(intrinsics=[525, 525, 319.5, 239.5])
        assert other.frames[0].colour_camera is None
        assert other.warnings == [UNTOLD_COLOUR]
        for wrong in (
            {"registered": True, "colour_camera": [525, 525, 320, 240]},
            {"colour_camera": [525, 525]},
            {"colour_offset_m": [0.025]},
        ):
            with pytest.raises(ValueError, match="colour"):
                read(**wrong)


def test_exif_does_not_turn_a_recorded_picture_away_from_its_depth() -> None:
    picture = np.zeros((24, 32, 3), np.uint8)
    picture[:12] = 255
    exif = Image.Exif()
    exif[ORIENTATION] = 3  # upside down
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "PNG", exif=exif)
    frame = replace(room(2, views=1).frames[0], picture=buffer.getvalue())
    np.testing.assert_array_equal(frame.colour(), picture)


def test_stored_on_its_side_and_turned_back(scene: SceneFrames) -> None:
    """The colour camera is that of the picture as it is stored."""
    frame = scene.frames[1]
    lying = stored(replace(frame, colour_camera=None), 1)
    fx, fy, cx, cy = COLOUR_CAMERA
    x, y, z = OFFSET_M
    camera = ColourCamera(
        np.array([fy, fx, DEPTH_HW[0] - 1 - cy, cx]),
        DEPTH_HW[::-1],
        np.column_stack([np.eye(3), -np.array([-y, x, z])]),
    )
    found = turned(
        Frame("0", lying.depth, lying.intrinsics, lying.pose, lying.colour, colour_camera=camera), 1
    )
    want = picture_on_grid(frame, DEPTH_HW, 0.001)
    got = picture_on_grid(found, DEPTH_HW, 0.001)
    assert np.abs(want.astype(int) - got).mean() < 1
