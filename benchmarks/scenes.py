"""How fast scenes come in, on one core: synthetic rooms, and a scan on disk into samples.

python -m benchmarks.scenes [folder of a scan in the style of 7-Scenes, with camera-intrinsics.txt]

Without a folder it writes a small synthetic scan. CPU seconds of this process. A scan is read with the check
of its views (`poma3d.scenes.disagreement`) and without it, its files are decoded and nothing else, which is
the ceiling, and the check runs alone; they take turns, so that other work on the machine meets all of them.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from statistics import median

import numpy as np
import torch
from PIL import Image

from poma3d.sample import SampleShape
from poma3d.scenes.config import SevenScenesConfig, ViewConfig
from poma3d.scenes.disagreement import Disagreement, Pairs, examine
from poma3d.scenes.frame import SceneFrames
from poma3d.scenes.layouts.seven_scenes import SevenScenesReader
from poma3d.scenes.views import to_samples
from poma3d.synthetic.config import RoomsConfig
from poma3d.synthetic.rooms import RoomsReader
from tests.helpers.scans import box_room, write_seven_scenes

ROUNDS = 9
ROOMS = 16
VIEWS, PART = 8, 20
"""8 views are chosen of every 20 frames."""
SYNTHETIC_VIEWS = 40


def seconds(works: Mapping[str, Callable[[], object]], rounds: int = ROUNDS) -> dict[str, float]:
    """Median CPU time of each, in turns."""
    times: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(rounds):
        for name, work in works.items():
            start = time.process_time()
            work()
            times[name].append(time.process_time() - start)
    return {name: median(of_one) for name, of_one in times.items()}


def rooms(image_size: int, views: int) -> float:
    """Views per second, depth and colour and captions."""
    reader = RoomsReader(RoomsConfig(rooms=ROOMS, image_size=image_size, views=views))
    took = seconds({"rooms": lambda: [reader.read(i) for i in reader.scene_ids()]})
    return ROOMS * views / took["rooms"]


def ingest(root: Path, check: bool) -> Disagreement | None:
    """A scan opened, decoded, filtered, 8 of every 20 frames chosen and kept at 224 x 224; views compared."""
    reader = SevenScenesReader(SevenScenesConfig(str(root)))
    [scene_id] = reader.scene_ids()
    scene = reader.read(scene_id)
    pairs = Pairs(scene, len(scene.frames)) if check else None
    config = ViewConfig(chunk_frames=PART, candidate_step=1)
    to_samples(scene, SampleShape(VIEWS, 224, 224), config, pairs)
    return examine(pairs, config.max_disagreement_mm) if pairs else None


def check_alone(scene: SceneFrames) -> Disagreement:
    """What the check adds to a scan whose frames are decoded anyway."""
    pairs = Pairs(scene, len(scene.frames))
    for frame in scene.frames:
        pairs.add(frame)
    return examine(pairs, ViewConfig().max_disagreement_mm)


def decode(root: Path) -> None:
    """What no reader can do without: every depth map, and as many pictures as are kept."""
    for path in sorted(root.glob("*.depth.png")):
        np.asarray(Image.open(path))
    for i, path in enumerate(sorted(root.glob("*.color.*"))):
        if i % PART < VIEWS:
            np.asarray(Image.open(path))


def scan(root: Path) -> None:
    """Print frames per second of a scan, and the share of the check."""
    reader = SevenScenesReader(SevenScenesConfig(str(root)))
    decoded = reader.read(reader.scene_ids()[0])
    decoded = replace(decoded, frames=list(decoded.frames))
    took = seconds(
        {
            "with the check of its views": partial(ingest, root, check=True),
            "without": partial(ingest, root, check=False),
            "its files decoded": partial(decode, root),
            "the check alone": partial(check_alone, decoded),
        }
    )
    for name, took_s in took.items():
        print(f"{root.name}, {name}: {len(decoded.frames) / took_s:.0f} frames/s")
    print(f"the check is {took['the check alone'] / took['without']:.1%}: {check_alone(decoded)}")


def main() -> None:
    """Print the table."""
    torch.set_num_threads(1)
    for image_size, views in ((64, 4), (96, 4), (96, 8), (224, 8)):
        print(f"rooms, {image_size:3d} px, {views} views a room: {rooms(image_size, views):6.0f} views/s")
    if len(sys.argv) > 1:
        scan(Path(sys.argv[1]))
        return
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "scan"
        write_seven_scenes(root, box_room(SYNTHETIC_VIEWS), np.eye(3))
        scan(root)


if __name__ == "__main__":
    main()
