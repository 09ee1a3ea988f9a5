"""Tensors in the files of a checkpoint."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from plinth.checkpoint import tensor_files
from plinth.engine.zero_shards import TensorShard


def shards() -> list[TensorShard]:
    return [TensorShard("weight", 4, 0, torch.arange(4.0))]


def test_file_that_cannot_be_written_is_an_oserror(tmp_path: Path) -> None:
    """As a full disk is: a BaseException, which is what DCP raises, would end the training."""
    (tmp_path / "taken").write_text("a file where the folder should be")
    with pytest.raises(OSError, match="taken"):
        tensor_files.write(shards(), tmp_path / "taken" / "rank0.safetensors")


def test_damaged_file_is_an_ordinary_error(tmp_path: Path) -> None:
    path = tmp_path / "rank0.safetensors"
    tensor_files.write(shards(), path)
    path.write_bytes(path.read_bytes()[:-8])
    with pytest.raises(Exception, match=r"\w"):
        tensor_files.read(shards(), tmp_path)


def test_slices_come_back(tmp_path: Path) -> None:
    tensor_files.write(shards(), tmp_path / "rank0.safetensors")
    found = [TensorShard("weight", 4, 1, torch.zeros(2))]
    tensor_files.read(found, tmp_path)
    assert found[0].tensor.tolist() == [1.0, 2.0]
