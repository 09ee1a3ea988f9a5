"""The folder of an encoder through transformers' Auto classes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModel, AutoProcessor

import poma3d.auto
from poma3d import export
from poma3d.auto import Poma3dModel, Poma3dOutput, Poma3dProcessor
from poma3d.export import Provenance, SceneEncoder, weights_digest
from tests.helpers import tiny

SIZE = tiny.IMAGE_SIZE


def encoder(kind: str = "clip", gain: float = 2.0) -> SceneEncoder:
    vit = tiny.tower(kind).build()
    vit.patch_embed.gain = gain
    return SceneEncoder(vit, Provenance("tiny", "abc", 2.5, "s3://runs/rooms/main step 3"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    poma3d.auto.save(encoder(), tmp_path / "encoder")
    return tmp_path / "encoder"


def points(scenes: int = 2) -> torch.Tensor:
    return torch.randn(scenes, 3, SIZE, SIZE, 3, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("kind", ["clip", "siglip"])
def test_auto_model_gives_the_bits_of_our_own_loader(kind: str, tmp_path: Path) -> None:
    trained = encoder(kind)
    poma3d.auto.save(trained, tmp_path / "theirs")
    export.save(trained, tmp_path / "ours")
    model = AutoModel.from_pretrained(tmp_path / "theirs")
    assert type(model) is Poma3dModel
    assert not model.training
    model.requires_grad_(kind == "clip")
    for own in (trained, export.load(tmp_path / "ours"), export.load(tmp_path / "theirs")):
        assert weights_digest(own) == weights_digest(trained)
        assert own.provenance == trained.provenance
        expected = own(points())
        with torch.inference_mode():
            found = model(points())
        assert type(found) is Poma3dOutput
        assert list(found) == ["features", "tokens", "projected"]
        for name in found:
            assert torch.equal(found[name], getattr(expected, name)), name


def test_weights_that_can_be_trained_give_the_same_to_a_rounding(tmp_path: Path) -> None:
    """torch folds a product of SigLIP's pooling in another way when its query can be trained."""
    trained = encoder("siglip")
    poma3d.auto.save(trained, tmp_path)
    with torch.inference_mode():
        found = AutoModel.from_pretrained(tmp_path)(points())
    torch.testing.assert_close(found.features, trained(points()).features, atol=1e-6, rtol=0)


def test_it_is_saved_again_by_transformers(folder: Path, tmp_path: Path) -> None:
    model = AutoModel.from_pretrained(folder, dtype=torch.bfloat16)
    model.save_pretrained(tmp_path / "again")
    AutoProcessor.from_pretrained(folder).save_pretrained(tmp_path / "again")
    again = AutoModel.from_pretrained(tmp_path / "again")
    assert again.dtype == torch.bfloat16
    assert torch.equal(again(points()).features, model(points()).features)
    assert type(AutoProcessor.from_pretrained(tmp_path / "again")) is Poma3dProcessor


def test_a_tuple_on_request_and_gradients_to_the_weights(folder: Path) -> None:
    model = AutoModel.from_pretrained(folder)
    features, tokens, projected = model(points(1), return_dict=False)
    assert features.shape == projected.shape == (1, 3, tiny.JOINT)
    assert tokens.shape == (1, 3, tiny.TOKENS, tiny.WIDTH)
    projected.sum().backward()
    assert float(model.vit.patch_embed.weight.grad.abs().sum()) > 0


def test_new_weights_are_drawn_for_a_config_alone(folder: Path) -> None:
    model = AutoModel.from_config(AutoConfig.from_pretrained(folder))
    assert all(bool(torch.isfinite(p).all() and p.detach().abs().max() < 10) for p in model.parameters())


def test_rank_opens_the_teacher_that_is_given(folder: Path, tmp_path: Path) -> None:
    teacher = tiny.save_teacher(tmp_path / "teacher", tiny.clip_model())
    trained = SceneEncoder(tiny.tower().build(), Provenance("tiny", teacher_source=str(teacher)))
    poma3d.auto.save(trained, tmp_path / "own")
    model = AutoModel.from_pretrained(tmp_path / "own")
    with torch.inference_mode():
        views = model(points())
    ranked = model.rank(views, "a red chair", teacher=teacher)
    assert torch.equal(ranked.views, trained.rank(trained(points()), "a red chair").views)
    with pytest.raises(ValueError, match="does not say where its teacher is"):
        model.rank(views, "a red chair")


def test_folders_of_this_machine_are_left_out(tmp_path: Path) -> None:
    provenance = Provenance("tiny", "abc", 2.5, "/home/me/runs/rooms/main step 3", "/home/me/teacher")
    poma3d.auto.save(SceneEncoder(tiny.tower().build(), provenance), tmp_path)
    assert "/home/me" not in "".join(path.read_text() for path in tmp_path.glob("*.json"))
    found = export.load(tmp_path).provenance
    assert (found.run, found.teacher_source) == ("rooms/main step 3", "")


def changed(folder: Path, change: Callable[[dict[str, Any]], object], name: str = export.CONFIG) -> Path:
    content = json.loads((folder / name).read_text())
    change(content)
    (folder / name).write_text(json.dumps(content))
    return folder


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"format_version": 9}, r"format_version 9, this package reads 1: install the version"),
        ({"hidden_size": None}, r"config\.json lacks hidden_size"),
        ({"input_gain": None}, r"config\.json lacks input_gain"),
        ({"hidden_act": "relu"}, r"hidden_act is 'relu', expected one of gelu"),
        ({"pooling": "mean"}, r"pooling is 'mean', expected one of class, attention"),
        ({"num_hidden_layers": "2"}, r"num_hidden_layers is '2', expected a whole number above 0"),
        ({"layer_norm_eps": "x"}, r"layer_norm_eps is 'x', expected a number above 0"),
        ({"image_size": [SIZE, 50]}, rf"image_size \[{SIZE}, 50\] is not made of patches of patch_size 8"),
        ({"image_size": SIZE}, r"image_size is 48, expected \[height, width\]"),
        ({"provenance": {"author": 1}}, r"provenance is \{'author': 1\}, expected an object of"),
        ({"num_attention_heads": 3}, r"hidden_size 32 is no multiple of num_attention_heads 3"),
        ({"hidden_size": 64}, r"does not hold the tensors of .* of another shape"),
        ({"num_hidden_layers": 3}, r"does not hold the tensors of .* 16 missing"),
        ({"num_hidden_layers": 1}, r"does not hold the tensors of .* 16 unexpected"),
    ],
)
def test_both_loaders_refuse_a_config_that_is_not_the_encoders(
    change: dict[str, Any], sentence: str, folder: Path
) -> None:
    for key, value in change.items():
        changed(folder, lambda found, k=key, v=value: found.update({k: v}) if v is not None else found.pop(k))
    for load in (AutoModel.from_pretrained, export.load):
        with pytest.raises(ValueError, match=sentence) as caught:
            load(folder)
        assert "\n" not in str(caught.value)


def test_unknown_keys_are_named_with_a_suggestion(folder: Path) -> None:
    with pytest.raises(ValueError, match="unknown key 'hidden_sise': did you mean hidden_size"):
        AutoModel.from_pretrained(changed(folder, lambda found: found.update(hidden_sise=3)))


def test_damaged_and_missing_weights_are_named(folder: Path) -> None:
    weights = folder / export.WEIGHTS
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(ValueError, match=r"cannot be loaded: .*metadata"):
        AutoModel.from_pretrained(folder)
    weights.unlink()
    with pytest.raises(ValueError, match=r"no file named model\.safetensors"):
        AutoModel.from_pretrained(folder)


def test_points_of_another_shape_are_named(folder: Path) -> None:
    model = AutoModel.from_pretrained(folder)
    with pytest.raises(ValueError, match=r"takes views of \(3, 48, 48\).*got \(3, 32, 32\)"):
        model(torch.zeros(1, 1, 32, 32, 3))
    with pytest.raises(ValueError, match=r"must be \[B, V, H, W, 3\], got \(2, 48, 48, 3\)"):
        model(torch.zeros(2, SIZE, SIZE, 3))
    with pytest.raises(ValueError, match=r"floating-point metres, got torch\.int64"):
        model(torch.zeros(1, 1, SIZE, SIZE, 3, dtype=torch.int64))


def test_a_processor_of_another_version_is_named(folder: Path) -> None:
    changed(folder, lambda found: found.update(format_version=2), "processor_config.json")
    with pytest.raises(
        ValueError, match=r"processor_config\.json has format_version 2, this package reads 1"
    ):
        AutoProcessor.from_pretrained(folder)
