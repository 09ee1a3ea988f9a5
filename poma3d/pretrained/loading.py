"""The one way by which weights from elsewhere get into a model: every tensor of it comes from the file.

Loaders differ in what they do about a tensor that is missing, has another shape, or that the model does not
have: transformers draws the missing ones at random and logs a table, huggingface_hub's mixin says nothing.
Here each of them is an error, unless the job names the tensor. Weights that are stored once and used twice
(tied), and buffers that are computed, are not missing. The precision is stated, never the file's.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import torch
from torch import nn

from poma3d.pretrained.folder import UnusableModel, listed

WRAPPERS = {
    "module.": "saved from DataParallel or DDP: save model.module instead",
    "_orig_mod.": "saved from torch.compile: save the model before it is compiled",
}
"""Prefix of the names of a model that was saved with its wrapper -> what happened."""
SHARD = re.compile(r"-\d{5}-of-\d{5}\.safetensors$")
SEED = 0
"""Of the draw of tensors that a job allows to be missing: all workers draw the same."""


@dataclass
class Mismatch:
    """How the tensors of a file differ from those of the model."""

    missing: list[str] = field(default_factory=list)
    unexpected: list[str] = field(default_factory=list)
    reshaped: dict[str, tuple[tuple[int, ...], tuple[int, ...]]] = field(default_factory=dict)
    """Name -> shape in the file, and in the model."""

    def without(self, allowed: Sequence[str]) -> Mismatch:
        """What no pattern allows."""

        def kept(name: str) -> bool:
            return not any(fnmatchcase(name, pattern) for pattern in allowed)

        return Mismatch(
            sorted(filter(kept, self.missing)),
            sorted(filter(kept, self.unexpected)),
            {name: shapes for name, shapes in sorted(self.reshaped.items()) if kept(name)},
        )

    def __bool__(self) -> bool:
        return bool(self.missing or self.unexpected or self.reshaped)

    def __str__(self) -> str:
        shapes = [f"{n} {list(a)}, not {list(b)}" for n, (a, b) in self.reshaped.items()]
        parts = [
            f"{len(names)} {what} ({listed(names)})"
            for what, names in (
                ("missing", self.missing), ("unexpected", self.unexpected), ("of another shape", shapes),
            )
            if names
        ]  # fmt: skip
        return ", ".join(parts)


def load_transformers(
    model_class: Any,
    source: str,
    section: str,
    allowed: Sequence[str],
    dtype: torch.dtype = torch.float32,
    elsewhere: Sequence[str] = (),
    **where: Any,
) -> nn.Module:
    """A model of transformers from safetensors.

    Args:
        model_class: with its `from_pretrained`.
        source: folder or hub id.
        section: of the job that names the model, for errors; empty where none does.
        allowed: patterns (`*` for anything) of tensors that may be missing, unexpected or of another shape.
        dtype: of the parameters.
        elsewhere: patterns of tensors in the file that others read.
        where: revision, trust_remote_code.

    Raises:
        UnusableModel: it cannot be loaded, or not whole; in one line, with the likely cause.
    """
    with reported(source, section), seeded():
        model, info = model_class.from_pretrained(
            source, use_safetensors=True, dtype=dtype, output_loading_info=True,
            ignore_mismatched_sizes=True, **where,
        )  # fmt: skip
    unexpected = [n for n in info["unexpected_keys"] if not any(fnmatchcase(n, p) for p in elsewhere)]
    reshaped = {name: (tuple(found), tuple(wanted)) for name, found, wanted in info["mismatched_keys"]}
    found = Mismatch(list(info["missing_keys"]), unexpected, reshaped)
    refuse(found, allowed, source, section, type(model).__name__)
    loaded: nn.Module = model
    return loaded


def load_module(
    module: nn.Module, files: Sequence[Path], source: str, section: str = "", allowed: Sequence[str] = ()
) -> None:
    """Fill a module of any kind from safetensors files that have its names; its dtypes stay.

    Args:
        files: that together hold the tensors.
        source, section, allowed: as for `load_transformers`.

    Raises:
        UnusableModel: they cannot be read, or do not hold the module's tensors.
    """
    from safetensors.torch import load_file

    with reported(source, section):
        tensors = {name: tensor for file in files for name, tensor in load_file(file).items()}
    own = module.state_dict(keep_vars=True)
    filled = {id(own[name]) for name in tensors if name in own}  # a tied tensor has two names
    found = Mismatch(
        [name for name, tensor in own.items() if id(tensor) not in filled],
        [name for name in tensors if name not in own],
        {
            name: (tuple(tensor.shape), tuple(own[name].shape))
            for name, tensor in tensors.items()
            if name in own and tensor.shape != own[name].shape
        },
    )
    refuse(found, allowed, source, section, type(module).__name__)
    fitting = {n: t for n, t in tensors.items() if n in own and n not in found.reshaped}
    module.load_state_dict(fitting, strict=False)


def refuse(found: Mismatch, allowed: Sequence[str], source: str, section: str, model: str) -> None:
    """Refuse weights that are not those of a model; see `load_transformers` for the arguments.

    Raises:
        UnusableModel: they differ by more than is allowed.
    """
    left = found.without(allowed)
    if left:
        hint = f". What may differ is named in {section}.allow_tensors" if section else ""
        where = _named(source, section)
        raise UnusableModel(
            f"{where} does not hold the tensors of {model}: {left}; {_cause(left, source)}{hint}"
        )


def _named(source: str, section: str) -> str:
    return f"{section}.source {source}" if section else source


def _cause(found: Mismatch, source: str) -> str:
    """Why tensors differ, as far as their names tell."""
    for prefix, reason in WRAPPERS.items():  # first: transformers renames other models' tensors as it loads
        if 2 * sum(name.startswith(prefix) for name in found.unexpected) > len(found.unexpected):
            return f"the names begin with '{prefix}', {reason}"
    if prefix := _prefix(found.unexpected, found.missing):
        return f"the names begin with '{prefix}': save the model itself, not what it is a part of"
    if found.missing and not (found.unexpected or found.reshaped):
        shards = [path for path in Path(source).glob("*.safetensors") if SHARD.search(path.name)]
        part = "a shard" if shards else "a part"
        return f"{part} of the weights is missing, or a head was not saved: copy or save the model again"
    return "the weights are of another architecture than config.json, or of another class of model"


def _prefix(unexpected: Sequence[str], missing: Sequence[str]) -> str:
    """What stands before missing names in most of the unexpected ones; empty where nothing does."""
    wanted = set(missing)
    counts = Counter(
        name[:dot]
        for name in unexpected
        for dot in (found.end() for found in re.finditer(r"\.", name))
        if name[dot:] in wanted
    )
    prefix, count = next(iter(counts.most_common(1)), ("", 0))
    return prefix if 2 * count > len(unexpected) else ""


@contextmanager
def reported(source: str, section: str) -> Iterator[None]:
    """Whatever a loader raises is an `UnusableModel` in one line."""
    from safetensors import SafetensorError

    try:
        yield
    except UnusableModel:
        raise
    except (
        OSError, ValueError, TypeError, KeyError, AttributeError, ImportError, RuntimeError, SafetensorError,
    ) as error:  # fmt: skip
        reason = (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
        raise UnusableModel(f"{_named(source, section)} cannot be loaded: {reason}") from error


@contextmanager
def seeded() -> Iterator[None]:
    """What a loader draws is the same in every process, and moves no generator of the caller's."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        yield
