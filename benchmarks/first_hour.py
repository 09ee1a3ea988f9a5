"""A new user's path: from scans of their own to a text query, and what `make demo` prints.

    python -m benchmarks.first_hour [--scan FOLDER] [--teacher FOLDER] [--steps 4] [--json FILE] [--demo]

The commands are those at the head of `jobs/configs/own_scans.yaml`, each a process as a user starts it, at
the job's 224 x 224 pixels; then Python loads the export and ranks views for a text. Without --scan two
recordings of procedural rooms are made; without --teacher a small one that knows next to nothing is trained:
the time is what is measured here, not what is learnt. Making them is not counted.

Printed are the commands needed, those that were refused, seconds of each, and how many of them are the
model's own: optimizer steps that count, from the run's ledger. All else (imports, reading, embedding, checks,
files) is what stands between a user and the result. --demo also runs a shortened `poma demo` and counts the
lines that it prints into a file; a terminal gets one line for each bar of progress instead.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path

from jobs.demo.teacher_config import TeacherTrainConfig
from plinth.observe.ledger import PRODUCTIVE, summarise
from plinth.storage import Storage
from tests.helpers.docs import first_hour

POMA = [sys.executable, "-m", "jobs.cli"]
ROOT = Path(__file__).parents[1]
ASK = "ask"
PIXELS, FRAMES, VIEWS = 224, 32, 8
TEACHER = TeacherTrainConfig(
    image_size=PIXELS, patch_size=16, image_width=64, image_layers=2, image_heads=2, text_width=32,
    text_layers=1, text_heads=2, text_tokens=48, embedding=32, steps=2, scenes_per_batch=2, warmup_steps=1,
    threads=1,
)  # fmt: skip
ASKING = """
import sys
from pathlib import Path
import poma3d.export
from tests.helpers.docs.recorded import recorded
encoder = poma3d.export.load(sys.argv[1])
views = encoder.from_frames(*recorded(Path(sys.argv[2]), int(sys.argv[3])))
print(encoder.rank(views, sys.argv[4]).views[0].tolist())
"""
"""Imports what a user would, so that its seconds are theirs."""
DEMO = (
    "rooms.reader.rooms.rooms=192", "images.reader.rooms.rooms=192", "held_out.reader.rooms.rooms=64",
    "rooms.scenes_per_shard=16", "images.scenes_per_shard=16", "held_out.scenes_per_shard=32",
    "teacher.steps=60", "pretrain.warmup.steps=90", "pretrain.warmup.warmup_steps=10",
    "pretrain.main.steps=40", "pretrain.main.warmup_steps=5", "pretrain.checkpoint.every_steps=30",
)  # fmt: skip
"""As many shards and checkpoints as in the whole one, of less."""


@dataclass
class Walk:
    """What was measured."""

    seconds: dict[str, float] = field(default_factory=dict)
    """Of each command, by name, and of the Python that asks."""
    refused: list[str] = field(default_factory=list)
    model_s: float = 0.0
    """In optimizer steps that count."""
    load: float = field(default_factory=lambda: os.getloadavg()[0])
    """Processes that wanted a core in the minute before: above the number of cores, read no seconds."""
    demo_lines: int | None = None
    """Of a shortened demo; None where it was not run."""

    @property
    def outside_s(self) -> float:
        """Seconds that are not the model's own work."""
        return sum(self.seconds.values()) - self.model_s


def main() -> int:
    """Measure, print, and write the JSON file if asked."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.first_hour", description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument(
        "--scan", type=Path, help="a folder of scans in the layout of 7-Scenes, or one of them"
    )
    parser.add_argument("--teacher", type=Path, help="a folder with a teacher for 224 x 224 pixels")
    parser.add_argument(
        "--steps", type=int, default=4, help="optimizer steps of the run (default %(default)s)"
    )
    parser.add_argument("--json", type=Path, help="also write the numbers to a file")
    parser.add_argument("--demo", action="store_true", help="also count the lines of a short demo: minutes")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = walk(Path(folder), arguments.scan, arguments.teacher, arguments.steps)
        if arguments.demo and not found.refused:
            found.demo_lines = demo_lines(Path(folder))
    print(table(found))
    if arguments.json is not None:
        numbers = {**asdict(found), "commands": len(found.seconds), "outside_s": found.outside_s}
        arguments.json.write_text(json.dumps(numbers, indent=1) + "\n")
    return 1 if found.refused else 0


def walk(folder: Path, scan: Path | None, teacher: Path | None, steps: int) -> Walk:
    """Run the commands in a folder, one after the other, until one is refused."""
    scans = scan.absolute() if scan else first_hour.make_scans(folder / "recordings", PIXELS, FRAMES)
    tower = teacher.absolute() if teacher else first_hour.make_teacher(folder, TEACHER)
    more = {first_hour.PRETRAIN: [f"main.steps={steps}", f"main.warmup_steps={max(1, steps // 5)}"]}
    found = Walk()
    for name, words in first_hour.commands(scans, tower, more).items():
        if not _timed(found, name, [*POMA, *words], folder):
            return found
    one = min(path.parent for path in scans.rglob("*.depth.png"))
    encoder = str(folder / first_hour.ENCODER)
    words = [encoder, str(one), str(VIEWS), first_hour.QUERY]
    _timed(found, ASK, [sys.executable, "-c", ASKING, *words], folder)
    found.model_s = summarise(Storage.from_uri(folder / first_hour.RUN)).seconds[PRODUCTIVE]
    return found


def _timed(found: Walk, name: str, words: list[str], folder: Path) -> bool:
    """Run a command; whether it was not refused."""
    print(f"{name} ...", file=sys.stderr, flush=True)
    began = time.monotonic()
    ended = subprocess.run(words, cwd=folder, env=environment(), capture_output=True, text=True, check=False)
    found.seconds[name] = time.monotonic() - began
    if ended.returncode:
        found.refused.append(name)
        print(ended.stdout[-2000:] + ended.stderr[-2000:], file=sys.stderr)
    return not ended.returncode


def demo_lines(folder: Path) -> int:
    """Lines that a shortened demo prints."""
    ended = subprocess.run(
        [*POMA, "demo", f"folder={folder / 'demo'}", *DEMO], cwd=folder, env=environment(),
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=True,
    )  # fmt: skip
    return len(ended.stdout.splitlines())


def environment() -> dict[str, str]:
    """Variables of a process in another folder that finds this checkout."""
    paths = [str(ROOT), str(ROOT / "platform"), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}


def table(found: Walk) -> str:
    """The numbers as lines."""
    lines = [f"{name:<28} {seconds:8.1f} s" for name, seconds in found.seconds.items()]
    lines += [
        f"{'load of the machine before':<28} {found.load:8.1f} for {os.cpu_count()} cores",
        f"{'commands':<28} {len(found.seconds):8d}",
        f"{'refused':<28} {', '.join(found.refused) or 'none':>8}",
        f"{'all together':<28} {sum(found.seconds.values()):8.1f} s",
        f"{'optimizer steps':<28} {found.model_s:8.1f} s",
        f"{'outside the model':<28} {found.outside_s:8.1f} s",
    ]
    if found.demo_lines is not None:
        lines.append(f"{'lines of a short demo':<28} {found.demo_lines:8d}")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
