"""How high those stood whose questions a run has: files of poses differ in where they put their zero."""

from __future__ import annotations

import numpy as np

from jobs.finetune.questions import FOLDER
from plinth.data import manifest as manifests
from plinth.data.shards import RowGroupReader
from plinth.storage import Storage
from poma3d.sample import decode
from poma3d.seen.scenes import AGENT

UNIT = np.eye(3, 4, dtype=np.float32)
"""Of a question without a pose."""


def height_of(run: Storage, scene_id: str) -> float:
    """Metres: the median over the run's questions with a pose, about this scene if there are any; 0 where it
    keeps none. SQA3D's stand at half the height of each scan's mesh, those of rooms on the floor."""
    folders = {key.split("/")[1] for key, _ in run.list(FOLDER) if key.endswith(f"/{manifests.MANIFEST_KEY}")}
    everywhere: list[float] = []
    here: list[float] = []
    for folder in sorted(folders):
        storage = run.child(f"{FOLDER}/{folder}")
        reader = RowGroupReader(storage)
        for shard in manifests.load(storage).shards:
            if AGENT not in shard.columns:
                continue
            table = reader.read_shard(shard, ["scene_id", AGENT])
            agents = decode(table, [AGENT])[AGENT]
            for own, agent in zip(table["scene_id"].to_pylist(), agents, strict=True):
                if np.array_equal(agent, UNIT):
                    continue
                everywhere.append(float(-agent[2, 3]))
                if own == scene_id:
                    here.append(everywhere[-1])
    return float(np.median(here or everywhere or [0.0]))
