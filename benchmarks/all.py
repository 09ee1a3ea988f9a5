"""All benchmarks that need no hours, one after the other, each with a short setting: `make bench`.

python -m benchmarks.all [--list] [--scan FOLDER] [--output FOLDER] [NAME ...]

Their output goes to the terminal and to OUTPUT/NAME.txt. One that fails does not stop the others; the exit
code is 1 then. Settings are short: docs/figures.md has the commands whose numbers can be quoted.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
SCAN, OUTPUT = "SCAN", "OUTPUT"
SHORT: dict[str, list[str]] = {
    "streaming": [
        "--rounds",
        "2",
        "--views",
        "4096",
        "--consumers",
        "1",
        "2",
        "--json",
        f"{OUTPUT}/streaming.json",
    ],
    "streaming-s3": ["--rounds", "2", "--views", "2048", "--s3"],
    "scale": ["--costs", f"{OUTPUT}/streaming.json", "--largest", "100000000"],
    "storage": [SCAN],
    "scenes": [],
    "first_hour": ["--steps", "2"],
    "lift": ["--images", "300", "--ids", "10000", "100000"],
    "metrics": ["--steps", "300"],
    "annotations": [],
    "memory": ["--sizes", "B", "--stages", "2"],
    "heads": ["--scenes", "60", "--questions", "2048", "--rounds", "3"],
    "faults": ["--stall", "5"],
    "published": ["--check"],
    "endurance": ["--steps", "300", "--runs", "20", "--trials", "20"],
    "submit": ["--repeat", "1", "--folder", f"{OUTPUT}/submit"],
}
"""Name -> arguments; in this order, because `scale` takes the costs that `streaming` has measured."""
LONG = {
    "kills": "20 minutes: the demo's job, killed five times",
    "sweep": "30 minutes, after `make demo`",
    "step": "15 minutes",
    "gpu": "10 minutes of a GPU; --device cpu --tiny tries the script",
    "questions": "30 minutes, after `make demo`",
    "llm": "speed, memory 5 minutes each; rooms hours, after `make demo`; generation after rooms",
    "rooms": "40 minutes to days: the demo or rooms.yaml over three seeds",
}
"""Name -> why it is left out."""


def command(name: str, scan: Path | None, output: Path) -> list[str] | None:
    """What is run for a name; None where it needs a scan and there is none."""
    if SCAN in SHORT[name] and scan is None:
        return None
    words = [word.replace(OUTPUT, str(output)) for word in SHORT[name]]
    words = [str(scan) if word == SCAN else word for word in words]
    return [sys.executable, "-m", f"benchmarks.{name.partition('-')[0]}", *words]


def main() -> int:
    """Run those that are named, or all."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.all", description=__doc__,
        formatter_class=argparse.RawTextHelpFormatter,
    )  # fmt: skip
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(SHORT))
    parser.add_argument("--list", action="store_true", help="print the commands and what is left out")
    parser.add_argument("--scan", type=Path, help="a scan in the layout of 7-Scenes, for those that need one")
    parser.add_argument("--output", type=Path, default=Path("bench"), help="folder of what they print")
    arguments = parser.parse_args()
    if unknown := [name for name in arguments.names if name not in SHORT]:
        parser.error(f"no short benchmark {', '.join(unknown)}; there are {', '.join(SHORT)}")
    output = arguments.output.absolute()
    commands = {name: command(name, arguments.scan, output) for name in arguments.names or SHORT}
    if arguments.list:
        for name, words in commands.items():
            print(f"{name}: {'needs --scan' if words is None else ' '.join(words[1:])}")
        for name, reason in LONG.items():
            print(f"{name}: left out, {reason}")
        return 0
    output.mkdir(parents=True, exist_ok=True)
    failed = []
    for name, words in commands.items():
        if words is None:
            print(f"{name}: left out, it needs --scan")
        elif not run(name, words, output / f"{name}.txt"):
            failed.append(name)
    if failed:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


def run(name: str, words: list[str], log: Path) -> bool:
    """Whether it succeeded; its output is shown as it comes, and kept."""
    started = time.perf_counter()
    print(f"== {name}: {' '.join(words[1:])}", flush=True)
    with open(log, "w") as file:
        process = subprocess.Popen(
            words, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        assert process.stdout is not None
        for line in process.stdout:
            file.write(line)
            print(line, end="", flush=True)
    print(f"== {name}: {time.perf_counter() - started:.0f} s, exit code {process.wait()}", flush=True)
    return process.returncode == 0


if __name__ == "__main__":
    sys.exit(main())
