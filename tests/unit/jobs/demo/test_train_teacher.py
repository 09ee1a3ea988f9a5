"""The demo's teacher: learns toy colours, is an ordinary Hugging Face folder, is cached by what made it."""

import dataclasses
import io
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoImageProcessor, AutoTokenizer, CLIPModel

from jobs.demo.teacher import RECORD, augment, build_tokenizer, load, train_teacher
from jobs.demo.teacher_config import TeacherTrainConfig
from poma3d.sample import Sample

COLOURS = {"red": (220, 30, 30), "green": (30, 200, 30), "blue": (30, 30, 220), "white": (240, 240, 240)}
CFG = TeacherTrainConfig(
    image_size=16, patch_size=8, image_width=16, image_layers=1, image_heads=2, text_width=16, text_layers=1,
    text_heads=2, text_tokens=24, embedding=8, steps=60, scenes_per_batch=4, lr=1e-2, warmup_steps=5,
    threads=1,
)  # fmt: skip


def jpeg(rgb: tuple[int, int, int]) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (20, 20), rgb).save(buffer, "jpeg")
    return buffer.getvalue()


def make_samples() -> list[Sample]:
    samples = []
    for i, (name, rgb) in enumerate(COLOURS.items()):
        samples.append(
            Sample(
                scene_id=f"room-{i}",
                source="test",
                depth=np.zeros((2, 4, 4), np.uint16),
                intrinsics=np.ones((2, 4), np.float32),
                pose=np.zeros((2, 3, 4), np.float32),
                view_valid=np.ones(2, np.uint8),
                view_captions=[[f"a {name} wall."], [f"{name} paint, {i} coats."]],
                scene_captions=[f"a room painted {name}."],
                colour=[jpeg(rgb)] * 2,
            )
        )
    return samples


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("teacher") / "clip"
    result = train_teacher(make_samples(), path, CFG)
    assert not result.cached
    assert result.accuracy > 0.4  # two views share a colour, so half is the best there is
    return path


def test_others_on_the_machine_can_read_it(folder: Path) -> None:
    config = (folder / "config.json").stat().st_mode
    assert {path.stat().st_mode for path in folder.iterdir()} == {config}
    fresh = folder.parent / "fresh"
    fresh.mkdir()
    assert folder.stat().st_mode == fresh.stat().st_mode


def test_folder_loads_like_any_clip_and_knows_its_colours(folder: Path) -> None:
    model = CLIPModel.from_pretrained(folder).eval()
    tokenizer, processor = AutoTokenizer.from_pretrained(folder), AutoImageProcessor.from_pretrained(folder)
    images = [Image.new("RGB", (40, 40), rgb) for rgb in COLOURS.values()]
    texts = tokenizer([f"a {name} wall." for name in COLOURS], padding=True, return_tensors="pt")
    with torch.no_grad():
        out = model(**texts, pixel_values=processor(images, return_tensors="pt")["pixel_values"])
    assert out.logits_per_image.argmax(dim=1).tolist() == [0, 1, 2, 3]


def test_saved_processor_prepares_pixels_as_training_did(folder: Path) -> None:
    data = load(make_samples(), CFG.image_size)
    trained_on = augment(data.colour[:1], CFG, np.random.default_rng(0))
    processor = AutoImageProcessor.from_pretrained(folder)
    pixels = processor([Image.fromarray(v) for v in data.colour[0]], return_tensors="pt")["pixel_values"]
    assert torch.allclose(pixels, trained_on, atol=1e-6)


def test_tokens_are_words_padded_after_the_end() -> None:
    tokenizer = build_tokenizer(load(make_samples(), 16), 8)
    tokens = tokenizer(["A RED wall.", "unheard of"], padding=True, truncation=True, max_length=8)
    words = [tokenizer.convert_ids_to_tokens(ids) for ids in tokens["input_ids"]]
    assert words[0] == ["<start>", "a", "red", "wall", ".", "<end>"]
    assert words[1] == ["<start>", "<unknown>", "<unknown>", "<end>", "<pad>", "<pad>"]
    assert tokenizer.eos_token_id != 2  # transformers reads 2 as "the highest token is the end"
    assert tokenizer(["red " * 20], truncation=True)["input_ids"][0][-1] == tokenizer.eos_token_id


def test_cache_is_by_config_and_data(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert train_teacher(make_samples(), folder, dataclasses.replace(CFG, threads=2)).cached
    assert "up to date" in capsys.readouterr().out
    before = json.loads((folder / RECORD).read_text())["key"]
    other = make_samples()
    other[0] = dataclasses.replace(other[0], colour=[jpeg((1, 2, 3))] * 2)
    again = train_teacher(other, folder.parent / "other", dataclasses.replace(CFG, steps=1))
    assert not again.cached
    assert json.loads((again.folder / RECORD).read_text())["key"] != before


def test_training_is_repeatable(tmp_path: Path) -> None:
    cfg = dataclasses.replace(CFG, steps=3, grey=0.5, jitter=0.2)
    losses = [train_teacher(make_samples(), tmp_path / name, cfg).loss for name in ("a", "b")]
    assert losses[0] == losses[1]


def test_grey_and_tint() -> None:
    data = load(make_samples(), 16)
    grey = augment(data.colour, dataclasses.replace(CFG, grey=1.0), np.random.default_rng(0))
    assert grey.shape == (8, 3, 16, 16)
    assert torch.equal(grey[:, 0], grey[:, 1])
    plain = augment(data.colour, CFG, np.random.default_rng(0))
    tinted = augment(data.colour, dataclasses.replace(CFG, jitter=0.5), np.random.default_rng(0))
    assert not torch.allclose(plain, tinted)
    assert tinted.abs().max() <= 1.0


def test_scene_without_colour_or_captions_is_named() -> None:
    samples = make_samples()
    with pytest.raises(ValueError, match=r"room-2.*colour"):
        load([*samples[:2], dataclasses.replace(samples[2], colour=[])], 16)
    with pytest.raises(ValueError, match=r"room-1.*captions"):
        load([dataclasses.replace(samples[1], scene_captions=[])], 16)


def test_threads_change_no_digit(tmp_path: Path) -> None:
    weights = []
    for threads in (1, 2):
        config = dataclasses.replace(CFG, steps=3, threads=threads)
        folder = train_teacher(make_samples(), tmp_path / str(threads), config).folder
        weights.append((folder / "model.safetensors").read_bytes())
    assert weights[0] == weights[1]
