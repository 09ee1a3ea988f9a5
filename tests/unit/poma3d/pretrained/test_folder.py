"""Folders that are not whole are refused in one line; a revision covers all that decides an embedding."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from poma3d.pretrained.config import TeacherRecord
from poma3d.pretrained.folder import PREPROCESSOR, TOKENIZER, same_revision, share, weights_revision


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """What a whole teacher looks like to whoever does not load it."""
    folder = tmp_path / "teacher"
    folder.mkdir()
    (folder / "config.json").write_text('{"model_type": "clip"}')
    (folder / "tokenizer.json").write_text("{}")
    (folder / "preprocessor_config.json").write_text('{"image_mean": [0.5, 0.5, 0.5]}')
    save_file({"a": torch.ones(4), "b": torch.zeros(2)}, folder / "model.safetensors")
    return folder


def revision(folder: Path, expected: str | None = None) -> str:
    return weights_revision(str(folder), expected, "teacher", (TOKENIZER, PREPROCESSOR))


def shorten(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-3])


def to_lfs(path: Path) -> None:
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 600000000\n")


def to_open_clip(folder: Path) -> None:
    (folder / "config.json").rename(folder / "open_clip_config.json")


def to_pickle(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


def lose_shard(folder: Path) -> None:
    index = {"weight_map": {"a": "model-00001-of-00002.safetensors", "b": "model.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda f: (f / "tokenizer.json").unlink(), r"has no tokenizer \(tokenizer\.json, .*made up"),
        (
            lambda f: (f / "preprocessor_config.json").unlink(),
            r"has no preprocessor \(preprocessor_config\.json",
        ),
        (lambda f: (f / "config.json").unlink(), r"has no config\.json"),
        (to_open_clip, "a model of open_clip"),
        (lambda f: to_lfs(f / "model.safetensors"), r"model\.safetensors is a Git LFS pointer.*git lfs pull"),
        (lambda f: to_lfs(f / "tokenizer.json"), r"tokenizer\.json is a Git LFS pointer"),
        (lambda f: shorten(f / "model.safetensors"), r"model\.safetensors is damaged, or half of a file"),
        (lambda f: (f / "model.safetensors").write_bytes(b""), r"model\.safetensors is damaged"),
        (lambda f: (f / "model.safetensors").write_bytes(b"\xff" * 64), r"model\.safetensors is damaged"),
        (lambda f: shorten(f / "config.json"), r"config\.json is not JSON"),
        (lambda f: (f / "config.json").write_text("[1]"), r"config\.json is no model's configuration"),
        (to_pickle, r"no \*\.safetensors.*same folder, beside its tokenizer and preprocessor"),
        (lose_shard, r"model-00001-of-00002\.safetensors of model\.safetensors\.index\.json is missing"),
    ],
)
def test_a_folder_that_is_not_whole_is_one_line(
    spoil: Callable[[Path], object], words: str, folder: Path
) -> None:
    spoil(folder)
    with pytest.raises(ValueError, match=words) as caught:
        revision(folder)
    assert str(caught.value).startswith(f"teacher.source {folder}: ")
    assert len(str(caught.value).splitlines()) == 1


def test_a_revision_covers_weights_tokenizer_and_preprocessor(folder: Path) -> None:
    before = revision(folder)
    weights, _, inputs = before.partition("-")
    (folder / "tokenizer.json").write_text('{"added": 1}')
    assert revision(folder).startswith(f"{weights}-")
    assert revision(folder) != before
    (folder / "tokenizer.json").write_text("{}")
    (folder / "README.md").write_text("of no importance")
    assert revision(folder) == before
    save_file({"a": torch.zeros(4)}, folder / "model.safetensors")
    assert revision(folder).endswith(f"-{inputs}")
    assert revision(folder) != before


def test_revisions_from_before_they_covered_the_tokenizer_stay_valid(folder: Path) -> None:
    found = revision(folder)
    older = found.partition("-")[0]
    assert revision(folder, older) == found
    assert revision(folder, found) == found
    with pytest.raises(ValueError, match=f"{found}, the job expects teacher.revision {older}-0000"):
        revision(folder, f"{older}-0000")
    assert same_revision(older, found)
    assert not same_revision(found, older)
    assert not same_revision("0" * 16, found)
    commit = "4" * 40
    assert same_revision(commit, commit)
    now, then = TeacherRecord("clip", found, 512), TeacherRecord("clip", older, 512)
    assert now.matches(then)
    assert not now.matches(TeacherRecord("other", older, 512))


def test_weights_are_as_readable_as_their_config(folder: Path) -> None:
    (folder / "config.json").chmod(0o644)
    (folder / "model.safetensors").chmod(0o600)
    share(folder)
    assert (folder / "model.safetensors").stat().st_mode & 0o777 == 0o644
