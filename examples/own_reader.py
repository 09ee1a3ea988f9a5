"""A reader of your own: RGB-D frames in .npz files become a data set, without a change to this repository.

    python examples/own_reader.py [FOLDER]

writes a small scan to FOLDER and ingests it. A job file of yours names the reader in the same way:

    kind: ingest
    output: rooms
    reader:
      kind: own_reader:NpzReader        # module:Class; the module is found on PYTHONPATH or in this folder
      options: {root: scans, step: 2}   # the fields of NpzConfig

`poma config JOB` checks it, `poma config JOB --help-keys` lists the options with their meaning.
"""

from __future__ import annotations

import sys
import tempfile
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import yaml

from jobs.cli import main as poma
from poma3d.locations import Location
from poma3d.scenes.frame import BadFrame, Frame, LazyFrames, SceneFrames

WALL_M = 2.0


@dataclass
class NpzConfig:
    """Scans as folders of .npz frames; the docstring under each field is its help text."""

    root: Location = "???"
    """The folder that holds a folder per scan. A Location is a path; ??? is a field that must be given."""
    step: int = 1
    """Read every n-th frame."""


class NpzReader:
    """Reads SCAN/NUMBER.npz with depth, intrinsics, pose and colour: `poma3d.scenes.frame.Reader`."""

    Config = NpzConfig

    def __init__(self, config: NpzConfig) -> None:
        if config.step < 1:
            raise ValueError(f"step is {config.step}, expected 1 or more")
        self.config = config

    def scene_ids(self) -> list[str]:
        """All scans, in a fixed order: the order of the data set."""
        root = Path(self.config.root)
        scans = sorted({path.parent.name for path in root.glob("*/*.npz")})
        if not scans:
            raise ValueError(f"{root}: no scan here: no file such as kitchen/000.npz")
        return scans

    def inputs(self, scene_id: str) -> list[Path]:
        """What a scan is read from: where it changes after the build, `poma ingest` says so."""
        return [Path(self.config.root) / scene_id]

    def read(self, scene_id: str) -> SceneFrames:
        """One scan; a frame is decoded when it is asked for."""
        folder = Path(self.config.root) / scene_id
        names = sorted(path.stem for path in folder.glob("*.npz"))[:: self.config.step]
        return SceneFrames(scene_id, "npz", LazyFrames(names, partial(load, folder)), captions=["a room"])


def load(folder: Path, name: str) -> Frame:
    """One frame. BadFrame makes it a row of rejects.csv and reading continues."""
    try:
        with np.load(folder / f"{name}.npz") as arrays:
            return Frame(
                frame_id=name,
                depth=arrays["depth"],  # uint16 [h, w] in millimetres, 0 = none
                intrinsics=arrays["intrinsics"],  # fx, fy, cx, cy
                pose=arrays["pose"],  # [3, 4] camera -> world, metres, z up
                picture=arrays["colour"],  # uint8 [h, w, 3]
                captions=["a wall"],
            )
    except (OSError, KeyError, ValueError) as error:
        raise BadFrame("unreadable frame", f"{name}.npz: {error}") from error


def write_scan(folder: Path, frames: int = 6, side: int = 64) -> None:
    """A camera that turns before a wall 2 m away, a little in every frame."""
    folder.mkdir(parents=True, exist_ok=True)
    centre = (side - 1) / 2
    across = (np.arange(side) - centre) / side  # x of the points at depth 1, column by column
    for number in range(frames):
        angle = number * np.pi / 36
        right, ahead = [np.cos(angle), np.sin(angle), 0], [-np.sin(angle), np.cos(angle), 0]
        depth_m = WALL_M / (across * right[1] + ahead[1])  # where each column's ray meets y = WALL_M
        np.savez(
            folder / f"{number:03d}.npz",
            depth=np.tile(np.rint(depth_m * 1000), (side, 1)).astype(np.uint16),
            intrinsics=np.array([side, side, centre, centre]),
            pose=np.stack([right, [0, 0, -1], ahead, [0, 0, 1.5]], axis=1, dtype=np.float64),
            colour=np.full((side, side, 3), 40 * number, np.uint8),
        )


def main(folder: Path) -> int:
    """Write a scan, ingest it, look into the data set; returns the exit code."""
    write_scan(folder / "scans" / "kitchen")
    job = {
        "kind": "ingest",
        "output": str(folder / "rooms"),
        "reader": {"kind": "own_reader:NpzReader", "options": {"root": str(folder / "scans")}},
        "shape": {"views": 4, "height": 32, "width": 32},
        "workers": 0,
    }
    path = folder / "ingest.yaml"
    path.write_text(yaml.safe_dump(job))
    return poma(["ingest", str(path)]) or poma(["shards", "inspect", str(folder / "rooms")])


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1] if len(sys.argv) > 1 else tempfile.mkdtemp())))
