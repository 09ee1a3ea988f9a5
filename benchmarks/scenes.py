"""How fast scenes come in, on one core: synthetic rooms, and a scan on disk into samples.

python benchmarks/scenes.py [folder of a scan in the style of 7-Scenes]

CPU seconds of this process, the best of some rounds: other work on the machine counts little.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

import torch

from poma3d.sample import SampleShape
from poma3d.scenes.config import SevenScenesConfig, ViewConfig
from poma3d.scenes.layouts.seven_scenes import SevenScenesReader
from poma3d.scenes.views import to_samples
from poma3d.synthetic.config import RoomsConfig
from poma3d.synthetic.rooms import RoomsReader

ROUNDS = 10
ROOMS = 16


def best_s(work: Callable[[], object], rounds: int) -> float:
    """Least CPU time of some runs."""
    times = []
    for _ in range(rounds):
        start = time.process_time()
        work()
        times.append(time.process_time() - start)
    return min(times)


def rooms(image_size: int, views: int) -> float:
    """Views per second, depth and colour and captions."""
    reader = RoomsReader(RoomsConfig(rooms=ROOMS, image_size=image_size, views=views))
    return ROOMS * views / best_s(lambda: [reader.read(i) for i in reader.scene_ids()], ROUNDS)


def scan(root: str) -> float:
    """Frames per second of a scan: decoded, filtered, 8 of every 20 chosen and kept at 224 x 224."""
    reader = SevenScenesReader(SevenScenesConfig(root))
    shape, config = SampleShape(8, 224, 224), ViewConfig(chunk_frames=20, candidate_step=1)
    scenes = [reader.read(scene_id) for scene_id in reader.scene_ids()]
    frames = sum(len(scene.frames) for scene in scenes)
    return frames / best_s(lambda: [to_samples(scene, shape, config) for scene in scenes], 3)


def main() -> None:
    """Print the table."""
    torch.set_num_threads(1)
    for image_size, views in ((64, 4), (96, 4), (96, 8), (224, 8)):
        print(f"rooms, {image_size:3d} px, {views} views a room: {rooms(image_size, views):6.0f} views/s")
    if len(sys.argv) > 1:
        print(f"{sys.argv[1]}: {scan(sys.argv[1]):.0f} frames/s")


if __name__ == "__main__":
    main()
