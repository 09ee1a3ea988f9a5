"""Slices of named flat tensors in safetensors files, through `torch.distributed.checkpoint`.

Every tensor is one-dimensional here, and a file holds at most one run [start, start + length) of each tensor.
So any set of ranks can read what another set wrote. The files are safetensors, with the offsets in their
header, rather than DCP's pickled metadata: reading a checkpoint never unpickles anything.

DCP is imported where it is used: it brings DTensor and sympy, a second of CPU in every worker, which the
first step of a run need not wait for.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from plinth.engine.zero_shards import TensorShard
from plinth.errors import CheckpointError

if TYPE_CHECKING:
    from torch.distributed.checkpoint.metadata import TensorStorageMetadata

SUFFIX = ".safetensors"
WRITTEN_NAME = "shard-00001-model-00001-of-00001.safetensors"
"""What DCP's writer calls the only file of a save without a process group."""


class Slice(NamedTuple):
    """[start, start + length) of the flattened tensor `key`, which has `numel` elements."""

    key: str
    numel: int
    start: int
    length: int


def write(shards: Iterable[TensorShard], path: Path) -> list[Slice]:
    """Write this rank's slices to one file, if there are any. It does not communicate, so it may run in a
    thread beside the training; `check_whole` checks the slices of all ranks afterwards.

    Returns:
        What the file holds.
    """
    held = [p for p in shards if p.tensor.numel()]
    if held:
        with _as_one_process():
            import torch.distributed.checkpoint as dcp

            from plinth.checkpoint.planners import SlicesSaved

            writer = dcp.HuggingFaceStorageWriter(str(path.parent), save_distributed=True)
            dcp.save({}, storage_writer=writer, planner=SlicesSaved(held), no_dist=True)
        (path.parent / WRITTEN_NAME).rename(path)
    return [Slice(p.key, p.numel, p.start, p.tensor.numel()) for p in held]


def check_whole(slices: Iterable[Slice]) -> None:
    """Refuse slices that do not cover every tensor exactly once.

    Raises:
        ValueError: naming a tensor with a hole or an overlap. It is a bug in this program.
    """
    by_key: dict[str, list[Slice]] = {}
    for part in slices:
        by_key.setdefault(part.key, []).append(part)
    for key, parts in by_key.items():
        end = 0
        for part in sorted(parts, key=lambda s: s.start):
            if part.start != end:
                raise ValueError(f"{key}: the ranks' slices leave a hole or overlap at element {end}")
            end += part.length
        if end != parts[0].numel:
            raise ValueError(f"{key}: the ranks' slices end at {end} of {parts[0].numel} elements")


def lengths(folder: Path) -> dict[str, int]:
    """Length of every tensor in the files of `folder`."""
    return {key: entry.size[0] for key, entry in _entries(folder).items()}


def read(shards: Iterable[TensorShard], folder: Path) -> None:
    """Fill the slices' tensors from the files of all ranks in `folder`. No process group is needed.

    Raises:
        CheckpointError: naming a tensor that is missing, shorter or longer, or has a hole.
    """
    wanted = [p for p in shards if p.tensor.numel()]
    entries = _entries(folder)
    for shard in wanted:
        entry = entries.get(shard.key)
        if entry is None:
            raise CheckpointError(f"The checkpoint has no {shard.key}.", "It belongs to another model.")
        written = sum(chunk.sizes[0] for chunk in entry.chunks)
        if not written == entry.size[0] == shard.numel:
            raise CheckpointError(
                f"{shard.key} has {written} elements in the checkpoint, expected {shard.numel}.",
                "It belongs to another model, or a file is missing.",
            )
    with _as_one_process():
        import torch.distributed.checkpoint as dcp

        from plinth.checkpoint.planners import SlicesLoaded

        reader = dcp.HuggingFaceStorageReader(str(folder))
        dcp.load({}, storage_reader=reader, planner=SlicesLoaded(wanted), no_dist=True)


def read_whole(folder: Path, keys: Iterable[str]) -> dict[str, Tensor]:
    """Flat tensors by key, on the CPU, in the type they were written in."""
    entries = _entries(folder)
    shards = []
    for key in keys:
        entry = entries[key]
        tensor = torch.empty(entry.size[0], dtype=entry.properties.dtype)
        shards.append(TensorShard(key, entry.size[0], 0, tensor))
    read(shards, folder)
    return {shard.key: shard.tensor for shard in shards}


@contextlib.contextmanager
def _as_one_process() -> Iterator[None]:
    """DCP without a process group: it need not warn of that, and raises what happened.

    Its own error is a BaseException, which `except Exception` around a checkpoint would miss: a full disk
    would end the training.
    """
    from torch.distributed.checkpoint.api import CheckpointException

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            yield
    except CheckpointException as error:
        cause, _ = next(iter(error.failures.values()))
        raise cause from None


def _entries(folder: Path) -> dict[str, TensorStorageMetadata]:
    from torch.distributed.checkpoint import HuggingFaceStorageReader
    from torch.distributed.checkpoint.metadata import TensorStorageMetadata

    metadata = HuggingFaceStorageReader(str(folder)).read_metadata()
    return {k: v for k, v in metadata.state_dict_metadata.items() if isinstance(v, TensorStorageMetadata)}
