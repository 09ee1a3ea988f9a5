"""Depth Pro as a tiny random model of the real class; VGGT's interface imitated; memory that runs out."""

from __future__ import annotations

import math
import shutil
import sys
import types
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import DepthProForDepthEstimation

from poma3d.lift import depth_pro, vggt
from poma3d.lift.given import GivenLifter
from poma3d.lift.lifter import BadImage, HalvingLifter, InputImage, Lifted
from poma3d.pretrained.folder import weights_revision
from tests.helpers.lift.tiny_lifter import save_depth_pro


def depth_pro_pixels(rgb: np.ndarray, side: int) -> torch.Tensor:
    """[1, 3, side, side] as published: normalised to -1 .. 1 first, then resized."""
    image = torch.from_numpy(rgb).permute(2, 0, 1).float() / 127.5 - 1
    return torch.nn.functional.interpolate(image[None], size=(side, side), mode="bilinear")


def picture(height: int, width: int, seed: int = 0) -> InputImage:
    rgb = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    return InputImage(f"{seed}-{height}x{width}", rgb, ["noise"])


@pytest.fixture(scope="module")
def depth_pro_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("depth_pro")
    save_depth_pro(folder)
    return folder


def test_depth_pro_gives_metric_depth_and_the_focal_length(depth_pro_folder: Path) -> None:
    lifter = depth_pro.load(str(depth_pro_folder), None)
    assert lifter.revision == weights_revision(str(depth_pro_folder), lifter.revision)
    wide, square = picture(60, 90), picture(64, 64, 1)
    first, second = lifter.lift([wide, square])
    model = DepthProForDepthEstimation.from_pretrained(depth_pro_folder).eval()
    side = round(model.config.patch_size / min(model.config.scaled_images_ratios))
    for found, image in ((first, wide), (second, square)):
        assert isinstance(found, Lifted)
        assert found.metric
        with torch.inference_mode():
            raw = model(pixel_values=depth_pro_pixels(image.rgb, side))
        fov = math.radians(float(raw.field_of_view))
        rows, columns = found.depth.shape
        # The camera sees the same angle on every grid, and pixels of the image are square.
        assert 2 * math.atan(columns / 2 / found.intrinsics[0]) == pytest.approx(fov, rel=1e-4)
        height, width = image.rgb.shape[:2]
        assert found.intrinsics[1] / rows * height == pytest.approx(found.intrinsics[0] / columns * width)
        np.testing.assert_allclose(found.intrinsics[2:], [(columns - 1) / 2, (rows - 1) / 2])
        # The published way: inverse depth times width over focal length, in pixels of the image.
        focal = 0.5 * width / math.tan(0.5 * fov)
        want = (raw.predicted_depth[0] * width / focal).clamp(1e-4, 1e4)
        np.testing.assert_allclose(1 / found.depth, want, rtol=1e-2, atol=1e-3)


def test_depth_pro_without_a_field_of_view_is_refused(depth_pro_folder: Path) -> None:
    model = DepthProForDepthEstimation.from_pretrained(depth_pro_folder, use_fov_model=False)
    with pytest.raises(ValueError, match="no field-of-view head"):
        depth_pro.DepthProLifter(model, "x", [0.5] * 3, [0.5] * 3)


def test_weights_are_named_and_pinned(depth_pro_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"the job expects lifter\.revision 0123"):
        depth_pro.load(str(depth_pro_folder), "0123")
    with pytest.raises(ValueError, match=r"pin a hub id by its commit in lifter\.revision"):
        weights_revision("apple/DepthPro-hf", None)
    assert weights_revision("apple/DepthPro-hf", "abc") == "abc"
    with pytest.raises(ValueError, match=r"has no config\.json"):
        weights_revision(str(tmp_path), None)
    with pytest.raises(ValueError, match=r"lifter\.source is empty"):
        weights_revision("", None)


class ImitationVggt(torch.nn.Module):
    """The parts of VGGT's documented interface that are used: depth is the red channel plus one."""

    def __init__(self, width: int = 1) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(width))
        self.seen: list[tuple[int, ...]] = []

    def aggregator(self, images: torch.Tensor) -> tuple[list[torch.Tensor], int]:
        self.seen.append(tuple(images.shape))
        return [images.mean((-1, -2))], 5

    def camera_head(self, tokens: list[torch.Tensor]) -> list[torch.Tensor]:
        batch, frames = tokens[-1].shape[:2]
        return [torch.zeros(batch, frames, 9), torch.full((batch, frames, 9), 0.9)]

    def depth_head(
        self, tokens: list[torch.Tensor], images: torch.Tensor, first_patch: int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        assert first_patch == 5
        return images[:, :, :1].permute(0, 1, 3, 4, 2) + 1, images[:, :, 1] + 1


def imitation_decode(encoding: torch.Tensor, size: tuple[int, int]) -> tuple[None, torch.Tensor]:
    """Intrinsics [B, S, 3, 3] from the fields of view in the encoding; the middle is the principal point."""
    height, width = size
    camera = torch.zeros(*encoding.shape[:2], 3, 3)
    camera[..., 0, 0] = width / 2 / torch.tan(encoding[..., 8] / 2)
    camera[..., 1, 1] = height / 2 / torch.tan(encoding[..., 7] / 2)
    camera[..., 0, 2], camera[..., 1, 2], camera[..., 2, 2] = width / 2, height / 2, 1
    return None, camera


def test_vggt_runs_images_of_one_grid_together_and_answers_in_order() -> None:
    model = ImitationVggt()
    lifter = vggt.VggtLifter(model, imitation_decode, "x", side=56)
    pictures = [picture(40, 80, 0), picture(80, 40, 1), picture(40, 80, 2)]
    answers = lifter.lift(pictures)
    assert model.seen == [(2, 1, 3, 28, 56), (1, 1, 3, 56, 56)], "portrait stands in a square"
    for image, lifted in zip(pictures, answers, strict=True):
        assert isinstance(lifted, Lifted)
        assert not lifted.metric
        rows, columns = lifted.depth.shape
        assert (rows > columns) == (image.rgb.shape[0] > image.rgb.shape[1])
        assert lifted.depth.mean() == pytest.approx(1 + image.rgb[..., 0].mean() / 255, abs=0.02)
        assert lifted.confidence is not None
        assert lifted.confidence.shape == (rows, columns)
        np.testing.assert_allclose(lifted.intrinsics[2:], [(columns - 1) / 2, (rows - 1) / 2])
        # The field of view is that of what the model was shown, the square.
        assert 2 * math.atan(56 / 2 / lifted.intrinsics[0]) == pytest.approx(0.9, abs=1e-4)


def test_vggt_sees_a_picture_in_portrait_between_white_margins() -> None:
    """As the authors' `load_and_preprocess_images(mode="pad")`: in the middle, margins of 1.0."""
    shown: list[torch.Tensor] = []

    class Keeping(ImitationVggt):
        def aggregator(self, images: torch.Tensor) -> tuple[list[torch.Tensor], int]:
            shown.append(images)
            return super().aggregator(images)

    image = picture(80, 40, 1)
    [lifted] = vggt.VggtLifter(Keeping(), imitation_decode, "x", side=56).lift([image])
    assert isinstance(lifted, Lifted)
    [[pixels]] = shown[0]
    assert (pixels[..., :14] == 1).all()
    assert (pixels[..., -14:] == 1).all()
    assert pixels[..., 14:-14].max() < 1
    np.testing.assert_array_equal(lifted.depth, pixels[0, :, 14:-14] + 1)
    assert lifted.intrinsics[2] == 13.5


def test_vggt_grids_are_whole_patches() -> None:
    assert vggt.model_grid(480, 640) == (392, 518)
    assert vggt.model_grid(640, 480) == (518, 392)
    assert vggt.model_grid(100, 4000) == (14, 518)


@pytest.fixture
def vggt_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A saved model of the imitated package, which is installed."""
    names = ("vggt", "vggt.models", "vggt.models.vggt", "vggt.utils", "vggt.utils.pose_enc")
    modules = {name: types.ModuleType(name) for name in names}
    modules["vggt.models.vggt"].VGGT = ImitationVggt
    modules["vggt.utils.pose_enc"].pose_encoding_to_extri_intri = imitation_decode
    for name, module in modules.items():
        monkeypatch.setitem(sys.modules, name, module)
    (tmp_path / "config.json").write_text('{"width": 2, "unknown_to_the_class": 1}')
    save_file({"weight": torch.tensor([1.0, 2.0])}, tmp_path / "model.safetensors")
    return tmp_path


def test_vggt_is_loaded_from_its_package_and_missed_in_one_line(
    vggt_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lifter = vggt.load(str(vggt_folder), None)
    assert lifter.revision == weights_revision(str(vggt_folder), None)
    assert isinstance(lifter.lift([picture(64, 64)])[0], Lifted)
    monkeypatch.setitem(sys.modules, "vggt.models.vggt", None)
    with pytest.raises(ValueError, match=r"pip install git\+https://github\.com/facebookresearch/vggt\.git"):
        vggt.load(str(vggt_folder), None)


def test_vggt_lacks_no_tensor(vggt_folder: Path) -> None:
    weights = vggt_folder / "model.safetensors"
    save_file({"module.weight": torch.ones(2)}, weights)
    with pytest.raises(
        ValueError, match=r"1 missing \(weight\), 1 unexpected \(module\.weight\); .*DataParallel"
    ):
        vggt.load(str(vggt_folder), None)
    vggt.load(str(vggt_folder), None, allowed=["weight", "module.*"])
    save_file({"weight": torch.ones(3)}, weights)
    with pytest.raises(ValueError, match=r"1 of another shape \(weight \[3\], not \[2\]\)"):
        vggt.load(str(vggt_folder), None)


def test_depth_pro_lacks_no_tensor_and_no_preprocessor(depth_pro_folder: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(depth_pro_folder, tmp_path / "short")
    tensors = load_file(folder / "model.safetensors")
    save_file(dict(list(tensors.items())[::2]), folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match=rf"lifter\.source {folder} .*{len(tensors) // 2} missing"):
        depth_pro.load(str(folder), None)
    (folder / "preprocessor_config.json").unlink()
    with pytest.raises(ValueError, match="it has no preprocessor"):
        depth_pro.load(str(folder), None)


class Small:
    """A lifter whose device holds `room` images."""

    name, revision = "small", ""

    def __init__(self, room: int) -> None:
        self.room = room
        self.tried: list[int] = []

    def lift(self, pictures: Sequence[InputImage]) -> list[Lifted | BadImage]:
        self.tried.append(len(pictures))
        if len(pictures) > self.room:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return [BadImage("seen", p.image_id) for p in pictures]


def test_out_of_memory_halves_the_batch_for_good() -> None:
    inner = Small(room=3)
    lifter = HalvingLifter(inner, 8)
    pictures = [picture(8, 8, i) for i in range(10)]
    for _ in range(2):
        answers = lifter.lift(pictures)
        assert [bad.value for bad in answers] == [p.image_id for p in pictures]
    assert inner.tried == [8, 4, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2]
    with pytest.raises(ValueError, match="one image of 8 x 8 does not fit"):
        HalvingLifter(Small(room=0), 4).lift(pictures)
    with pytest.raises(ValueError, match="batch_size is 0"):
        HalvingLifter(GivenLifter(), 0)
