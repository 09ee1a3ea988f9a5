"""Writes the golden files anew: `python -m tests.golden.make`.

Do it only when a format changes on purpose, and say so in CHANGELOG.md: files of users are in the old one.

    dataset/      rooms, two views of 32 x 32 each, with the embeddings of a tiny teacher
    checkpoint/   the main stage of a tiny run on them: weights, target copy, moments, cursor
    encoder/      its export
    handed-on/    the same for transformers, without its card
    expected.json what a reader must find in them
"""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoModel

import poma3d.auto
from jobs.cli import main as poma
from jobs.common.datasets import open_dataset
from plinth.checkpoint import save_load, store
from plinth.storage import Storage, StorageOptions
from poma3d import export
from poma3d.export.arrays import points_of_depth
from tests.helpers.tiny_jobs import make_data, pretrain_job, write

FOLDER = Path(__file__).parent
EXPECTED = FOLDER / "expected.json"


def main() -> None:
    """Train the tiny run and keep its files."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_data(folder)
        job = pretrain_job(folder, warmup=None, checkpoint={"every_steps": 4, "keep_last": 1})
        assert poma(["pretrain", write(folder / "job.yaml", job)]) == 0
        run = folder / "runs" / "run"
        wanted = {"kind": "export", "run": str(run), "output": str(folder / "encoder")}
        assert poma(["export", write(folder / "export.yaml", wanted)]) == 0
        kept = {
            "dataset": folder / "rooms",
            "checkpoint": run / "main" / "checkpoints",
            "encoder": folder / "encoder",
        }
        for target, source in kept.items():
            shutil.rmtree(FOLDER / target, ignore_errors=True)
            shutil.copytree(source, FOLDER / target)
        config = FOLDER / "encoder" / export.CONFIG
        config.write_text(config.read_text().replace(name, "golden"))  # a temporary folder means nothing
    hand_on(FOLDER)
    EXPECTED.write_text(json.dumps(found(FOLDER), indent=1) + "\n")


def hand_on(folder: Path) -> None:
    """Write the golden encoder for transformers."""
    poma3d.auto.save(export.load(folder / "encoder"), folder / "handed-on")


def found(folder: Path) -> dict[str, Any]:
    """What today's code reads in the golden files; numbers as hashes where they must be the same bits."""
    data = open_dataset(str(folder / "dataset"), StorageOptions())
    samples = data.samples()
    checkpoints = Storage.from_uri(folder / "checkpoint")
    with tempfile.TemporaryDirectory() as scratch:
        weights = save_load.read_full(checkpoints, Path(scratch))
    encoder = export.load(folder / "encoder")
    first = samples[0]
    ready = first.depth[None], first.depth_scale, first.intrinsics[None], first.pose[None]
    features = encoder.from_depth(*ready).features[0]
    with torch.inference_mode():
        handed_on = AutoModel.from_pretrained(folder / "handed-on")(points_of_depth(*ready)).features[0]
    return {
        "dataset": {
            "format": data.manifest.format_version,
            "ids": [sample.sample_id for sample in samples],
            "arrays": _digest(
                *(a for s in samples for a in (s.depth, s.intrinsics, s.pose, s.image_embedding))
            ),
            "captions": [sample.view_captions for sample in samples[:1]],
        },
        "checkpoint": {
            "step": store.latest(checkpoints),
            "cursor": store.read_state(checkpoints)["notes"]["cursor"],
            "tensors": len(weights),
            "weights": _digest(*(weights[name].numpy() for name in sorted(weights))),
        },
        "encoder": _rounded(features),
        "handed_on": _rounded(handed_on),
    }


def _rounded(features: torch.Tensor) -> list[list[float]]:
    return [[round(float(value), 3) for value in view] for view in features]


def _digest(*arrays: Any) -> str:
    content = hashlib.sha256()
    for array in arrays:
        content.update(np.ascontiguousarray(array).tobytes())
    return content.hexdigest()


if __name__ == "__main__":
    main()
