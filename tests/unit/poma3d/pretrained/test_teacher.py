from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from poma3d.pretrained.config import TeacherConfig
from poma3d.pretrained.folder import weight_hash, weights_revision
from poma3d.pretrained.teacher import load_teacher, validate
from tests.helpers import tiny


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.save_teacher(tmp_path_factory.mktemp("teachers") / "tiny-clip", tiny.clip_model())


def images(n: int = 3, side: int = tiny.IMAGE_SIZE) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (n, side, side, 3), np.uint8)


def test_a_clip_folder(folder: Path) -> None:
    teacher = load_teacher(TeacherConfig(str(folder), batch_size=2))
    assert (teacher.kind, teacher.name, teacher.embedding) == ("clip", "tiny-clip", tiny.JOINT)
    assert teacher.revision == weights_revision(str(folder), None)
    assert teacher.revision.startswith(f"{weight_hash(folder)}-")
    features = teacher.encode_images(images())
    assert features.dtype == np.float16
    assert features.shape == (3, tiny.JOINT)
    np.testing.assert_allclose(np.linalg.norm(features.astype(np.float32), axis=-1), 1, atol=1e-3)
    pixels = (torch.from_numpy(images()).permute(0, 3, 1, 2) / 255 - 0.4) / 0.3
    with torch.no_grad():
        expected = torch.nn.functional.normalize(
            tiny.clip_model().get_image_features(pixels).pooler_output, dim=-1
        )
    np.testing.assert_allclose(features, expected.numpy(), atol=2e-3)
    same, tokens = teacher.image_tokens(images())
    np.testing.assert_array_equal(same, features)
    assert tokens.shape == (3, tiny.TOKENS, tiny.WIDTH)
    np.testing.assert_allclose(tokens.astype(np.float32).std(-1), 1, atol=0.02)
    assert teacher.logit_scale == pytest.approx(float(tiny.clip_model().logit_scale.detach()))


def test_texts_do_not_depend_on_their_company(folder: Path) -> None:
    teacher = load_teacher(TeacherConfig(str(folder), batch_size=2))
    texts = ["a chair", "a red chair by the table by the red chair", "table"]
    together = teacher.encode_texts(texts)
    assert together.shape == (3, tiny.JOINT)
    for i, text in enumerate(texts):
        np.testing.assert_allclose(teacher.encode_texts([text])[0], together[i], atol=2e-3)
    too_long = "chair " * 50
    assert np.isfinite(teacher.encode_texts([too_long])).all()
    assert teacher.encode_texts([]).shape == (0, tiny.JOINT)


def test_images_of_another_size_are_resized_whole(folder: Path) -> None:
    teacher = load_teacher(TeacherConfig(str(folder)))
    large = np.zeros((1, 96, 128, 3), np.uint8)
    large[:, :, 64:] = 255  # the right half
    small = np.zeros((1, 48, 48, 3), np.uint8)
    small[:, :, 24:] = 255
    close = teacher.encode_images(large)[0].astype(float) @ teacher.encode_images(small)[0].astype(float)
    assert close > 0.98


def test_a_siglip_folder(tmp_path: Path) -> None:
    teacher = load_teacher(TeacherConfig(str(tiny.save_teacher(tmp_path / "siglip", tiny.siglip_model()))))
    assert (teacher.kind, teacher.embedding) == ("siglip", tiny.WIDTH)
    assert teacher.encode_images(images()).shape == (3, tiny.WIDTH)
    assert teacher.encode_texts(["a chair"]).shape == (1, tiny.WIDTH)
    assert teacher.image_tokens(images())[1].shape == (3, tiny.TOKENS, tiny.WIDTH)


def test_the_revision_of_a_folder_follows_its_weights(tmp_path: Path, folder: Path) -> None:
    other = tiny.save_teacher(tmp_path / "tiny-clip", tiny.clip_model(seed=1))
    assert weight_hash(other) != weight_hash(folder)
    assert weight_hash(tiny.save_teacher(tmp_path / "again", tiny.clip_model())) == weight_hash(folder)
    load_teacher(TeacherConfig(str(folder), revision=weight_hash(folder)))
    with pytest.raises(ValueError, match=f"has weights {weight_hash(other)}.*{weight_hash(folder)}"):
        load_teacher(TeacherConfig(str(other), revision=weight_hash(folder)))


def test_pickled_weights_are_refused(tmp_path: Path) -> None:
    folder = tiny.save_teacher(tmp_path / "pickled", tiny.clip_model())
    (folder / "model.safetensors").unlink()
    torch.save(tiny.clip_model().state_dict(), folder / "pytorch_model.bin")
    with pytest.raises(ValueError, match=r"no \*.safetensors"):
        load_teacher(TeacherConfig(str(folder)))


FGCLIP_CODE = """
import torch
from transformers import CLIPConfig, CLIPModel


class FGCLIPModel(CLIPModel):
    config_class = CLIPConfig

    def __init__(self, config):
        super().__init__(config)
        width = config.text_config.hidden_size
        self.text_filip_projection = torch.nn.Linear(width, config.projection_dim, bias=False)
        for name in ("res", "ori"):
            embedding = torch.nn.Embedding(248, width)
            setattr(self.text_model.embeddings, f"position_embedding_{name}", embedding)
        self.post_init()

    def get_text_features(self, ids, walk_short_pos=True):
        if walk_short_pos:
            return super().get_text_features(ids[:, :16]).pooler_output
        text = self.text_model
        place = torch.arange(ids.shape[1])
        early = (place < 20)[:, None]
        e = text.embeddings
        x = e.token_embedding(ids) + torch.where(
            early, e.position_embedding_ori(place), e.position_embedding_res(place)
        )
        for layer in text.encoder.layers:
            x = layer(x, None, is_causal=True)
        end = (ids == text.eos_token_id).int().argmax(-1)
        return self.text_filip_projection(text.final_layer_norm(x)[torch.arange(len(ids)), end])
"""


@pytest.fixture(scope="module")
def fgclip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder laid out as FG-CLIP's: a CLIP with more weights and with code of its own."""
    folder = tiny.save_teacher(tmp_path_factory.mktemp("teachers") / "tiny-fgclip", tiny.clip_model())
    (folder / "modeling_fgclip.py").write_text(FGCLIP_CODE)
    config = json.loads((folder / "config.json").read_text())
    config |= {
        "architectures": ["FGCLIPModel"],
        "auto_map": {"AutoModelForCausalLM": "modeling_fgclip.FGCLIPModel"},
    }
    (folder / "config.json").write_text(json.dumps(config))
    weights = load_file(folder / "model.safetensors")
    draw = torch.Generator().manual_seed(5)
    width = weights["text_projection.weight"].shape[1]
    for name in ("res", "ori"):
        table = torch.randn(248, width, generator=draw)
        weights[f"text_model.embeddings.position_embedding_{name}.weight"] = table
    weights["text_filip_projection.weight"] = torch.randn(tiny.JOINT, width, generator=draw)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def test_fgclip_needs_no_code_of_its_own(fgclip: Path, folder: Path) -> None:
    teacher = load_teacher(TeacherConfig(str(fgclip)))
    assert teacher.kind == "fgclip"
    clip = load_teacher(TeacherConfig(str(folder)))
    texts = ["a chair", "a red table"]
    np.testing.assert_array_equal(teacher.encode_texts(texts), clip.encode_texts(texts))
    np.testing.assert_array_equal(teacher.encode_images(images()), clip.encode_images(images()))
    long = teacher.encode_texts(["chair by the table " * 20], long=True)
    other_end = teacher.encode_texts(["chair by the table " * 20 + "red"], long=True)
    assert not np.array_equal(long, other_end)  # what a text of 77 tokens would have cut


def test_fgclip_agrees_with_code_that_comes_with_the_weights(
    fgclip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path))
    ours = load_teacher(TeacherConfig(str(fgclip)))
    cfg = TeacherConfig(str(fgclip), revision=weight_hash(fgclip), trust_remote_code=True)
    assert not list(tmp_path.iterdir()), "our own class needs no code of the weights"
    theirs = load_teacher(cfg)
    assert "class FGCLIPModel" in "".join(path.read_text() for path in tmp_path.rglob("*.py"))
    for long, texts in ((False, ["a chair"]), (True, ["a chair", "the red chair by the table " * 8])):
        ours_found, theirs_found = (t.encode_texts(texts, long=long) for t in (ours, theirs))
        np.testing.assert_allclose(ours_found, theirs_found, atol=2e-3)
    np.testing.assert_array_equal(ours.encode_images(images()), theirs.encode_images(images()))


def test_code_that_comes_with_weights_needs_permission_and_a_revision(fgclip: Path) -> None:
    with pytest.raises(ValueError, match=r"pin it with teacher\.revision"):
        validate(TeacherConfig(str(fgclip), trust_remote_code=True))
    with pytest.raises(ValueError, match="has weights"):
        load_teacher(TeacherConfig(str(fgclip), revision="0" * 16, trust_remote_code=True))


def test_a_clip_that_is_called_fgclip_is_refused(folder: Path) -> None:
    with pytest.raises(ValueError, match="is it FG-CLIP"):
        load_teacher(TeacherConfig(str(folder), kind="fgclip"))


@pytest.mark.parametrize(
    ("cfg", "words"),
    [
        (TeacherConfig(), "teacher.source is empty"),
        (TeacherConfig("x", kind="resnet"), "teacher.kind is 'resnet'"),
        (TeacherConfig("x", batch_size=0), "teacher.batch_size is 0"),
    ],
)
def test_configs_that_cannot_work_are_refused(cfg: TeacherConfig, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        validate(cfg)


def test_bad_input_is_named(folder: Path) -> None:
    teacher = load_teacher(TeacherConfig(str(folder)))
    with pytest.raises(ValueError, match="text 1 of 2 is empty"):
        teacher.encode_texts(["a chair", "  "])
    with pytest.raises(ValueError, match="no long-caption mode"):
        teacher.encode_texts(["a chair"], long=True)
    with pytest.raises(ValueError, match=r"uint8 \[n, h, w, 3\], got float32"):
        teacher.encode_images(np.zeros((1, 8, 8, 3), np.float32))


def test_a_model_of_another_kind_is_refused(folder: Path, tmp_path: Path) -> None:
    other = shutil.copytree(folder, tmp_path / "bert")
    (other / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(ValueError, match="is a 'bert' model"):
        load_teacher(TeacherConfig(str(other)))
