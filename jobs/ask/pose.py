"""Where somebody stands who asks with --pose.

A pose of the command line has no height, and files of poses differ in where they put their zero: whoever asks
stands as high as those whose questions the run was trained on.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from plinth.data import manifest as manifests
from plinth.data.shards import RowGroupReader
from plinth.errors import ConfigError
from plinth.storage import Storage
from poma3d.annotations.poses import upright_agent
from poma3d.sample import decode
from poma3d.seen.scenes import AGENT

FARTHEST_M = 1e4
"""Float32 tells places there apart by a millimetre."""
UNIT = np.eye(3, 4, dtype=np.float32)
"""Of a question without a pose."""


def check_pose(pose: Sequence[float] | None, is_looked_at: bool, who: str) -> None:
    """Refuse a pose that cannot be, or that nothing looks at.

    Args:
        pose: the values of --pose: x and y in metres, degrees counter-clockwise from x; None without any.
        who: would look at it, in words.

    Raises:
        ConfigError: saying what is wrong with it.
    """
    if pose is None:
        return
    if not all(map(math.isfinite, pose)):
        raise ConfigError("--pose has a number that is not finite.", "Give X Y DEGREES.")
    x, y, _ = pose
    if max(abs(x), abs(y)) > FARTHEST_M:
        raise ConfigError(
            f"--pose {x:g} {y:g} is farther than {FARTHEST_M:g} m from the scene's origin.",
            "Give metres in the scene.",
        )
    if not is_looked_at:
        raise ConfigError(
            f"--pose is given, and {who} looks at no pose.", "Say in --situation where you stand."
        )


def agent_at(pose: Sequence[float] | None, run: Storage, folder: str, scene_id: str) -> np.ndarray | None:
    """World -> whoever asks, float32 [3, 4]; None without a pose.

    Args:
        pose: that `check_pose` lets pass.
        folder: of the run, that holds the data sets of its questions.
    """
    if pose is None:
        return None
    x, y, degrees = pose
    place = np.array([x, y, height_of(run, folder, scene_id)])
    return upright_agent(place, math.radians(degrees))


def height_of(run: Storage, folder: str, scene_id: str) -> float:
    """Metres: the median over the run's questions with a pose, about this scene if there are any; 0 where it
    keeps none. SQA3D's stand at half the height of each scan's mesh, those of rooms on the floor."""
    names = {key.split("/")[1] for key, _ in run.list(folder) if key.endswith(f"/{manifests.MANIFEST_KEY}")}
    everywhere: list[float] = []
    here: list[float] = []
    for name in sorted(names):
        storage = run.child(f"{folder}/{name}")
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
