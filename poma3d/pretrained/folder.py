"""The folder of a saved model: whether it is whole, and its revision.

A revision is the commit of a hub id, or two hashes of a local folder's files:

    3f0c8a5be1d27746            config.json, *.safetensors, *.py
    3f0c8a5be1d27746-9b1e07c4   the same, and what prepares its inputs: tokenizer, preprocessor, chat template

Data sets of older builds know the first hash alone. They stay valid (`same_revision`): their weights are the
same, and what prepared the inputs was not recorded.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

CONFIG, OPEN_CLIP = "config.json", "open_clip_config.json"
SAFETENSORS, INDEX = "model.safetensors", "model.safetensors.index.json"
WEIGHTS_LENGTH, INPUTS_LENGTH, BETWEEN = 16, 8, "-"
"""Hexadecimal digits of the two halves of a revision, and what stands between them."""
INPUT_FILES = (
    "*processor_config.json", "*token*.json", "vocab.*", "merges.txt", "*.model", "*.tiktoken", "tekken.json",
    "chat_template.*", "generation_config.json",
)  # fmt: skip
"""Files that decide what a model is given for a picture or a text, or how it draws its answer."""
TOKENIZER, PREPROCESSOR = "tokenizer", "preprocessor"
PARTS = {
    TOKENIZER: ("tokenizer.json", "vocab.json", "vocab.txt", "*.model", "*.tiktoken", "tekken.json"),
    PREPROCESSOR: ("preprocessor_config.json", "processor_config.json"),
}
"""Part of a model -> files of which one must be there. transformers makes up a tokenizer of two words for a
folder without one (its issue 30524)."""
ON_HUB = {
    TOKENIZER: (
        "tokenizer.json", "vocab.json", "vocab.txt", "tekken.json", "tokenizer.model", "spiece.model",
    ),
    PREPROCESSOR: PARTS[PREPROCESSOR],
}  # fmt: skip
"""The same for a hub, which is asked for one name at a time."""
LFS = b"version https://git-lfs.github.com/"
"""How a file begins that Git left in the place of a large one."""
LENGTH_BYTES = 8
"""A safetensors file begins with the length of its header, little-endian."""
NAMED = 3
"""Names that an error lists."""


class UnusableModel(ValueError):
    """A model that must not be used, with the reason and what to do."""


def weights_revision(
    source: str, revision: str | None, section: str = "lifter", parts: Sequence[str] = ()
) -> str:
    """The revision of a local folder, or the pinned commit of a hub id. Loads nothing.

    Args:
        revision: commit of a hub id, or the expected revision of a folder (any when None).
        section: of the job that names the model, for errors.
        parts: of `PARTS`, that the model cannot do without.

    Raises:
        UnusableModel: nothing to load, a folder that is not whole, other weights than expected, or a hub id
            that is not pinned.
    """
    if not source:
        raise UnusableModel(f"{section}.source is empty: give a folder with safetensors weights or a hub id")
    if not Path(source).is_dir():
        if not revision:
            raise UnusableModel(
                f"{section}.source {source} is no folder here; pin a hub id by its commit in "
                f"{section}.revision"
            )
        return revision
    return folder_revision(Path(source), revision, section, parts)


def folder_revision(folder: Path, expected: str | None, section: str, parts: Sequence[str]) -> str:
    """The revision of a local folder.

    Raises:
        UnusableModel: the folder is not whole, or has another revision than `expected`; says what to do.
    """
    try:
        _check(folder, parts)
    except ValueError as error:
        raise UnusableModel(f"{section}.source {folder}: {error}") from None
    found = weight_hash(folder)
    if inputs := _hash_of(_found(folder, INPUT_FILES))[:INPUTS_LENGTH]:
        found += BETWEEN + inputs
    if expected and not same_revision(expected, found):
        raise UnusableModel(
            f"{section}.source {folder} has weights {found}, the job expects {section}.revision "
            f"{expected}: point it at those weights"
        )
    return found


def weight_hash(folder: Path) -> str:
    """Hash of a folder's config.json, safetensors weights and code: the first half of its revision."""
    files = [folder / CONFIG, *_found(folder, ["*.safetensors"]), *_found(folder, ["*.py"])]
    return _hash_of(files)[:WEIGHTS_LENGTH]


def same_revision(stored: str, found: str) -> bool:
    """Whether what is stored as made by `stored` may be used with `found`.

    A revision without the second half, of a data set from before there was one or in a job, stands for all
    folders with these weights.
    """
    return stored == found or (BETWEEN not in stored and found.partition(BETWEEN)[0] == stored)


def hub_commit(source: str, revision: str | None) -> str | None:
    """What `from_pretrained` is told as its revision: the commit of a hub id, None for a folder."""
    return None if Path(source).is_dir() else revision


def check_parts(source: str, commit: str | None, section: str, parts: Sequence[str]) -> None:
    """Refuse a hub id that lacks a part; `folder_revision` does so for folders.

    Raises:
        UnusableModel: naming the part.
    """
    from transformers.utils import has_file

    for part in parts:
        if not any(has_file(source, name, revision=commit) for name in ON_HUB[part]):
            raise UnusableModel(f"{section}.source {source}: {_lacks(part)}")


def _check(folder: Path, parts: Sequence[str]) -> None:
    """Raise ValueError for a folder that cannot be loaded whole."""
    config = folder / CONFIG
    if not config.is_file():
        if (folder / OPEN_CLIP).is_file():
            raise ValueError(
                f"a model of open_clip ({OPEN_CLIP}), which has other names of tensors: give the folder or "
                f"hub id of its transformers form, with {CONFIG} and {SAFETENSORS}"
            )
        raise ValueError(f"it has no {CONFIG}: give the folder of a saved model")
    weights = _found(folder, ["*.safetensors"])
    for path in [config, *weights, *_found(folder, INPUT_FILES)]:
        with path.open("rb") as file:
            if file.read(len(LFS)) == LFS:
                raise ValueError(f"{path.name} is a Git LFS pointer, not the file: run `git lfs pull` there")
    if not isinstance(_json(config), dict):
        raise ValueError(f"{CONFIG} is no model's configuration")
    if not weights:
        raise ValueError(
            "it has no *.safetensors: pickled weights are not loaded. Add them to the same folder, beside "
            "its tokenizer and preprocessor: "
            f"AutoModel.from_pretrained('{folder}').save_pretrained('{folder}')"
        )
    for path in weights:
        _check_whole(path)
    if (folder / INDEX).is_file():
        _check_shards(folder)
    for part in parts:
        if not _found(folder, PARTS[part]):
            raise ValueError(_lacks(part))


def _check_whole(path: Path) -> None:
    """Raise ValueError where a safetensors file is not as long as its header says."""
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(LENGTH_BYTES), "little")
        try:
            header = json.loads(file.read(length)) if length <= size else None
            ends = (
                [int(v["data_offsets"][1]) for k, v in header.items() if k != "__metadata__"]
                if header
                else None
            )
        except (ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError):
            ends = None
    if ends is None or LENGTH_BYTES + length + max(ends, default=0) != size:
        raise ValueError(
            f"{path.name} is damaged, or half of a file ({size} bytes): copy or download it again"
        )


def _check_shards(folder: Path) -> None:
    """Raise ValueError where a file is missing that the weights' index names."""
    index = _json(folder / INDEX)
    try:
        missing = sorted({name for name in index["weight_map"].values() if not (folder / name).is_file()})
    except (TypeError, KeyError, AttributeError):
        raise ValueError(f"{INDEX} is no index of weights: copy or download it again") from None
    if missing:
        raise ValueError(f"{listed(missing)} of {INDEX} is missing: copy or download it again")


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path.name} is not JSON ({error}): copy or download it again") from None


def _lacks(part: str) -> str:
    names = PARTS[part]
    return (
        f"it has no {part} ({', '.join(names[:-1])} or {names[-1]}), and nothing is made up in its place: "
        f"copy the files beside the weights, or save_pretrained the {part} there"
    )


def share(folder: Path) -> None:
    """Make weights as readable as the config.json beside them: safetensors writes for the owner alone."""
    for path in _found(folder, ["*.safetensors"]):
        path.chmod((folder / CONFIG).stat().st_mode)


def listed(names: Sequence[str]) -> str:
    """The first few of several names, and how many more there are."""
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(names[:NAMED]) + more


def _found(folder: Path, patterns: Sequence[str]) -> list[Path]:
    """Files of a folder that match one of some patterns, sorted, each once."""
    return sorted({path for pattern in patterns for path in folder.glob(pattern) if path.is_file()})


def _hash_of(files: Sequence[Path]) -> str:
    """Hash of names and contents; nothing for no files."""
    digest = hashlib.sha256()
    for path in files:
        digest.update(path.name.encode() + b"\0")
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest() if files else ""
