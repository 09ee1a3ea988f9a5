"""python -m benchmarks.llm rooms | speed: see the modules of these names."""

from __future__ import annotations

import sys

from benchmarks.llm import rooms, speed

PARTS = {"rooms": rooms.main, "speed": speed.main}

if __name__ == "__main__":
    if len(sys.argv) < 2 or sys.argv[1] not in PARTS:
        raise SystemExit(f"{__doc__}\nGive one of {', '.join(PARTS)}.")
    PARTS[sys.argv[1]](sys.argv[2:])
