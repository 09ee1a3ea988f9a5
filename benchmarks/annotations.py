"""What `poma annotations check` and `poma score` take for a split of SQA3D's size, beside parsing its JSON.

    python -m benchmarks.annotations [--rows 30000] [--rounds 3]

The split is made up: SQA3D's two files with a situation, two alternatives, a pose and an answer per row, in
other orders; ten predicted answers a row. Each command is a process of its own, started from nothing. Printed
are the least CPU time and wall time over the rounds, and the greatest resident memory.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import random
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

WORDS = (
    "bed", "brown", "chair", "desk", "door", "floor", "front", "in", "is", "lamp", "left", "many", "near",
    "on", "right", "the", "three", "two", "window",
)  # fmt: skip
SCENES = 518
FIRST_ID = 220_602_000_000
BARE = "import json, sys; [json.load(open(path)) for path in sys.argv[1:]]"


@dataclass(frozen=True)
class Cost:
    """Of one process."""

    cpu_s: float
    wall_s: float
    memory_mib: float


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=30_000)
    parser.add_argument("--rounds", type=int, default=3)
    a = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        files, vocabulary, predictions = write(Path(name), a.rows, random.Random(0))
        poma = [sys.executable, "-m", "jobs.cli"]
        known = ["--vocabulary", str(vocabulary)]
        commands = {
            "json.load of the two files": [sys.executable, "-c", BARE, *files],
            "poma annotations check sqa3d": [*poma, "annotations", "check", "sqa3d", *files, *known],
            "poma score sqa3d": [
                *poma, "score", "sqa3d", "--annotations", *files, "--predictions", str(predictions),
                *known, "--unknown-answers", "wrong",
            ],
        }  # fmt: skip
        for what, command in commands.items():
            costs = [cost(command) for _ in range(a.rounds)]
            cpu_s, wall_s = min(each.cpu_s for each in costs), min(each.wall_s for each in costs)
            memory = max(each.memory_mib for each in costs)
            print(f"{what}, {a.rows} rows: {cpu_s:.2f} CPU s, {wall_s:.2f} s, {memory:.0f} MiB")


def cost(command: Sequence[str]) -> Cost:
    """Run a command without its output.

    Raises:
        SystemExit: it failed.
    """
    begun = time.perf_counter()
    quiet = [(os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0)]
    process = os.posix_spawn(command[0], command, os.environ, file_actions=quiet)
    _, status, usage = os.wait4(process, 0)
    if status:
        raise SystemExit(f"{' '.join(command)}: exit code {os.waitstatus_to_exitcode(status)}")
    return Cost(usage.ru_utime + usage.ru_stime, time.perf_counter() - begun, usage.ru_maxrss / 1024)


def write(folder: Path, rows: int, rng: random.Random) -> tuple[list[str], Path, Path]:
    """The two files of the split, a vocabulary that lacks one answer, predictions."""

    def text(words: int) -> str:
        return " ".join(rng.choices(WORDS, k=words)).capitalize()

    questions = [
        {
            "scene_id": scene(number),
            "situation": f"{text(14)}.",
            "alternative_situation": [f"{text(14)}.", f"{text(14)}."],
            "question": f"What {text(8)}?",
            "question_id": FIRST_ID + number,
        }
        for number in range(rows)
    ]
    answers = list(annotations(rows, rng))
    rng.shuffle(answers)
    known = [*WORDS[1:], "u"]
    pair = [{answer: n for n, answer in enumerate(known)}, {str(n): answer for n, answer in enumerate(known)}]
    contents = {
        "questions.json": {"questions": questions},
        "annotations.json": {"annotations": answers},
        "answer_dict.json": pair,
    }
    for name, content in contents.items():
        (folder / name).write_text(json.dumps(content))
    predictions = folder / "predictions.jsonl"
    with predictions.open("w") as file:
        for number in range(rows):
            row = {"question_id": FIRST_ID + number, "answers": rng.sample(known, 10)}
            file.write(f"{json.dumps(row)}\n")
    return [str(folder / name) for name in list(contents)[:2]], folder / "answer_dict.json", predictions


def annotations(rows: int, rng: random.Random) -> Iterator[dict[str, object]]:
    """A pose and an answer per row."""
    for number in range(rows):
        half = rng.uniform(-math.pi, math.pi) / 2
        yield {
            "scene_id": scene(number),
            "question_type": "N/A",
            "answer_type": "other",
            "question_id": FIRST_ID + number,
            "answers": [{"answer": rng.choice(WORDS), "answer_confidence": "yes", "answer_id": 1}],
            "rotation": {"_x": 0, "_y": 0, "_z": math.sin(half), "_w": math.cos(half)},
            "position": {"x": rng.gauss(0, 2), "y": rng.gauss(0, 2), "z": 0},
        }


def scene(number: int) -> str:
    """Scenes take turns."""
    return f"scene{number % SCENES:04d}_00"


if __name__ == "__main__":
    main()
