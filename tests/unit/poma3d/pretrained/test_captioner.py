"""Captions from a vision-language model of the real class, tiny and untrained."""

from __future__ import annotations

import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import GenerationMixin

from poma3d.pretrained.captioner import keep_best, load_captioner
from poma3d.pretrained.config import CaptionerConfig
from tests.helpers.lift.tiny_captioner import WORDS, save_captioner

PICTURES = list(np.random.default_rng(0).integers(0, 256, (5, 48, 40, 3), np.uint8))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A saved model."""
    folder = tmp_path_factory.mktemp("captioner")
    save_captioner(folder)
    return folder


def config(folder: Path, **changes: object) -> CaptionerConfig:
    cfg = CaptionerConfig(str(folder), batch_size=2, candidates=3, max_new_tokens=6, temperature=1.0)
    return replace(cfg, summary_max_new_tokens=8, **changes)  # type: ignore[arg-type]


def test_several_captions_a_picture_the_same_every_time(folder: Path) -> None:
    captioner = load_captioner(config(folder))
    said = captioner.describe(PICTURES, "a")
    assert len(said) == 5
    assert all(1 <= len(captions) <= 3 for captions in said)
    assert {word for captions in said for text in captions for word in text.split()} <= {*WORDS}
    assert load_captioner(config(folder)).describe(PICTURES, "a") == said, "drawn from the seed alone"
    assert captioner.describe(PICTURES, "b") != said
    assert captioner.describe([], "a") == []


def test_every_prompt_gives_its_own(folder: Path) -> None:
    two = load_captioner(config(folder, prompts=["a red chair", "the floor"])).describe(PICTURES[:1], "a")
    one = load_captioner(config(folder, prompts=["a red chair"])).describe(PICTURES[:1], "a")
    assert set(one[0]) <= set(two[0])
    assert len(two[0]) > len(one[0])


def test_the_likeliest_words_are_one_caption(folder: Path) -> None:
    greedy = load_captioner(config(folder, temperature=0.0))
    assert [len(c) for c in greedy.describe(PICTURES[:2], "a")] == [1, 1]
    assert greedy.describe(PICTURES[:2], "a") == greedy.describe(PICTURES[:2], "b")


def test_a_scene_is_summarised_from_words(folder: Path) -> None:
    captioner = load_captioner(config(folder, summaries=2))
    said = captioner.summarise(["a red chair", "a bed"], "a")
    assert 1 <= len(said) <= 2
    assert captioner.summarise(["a red chair", "a bed"], "a") == said


def test_a_batch_that_does_not_fit_is_halved_for_good(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    captioner = load_captioner(config(folder, batch_size=4, temperature=0.0))
    expected = captioner.describe(PICTURES, "a")
    original, sizes = GenerationMixin.generate, []

    def small(model: Any, **given: Any) -> torch.Tensor:
        sizes.append(len(given["input_ids"]))
        if sizes[-1] > limit:
            raise torch.OutOfMemoryError("out of memory")
        return original(model, **given)

    monkeypatch.setattr(GenerationMixin, "generate", small)
    limit = 1
    assert captioner.describe(PICTURES, "a") == expected
    assert sizes == [4, 2, 1, 1, 1, 1, 1]
    limit = 0
    with pytest.raises(ValueError, match="one picture does not fit"):
        captioner.describe(PICTURES, "a")


def test_the_best_by_score() -> None:
    assert keep_best(["a", "b", "c", "d"], np.array([0.1, 0.9, 0.5, 0.9], np.float32), 3) == ["b", "d", "c"]
    assert keep_best([], np.zeros(0), 3) == []


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"source": ""}, "captioner.source is empty"),
        ({"trust_remote_code": True}, "pin it with captioner.revision"),
        ({"dtype": "int4"}, "captioner.dtype is 'int4'; use one of float32"),
        ({"candidates": 0}, "captioner.candidates is 0"),
        ({"prompts": []}, "captioner.prompts"),
        ({"summary_prompt": "Describe."}, "has no {captions}"),
        ({"top_p": 0.0}, "top_p"),
    ],
)
def test_settings_that_cannot_be(folder: Path, change: dict[str, object], words: str) -> None:
    with pytest.raises(ValueError, match=re.escape(words)):
        replace(config(folder), **change).validate()  # type: ignore[arg-type]


def test_weights_that_cannot_be_used_are_named(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"the job expects captioner\.revision 0123"):
        load_captioner(config(folder, revision="0123"))
    with pytest.raises(ValueError, match=r"is no folder here; pin a hub id .*captioner\.revision"):
        load_captioner(config(tmp_path / "nowhere"))
    other = shutil.copytree(folder, tmp_path / "bert")
    (other / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(ValueError, match=r"captioner\.source .*bert cannot be loaded"):
        load_captioner(config(other))
