"""The outline of a teacher is that of the loaded teacher, or nothing."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from poma3d.pretrained.config import TeacherConfig
from poma3d.pretrained.folder import UnusableModel
from poma3d.pretrained.outline import read_outline
from poma3d.pretrained.towers import image_tower
from tests.helpers import tiny

WEIGHTS = "model.safetensors"


def saved(folder: Path, kind: str) -> Any:
    """A tiny model in a folder, with files in the place of tokenizer and preprocessor."""
    model = tiny.clip_model() if kind == "clip" else tiny.siglip_model()
    model.save_pretrained(folder)
    (folder / "tokenizer.json").write_text("{}")
    (folder / "preprocessor_config.json").write_text("{}")
    return model


@pytest.mark.parametrize("kind", ["clip", "siglip"])
def test_outline_is_the_image_tower(kind: str, tmp_path: Path) -> None:
    expected = image_tower(saved(tmp_path, kind))
    found = read_outline(TeacherConfig(source=str(tmp_path)))
    assert found is not None
    assert found.name == tmp_path.name
    assert (found.tower.shape, found.tower.logit_scale) == (expected.shape, expected.logit_scale)
    assert found.tower.state.keys() == expected.state.keys()
    assert all(torch.equal(found.tower.state[name], tensor) for name, tensor in expected.state.items())


def dropped(state: dict[str, torch.Tensor]) -> None:
    del state["text_model.final_layer_norm.bias"]


def added(state: dict[str, torch.Tensor]) -> None:
    state["classifier.weight"] = torch.zeros(2)


def reshaped(state: dict[str, torch.Tensor]) -> None:
    state["vision_model.post_layernorm.weight"] = torch.zeros(3)


@pytest.mark.parametrize("change", [dropped, added, reshaped])
def test_other_tensors_than_expected_are_left_to_the_loader(change: Any, tmp_path: Path) -> None:
    saved(tmp_path, "clip")
    state = load_file(tmp_path / WEIGHTS)
    change(state)
    save_file(state, tmp_path / WEIGHTS)
    assert read_outline(TeacherConfig(source=str(tmp_path))) is None


def test_other_models_are_left_to_the_loader(tmp_path: Path) -> None:
    saved(tmp_path, "clip")
    config = TeacherConfig(source=str(tmp_path))
    assert read_outline(replace(config, allow_tensors=["text_projection.weight"])) is None
    assert read_outline(replace(config, kind="siglip")) is None
    assert read_outline(replace(config, source="someone/on-a-hub")) is None
    settings = json.loads((tmp_path / "config.json").read_text())
    del settings["vision_config"]["patch_size"]
    (tmp_path / "config.json").write_text(json.dumps(settings))
    assert read_outline(config) is None


def test_damage_and_other_weights_are_errors(tmp_path: Path) -> None:
    saved(tmp_path, "clip")
    with pytest.raises(UnusableModel, match=r"the job expects teacher\.revision 0123"):
        read_outline(TeacherConfig(source=str(tmp_path), revision="0123"))
    whole = (tmp_path / WEIGHTS).read_bytes()
    (tmp_path / WEIGHTS).write_bytes(whole[:-8])
    with pytest.raises(UnusableModel, match="is damaged, or half of a file"):
        read_outline(TeacherConfig(source=str(tmp_path)))


def test_outline_does_not_load_transformers(tmp_path: Path) -> None:
    saved(tmp_path, "clip")
    code = (
        "import sys; from poma3d.pretrained.config import TeacherConfig as T;"
        "from poma3d.pretrained.outline import read_outline;"
        f"assert read_outline(T(source={str(tmp_path)!r})) is not None;"
        "print('transformers' in sys.modules)"
    )
    ended = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert ended.stdout == "False\n"
