"""A stage of your own on plinth, without poma3d: an autoencoder of random curves.

    python examples/own_stage.py [FOLDER]

writes a small data set to FOLDER and trains 20 steps in this process. Run again with more steps
(`python examples/own_stage.py FOLDER 40`) it resumes from the last checkpoint, in the same data order.
With `Workers(min=1, max=4)` in FitConfig the same stage trains on Ray, and the number of workers may change.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor, nn

from plinth.checkpoint.config import CheckpointConfig
from plinth.data import manifest
from plinth.data.config import DataConfig, ReaderKind, ShardOptions, SourceConfig
from plinth.data.manifest import Manifest
from plinth.data.shards import write_shard
from plinth.data.sources import OpenSource
from plinth.engine.config import OptimConfig
from plinth.engine.stage import Batch, Contrast, Encoded, ParamGroup
from plinth.launch.config import FitConfig, Workers
from plinth.launch.fit import fit
from plinth.storage import Storage
from plinth.train.outcome import StageEnd
from plinth.train.resolve import StageSpec, resolve

POINTS, ROWS = 32, 256


class Autoencoder(nn.Module):
    """Curves [n, 32] through 4 numbers and back; satisfies `plinth.engine.stage.Stage` by shape."""

    log_details = False

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(POINTS, 32), nn.GELU(), nn.Linear(32, 4))
        self.decoder = nn.Linear(4, POINTS)

    def prepare(self, batch: Batch) -> Batch:
        """Nothing is drawn on the host."""
        return batch

    def forward(self, batch: Batch, features_only: bool = False) -> Encoded:
        """The squared error of each curve: a loss local to a sample, so nothing is gathered."""
        valid, curves = batch["sample_valid"], batch["curve"]
        encoded = Encoded(counts={"error": valid.sum()}, weights={"error": 1.0})
        if not features_only:
            errors = (self.decoder(self.encoder(curves)).float() - curves).pow(2).mean(dim=1)
            encoded.sums["error"] = (errors * valid).sum()
        return encoded

    def contrast(self, features: dict[str, Tensor]) -> Contrast:
        """No loss over the global batch."""
        return Contrast(total=torch.zeros((), device=self.decoder.weight.device))

    def param_groups(self, weight_decay: float) -> list[ParamGroup]:
        """All parameters alike."""
        every = list(self.parameters())
        return [{"name": "all", "params": every, "weight_decay": weight_decay, "lr_scale": 1.0}]

    def ema_pairs(self) -> dict[str, str]:
        """No target copy."""
        return {}

    def ema_momentum(self, progress: float) -> float:
        """Not used without a target copy."""
        return 1.0

    def columns(self) -> Sequence[str]:
        """What `forward` reads."""
        return ("curve",)

    def fake_batch(self, n: int, seed: int = 0) -> Batch:
        """Random curves."""
        curves = torch.randn(n, POINTS, generator=torch.Generator().manual_seed(seed))
        return {"curve": curves, "sample_valid": torch.ones(n, dtype=torch.bool)}

    def pictures(self, batch: Batch) -> dict[str, np.ndarray]:
        """None."""
        return {}


def build(sources: Sequence[OpenSource]) -> Autoencoder:
    """The stage; it could look at the data sets first."""
    return Autoencoder()


def decode(table: pa.Table, columns: Sequence[str]) -> dict[str, np.ndarray]:
    """Arrays [rows, ...] of the columns that the stage reads."""
    return {name: np.array(table[name].to_pylist(), np.float32) for name in columns}


def write_data(storage: Storage) -> None:
    """Four shards of random waves; every row has a `sample_id` of its own."""
    rng, entries = np.random.default_rng(0), []
    for shard in range(4):
        phase, pace = rng.uniform(0, np.pi, (ROWS, 1)), rng.uniform(0.5, 2, (ROWS, 1))
        curves = np.sin(phase + pace * np.linspace(0, np.pi, POINTS)).astype(np.float32)
        ids = [f"wave-{shard}-{row}" for row in range(ROWS)]
        table = pa.table({"sample_id": ids, "curve": pa.array(list(curves), pa.list_(pa.float32()))})
        entries.append(write_shard(storage, f"{shard:03d}", table, ShardOptions(row_group_rows=32)))
    manifest.commit(storage, Manifest(entries, {"schema_version": 1, "teacher": None}))


def train(folder: Path, steps: int = 20, **changes: Any) -> StageEnd:
    """Train up to `steps`, from the last checkpoint where there is one."""
    data = Storage.from_uri(folder / "data")
    if not data.exists(manifest.MANIFEST_KEY):
        write_data(data)
    run = Storage.from_uri(folder / "run")
    spec = StageSpec(
        name="curves",
        storage=run.child("curves"),
        build_stage=build,
        decode=decode,
        data=DataConfig([SourceConfig(data.uri)], lanes=4, reader=ReaderKind.threads),
        global_batch_size=32,
        micro_batch_size=8,
        steps=steps,
        optim=OptimConfig(lr=1e-2, warmup_steps=2),
        checkpoint=CheckpointConfig(every_steps=10),
        scratch_dir=str(folder / "scratch"),
        **changes,
    )
    return fit(FitConfig(workers=Workers(0, 0)), [resolve(spec)], run)


if __name__ == "__main__":
    given = sys.argv[1:]
    home = Path(given[0] if given else tempfile.mkdtemp())
    print(home, train(home, int(given[1]) if len(given) > 1 else 20).summary)
