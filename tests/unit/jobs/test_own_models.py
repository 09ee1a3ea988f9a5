"""Lifters, captioners and teachers of the user's own, through the commands that use them."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from jobs.cli import main
from jobs.common.datasets import open_dataset
from jobs.lift.config import LifterConfig
from jobs.lift.lifters import decode_side_px
from plinth.storage import StorageOptions
from tests.helpers.lift.image_sets import lift_job, photo, write_photos_tar
from tests.helpers.tiny_jobs import write

MODULE = '''
from dataclasses import dataclass

import numpy as np

from poma3d.lift.lifter import Lifted

@dataclass
class Slope:
    near_m: float = 1.0
    """Depth at the left."""

class SlopeLifter:
    Config = Slope
    name, revision = "slope", "1"
    def __init__(self, config, device):
        self.near_m = config.near_m
    def lift(self, images):
        ramp = np.tile(np.linspace(self.near_m, 3 * self.near_m, 32), (24, 1)).astype(np.float32)
        return [Lifted(ramp, np.array([30.0, 30.0, 15.5, 11.5]), metric=True) for _ in images]

class SmallLifter(SlopeLifter):
    decode_side_px = 48
    def lift(self, pictures):
        assert [max(picture.rgb.shape) for picture in pictures] == [self.decode_side_px] * len(pictures)
        return super().lift(pictures)

@dataclass
class Words:
    text: str = "a picture"
    """The caption."""

class OneCaption:
    Config = Words
    revision = "1"
    def __init__(self, config, device):
        self.text = config.text
    def describe(self, pictures, key):
        return [[self.text] if self.text else [] for _ in pictures]
    def summarise(self, captions, key):
        return [self.text] if self.text else []

@dataclass
class Width:
    width: int = 8
    """Of the joint space."""

class TextLength:
    Config = Width
    name, revision, kind, logit_scale = "length", "1", "own", 1.0
    def __init__(self, config, device):
        self.embedding = self.token_width = config.width
    def image_tower(self):
        raise AssertionError("embedding asks for no tower")
    def image_tokens(self, images):
        raise AssertionError("the job keeps no patch tokens")
    def encode_images(self, images):
        return np.eye(1, self.embedding, dtype=np.float16).repeat(len(images), 0)
    def encode_texts(self, texts, long=False):
        return np.eye(1, self.embedding, dtype=np.float16).repeat(len(texts), 0)
'''


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A module in the folder where the commands are started."""
    (tmp_path / "own_models.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield "own_models"
    sys.modules.pop("own_models", None)


def test_own_lifter_captioner_and_teacher(
    module: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_photos_tar(tmp_path / "tars" / "0.tar", range(3))
    lifter = {"kind": f"{module}:SlopeLifter", "options": {"near_m": 2.0}}
    teacher = {"kind": f"{module}:TextLength"}
    job = lift_job(tmp_path / "out", [{"uri": str(tmp_path / "tars")}], lifter=lifter, teacher=teacher)
    assert main(["lift", write(tmp_path / "lift.yaml", job)]) == 0
    dataset = open_dataset(str(tmp_path / "out"), StorageOptions())
    sample = dataset.samples()[0]
    metres = sample.depth[0] * sample.depth_scale
    assert (metres.min(), metres.max()) == pytest.approx((2.0, 6.0), rel=0.1)
    assert sample.image_embedding is not None
    assert sample.image_embedding.shape == (1, 8)
    recipe = dataset.manifest.attributes["recipe"]
    assert recipe["lifter"] == {**lifter, "revision": "1"}
    assert dataset.teacher is not None
    assert dataset.teacher.name == "own_models:TextLength"
    capsys.readouterr()
    assert main(["lift", str(tmp_path / "lift.yaml"), "lifter.options.near_m=3.0"]) == 2
    assert "lifter.options.near_m was 2.0 and is 3.0" in capsys.readouterr().err
    assert main(["lift", str(tmp_path / "lift.yaml"), "teacher.options.width=16"]) == 2
    assert "teacher.revision was" in capsys.readouterr().err

    captioner = {"kind": f"{module}:OneCaption", "options": {"text": "a slope"}}
    caption = {
        "kind": "caption", "data": str(tmp_path / "out"), "output": str(tmp_path / "captioned"),
        "captioner": captioner, "teacher": teacher, "existing": "compare", "captions": 2, "workers": 0,
    }  # fmt: skip
    assert main(["caption", write(tmp_path / "caption.yaml", caption)]) == 0
    captioned = open_dataset(str(tmp_path / "captioned"), StorageOptions())
    assert captioned.samples()[0].view_captions == [[photo(0).caption, "a slope"]]
    assert captioned.manifest.attributes["recipe"]["captioner"]["options"] == {"text": "a slope"}
    np.testing.assert_array_equal(captioned.samples()[0].depth, sample.depth)


def test_views_for_which_a_captioner_has_no_words_are_rows(
    module: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_photos_tar(tmp_path / "tars" / "0.tar", range(3))
    sets = [{"uri": str(tmp_path / "tars")}]
    job = lift_job(tmp_path / "out", sets)
    assert main(["lift", write(tmp_path / "lift.yaml", job)]) == 0
    caption = {
        "kind": "caption", "data": str(tmp_path / "out"), "output": str(tmp_path / "captioned"),
        "captioner": {"kind": f"{module}:OneCaption", "options": {"text": ""}},
        "teacher": {"kind": f"{module}:TextLength"}, "existing": "replace", "captions": 2, "workers": 0,
    }  # fmt: skip
    file = write(tmp_path / "caption.yaml", caption)
    capsys.readouterr()
    assert main(["caption", file]) == 0
    assert "most often" not in capsys.readouterr().out, "the captions that were there stay"
    header = "scene_id,frame_id,reason,value"
    assert (tmp_path / "captioned" / "rejects.csv").read_text().splitlines() == [header]

    job = lift_job(tmp_path / "bare", sets, gates={"require_caption": False, "min_caption_letters": 99})
    assert main(["lift", write(tmp_path / "lift.yaml", job)]) == 0
    capsys.readouterr()
    assert main(["caption", file, f"data={tmp_path}/bare", f"output={tmp_path}/wordless"]) == 0
    assert "no caption, 3 of 3 rejects: try another captioner" in capsys.readouterr().out.splitlines()[-1]
    scenes = [sample.scene_id for sample in open_dataset(str(tmp_path / "bare"), StorageOptions()).samples()]
    rows = [f"{scene},view 0,no caption,the model had no words for it" for scene in scenes]
    for folder in ("wordless", "wordless/versions/000001"):
        assert (tmp_path / folder / "rejects.csv").read_text().splitlines() == [header, *rows]


def test_a_lifter_gets_pictures_of_the_size_that_it_wants(module: str, tmp_path: Path) -> None:
    write_photos_tar(tmp_path / "x.tar", range(2))
    lifter = {"kind": f"{module}:SmallLifter"}
    job = lift_job(tmp_path / "out", [{"uri": str(tmp_path / "x.tar")}], lifter=lifter)
    assert main(["lift", write(tmp_path / "lift.yaml", job)]) == 0
    recipe = open_dataset(str(tmp_path / "out"), StorageOptions()).manifest.attributes["recipe"]
    assert recipe["decode_side_px"] == 48
    kinds = {"given": 768, "depth_pro": 1536, "vggt": 768, f"{module}:SlopeLifter": 768}
    assert {kind: decode_side_px(LifterConfig(kind=kind)) for kind in kinds} == kinds
