"""The content as NumPy files, in the environment of the peers: sample i as a dict, and samples as a batch."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

ID = "sample_id"
DEPTH = "depth"
SMALL = ("depth_scale", "intrinsics", "pose", "view_valid", "image_embedding", "caption_embedding")
ZSTD_LEVEL = 6
"""Of the peers' formats, which have no codec of frames to choose."""


class Columns:
    """The folder that `benchmarks.streaming.content.write_columns` has written."""

    def __init__(self, folder: Path) -> None:
        self._ids = json.loads((folder / "ids.json").read_text())
        self._columns = {n: np.load(folder / f"{n}.npy", mmap_mode="r") for n in (DEPTH, *SMALL)}

    def __len__(self) -> int:
        return len(self._ids)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Scalars as arrays of one element: not every format has arrays without axes."""
        depth = self._columns[DEPTH]
        return {
            ID: self._ids[index],
            DEPTH: np.array(depth[index % len(depth)]),
            **{name: np.array(np.atleast_1d(self._columns[name][index])) for name in SMALL},
        }


def joined(samples: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """A batch of tensors, and the ids as a list. As int16: torch's processes cannot hand over uint16."""
    batch: dict[str, Any] = {ID: [str(sample[ID]) for sample in samples]}
    for name in (DEPTH, *SMALL):
        stacked = np.stack([sample[name] for sample in samples])
        batch[name] = torch.from_numpy(stacked.view(np.int16) if name == DEPTH else stacked)
    return batch
