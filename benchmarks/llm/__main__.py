"""python -m benchmarks.llm rooms | speed | memory | generation: see the modules of these names."""

from __future__ import annotations

import sys

from benchmarks.llm import generation, memory, rooms, speed

PARTS = {"rooms": rooms.main, "speed": speed.main, "memory": memory.main, "generation": generation.main}

if __name__ == "__main__":
    if len(sys.argv) < 2 or sys.argv[1] not in PARTS:
        raise SystemExit(f"{__doc__}\nGive one of {', '.join(PARTS)}.")
    PARTS[sys.argv[1]](sys.argv[2:])
